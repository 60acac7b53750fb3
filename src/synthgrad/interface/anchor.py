"""The anchor: a scalar by way of which the one backward reaches what the loss does not lead to.

That is a stage's own loss, a stage whose signal is made of the output error, and a stage below one
that was not updated and so has no graph. Such things are attached to the anchor on the way up, and
the model's output is led to it at the end.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from synthgrad.errors import InterfaceError
from synthgrad.interface.once import Once
from synthgrad.interface.output_error import OutputError
from synthgrad.trees import Tree, float_tensors, replace_float_tensors


class Attach(torch.autograd.Function):
    """(anchor, tensor) -> anchor; backward starts at the tensor, whatever comes from above.

    The tensor is a stage's own loss, or its activation; `start` gives the gradient there.
    """

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, tensor: Tensor, start: Callable[[], Tensor], name: str
    ) -> Tensor:
        """Return the anchor, and remember where to start."""
        ctx.start = start
        ctx.once = Once(name)
        return anchor.view_as(anchor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Go on along the anchor, and start at the tensor."""
        ctx.once.spend()
        return gradients[0], ctx.start(), None, None


class _Lead(torch.autograd.Function):
    """(anchor, *outputs) -> outputs; its backward reaches the anchor, whatever comes from above.

    It also is where the output error appears, before any stage's backward.
    """

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, error: OutputError, *outputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(anchor)
        ctx.error = error
        return tuple(h.clone() for h in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (anchor,) = ctx.saved_tensors
        if gradients[0] is not None:
            ctx.error.arrive(gradients[0])
        return torch.zeros_like(anchor), None, *gradients


def lead_to(anchor: Tensor, error: OutputError, output: Tree) -> Tree:
    """Return a model's output such that a loss on it leads autograd to the anchor.

    Args:
        anchor: what is reached.
        error: is told the gradient of the output's first floating-point tensor.
        output: of the model.

    Raises:
        InterfaceError: the output holds no floating-point tensor.
    """
    tensors = float_tensors(output)
    if not tensors:
        raise InterfaceError(
            f"the model returned {type(output).__name__} without a floating-point tensor in it "
            "(tuples, lists and dicts are searched), through which backward could reach the stages."
        )
    # Where the top stage is updated, outputs that need no gradient stay as they are.
    some = any(t.requires_grad for t in tensors)
    led = _Lead.apply(anchor, error, *tensors)
    return replace_float_tensors(
        output,
        [
            new if old.requires_grad or not some else old
            for old, new in zip(tensors, led, strict=True)
        ],
    )
