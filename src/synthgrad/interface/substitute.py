"""The synthetic gradient: in backward the true gradient stops, and a prediction goes on.

One autograd Function does it. Its backward keeps what arrives from above as the *target*, hands
the synthesizer its regression gradient, and returns the error signal to the stage below, so a
user's loop (forward, backward, step) stays as it is and one backward runs every stage.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from synthgrad.interface.crossing import Crossing
from synthgrad.interface.interface import Interface
from synthgrad.interface.once import Once
from synthgrad.interface.step import Entry
from synthgrad.trees import Tree, replace_float_tensors


class _Substitute(torch.autograd.Function):
    """(anchor, h, prediction) -> (anchor, h); backward substitutes the signal for the gradient.

    The anchor leads autograd from interface to interface even where the stage between them was
    not updated and so has no graph. None where every stage has one.
    """

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor | None, h: Tensor, prediction: Tensor, crossing: Crossing
    ) -> tuple[Tensor | None, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(prediction)
        ctx.crossing = crossing
        ctx.once = Once(crossing.interface.name)
        up = h.clone() if crossing.interface.clone else h.view_as(h)
        return (None if anchor is None else anchor.view_as(anchor)), up

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.once.spend()
        crossing: Crossing = ctx.crossing
        (prediction,) = ctx.saved_tensors
        down_anchor, target = gradients
        target = crossing.trace.added_to(target)
        _, needs_signal, needs_fit, _ = ctx.needs_input_grad
        signal = crossing.emit(prediction, target) if needs_signal else None
        if signal is not None:
            crossing.pass_trace(signal, target)
        fit = crossing.fit(prediction, target) if needs_fit and target is not None else None
        return down_anchor, signal, fit, None


def substitute(interface: Interface, output: Tree) -> Tree:
    """Predict the gradient of each tensor, and hand the tensors up through the Function."""
    below, above = interface.updates_below, interface.updates_above
    if not (below or above):
        return output
    step = interface.step
    leaves = interface.leaves(output, interface.synthesizers)
    crossings = [Crossing(interface, k, h, fits=above) for k, h in enumerate(leaves)]
    predictions = [
        c.predict(m, h) for c, m, h in zip(crossings, interface.synthesizers, leaves, strict=True)
    ]
    anchor = step.anchor
    if interface.release:
        if below:
            _release(leaves, crossings, predictions)
        leaves = [h.detach() for h in leaves]
        anchor = None  # what stands below has run its backward, and must not be reached again
    entries, passed = list[Entry](), list[Tensor]()
    for crossing, h, prediction in zip(crossings, leaves, predictions, strict=True):
        anchor, up = _Substitute.apply(anchor, h, prediction, crossing)
        passed.append(up)
        if above and up.requires_grad:
            # An edge and not the tensor, which the next operation may change in place.
            entries.append(Entry(get_gradient_edge(up), crossing.trace))
    step.entries = entries
    if not interface.release:
        step.anchor = anchor
    return replace_float_tensors(output, passed)


def _release(leaves: list[Tensor], crossings: list[Crossing], predictions: list[Tensor]) -> None:
    """Run the backward of the stage below now; its graph is freed by that."""
    ready = [
        (h, crossing.emit(prediction.detach(), None))
        for h, crossing, prediction in zip(leaves, crossings, predictions, strict=True)
        if h.requires_grad
    ]
    if ready:
        # The user's autocast is meant for the forward pass around it.
        with torch.autocast(ready[0][0].device.type, enabled=False):
            torch.autograd.backward([h for h, _ in ready], [signal for _, signal in ready])
