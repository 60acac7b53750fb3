"""Other weights on the way down: hooks that replace the transpose in layers above an interface.

A forward pre-hook hands a layer its input detached, so the layer computes no true gradient of it;
a forward hook then leads the error from the layer's output to that input through other weights.
The user's modules are not edited, and outside a training pass the hooks do nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.hooks import RemovableHandle

from synthgrad.errors import InterfaceError, UnsupportedModelError
from synthgrad.interface import Step, inside_checkpoint
from synthgrad.signals.transposes import (
    Feedback,
    InputGradient,
    TransposeSignal,
    input_gradient_of,
)
from synthgrad.validate import call, restored

NORMALIZATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""They have parameters, and keep their derivative."""


class FeedbackLayer(nn.Module):
    """What stands in for the transposed weight of one layer.

    Its hooks are bound methods rather than closures, so that `deepcopy` carries them over.

    Args:
        name: dotted name of the layer.
        signal: says which weights.
        layer: the layer, looked at here and not kept.
        down: how an error goes down through such a layer.
        step: shared with the interfaces of the model.
    """

    fixed: Tensor | None

    def __init__(
        self,
        name: str,
        signal: TransposeSignal,
        layer: nn.Module,
        down: InputGradient,
        step: Step,
    ) -> None:
        super().__init__()
        self.name = name
        self.signal = signal
        self.down = down
        self.step = step
        self.register_buffer("fixed", signal.draw(_weight(layer), name))
        self._input: Tensor | None = None

    def hook(self, layer: nn.Module) -> list[RemovableHandle]:
        """Put the hooks onto the layer: last before its forward pass, and first after it."""
        return [
            layer.register_forward_pre_hook(self.before),
            layer.register_forward_hook(self.after, prepend=True),
        ]

    def forget(self) -> None:
        """Let go of the input of a call that did not end."""
        self._input = None

    @torch._disable_dynamo
    def before(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Cut the input off, in a stage above the lowest interface; a forward pre-hook."""
        self.forget()
        if not (self.step.active and self.step.position):
            return None
        if inside_checkpoint():
            raise InterfaceError(
                f"layer {self.name!r} lies inside an activation checkpoint, which runs it again "
                f"in backward, where {self.signal} cannot reach it: take the checkpoint out."
            )
        if not args:
            raise InterfaceError(
                f"layer {self.name!r} was called with its input as a keyword argument; "
                f"{self.signal} needs it as the first positional one."
            )
        x, *others = args
        if not (torch.is_grad_enabled() and x.requires_grad):
            return None
        self._input = x
        return (x.detach(), *others)

    @torch._disable_dynamo
    def after(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Lead the error from the output to the input through other weights; a forward hook."""
        x, self._input = self._input, None
        if x is None:
            return None
        weight = partial(self.signal.feedback, _weight(layer), self.fixed)
        return Feedback.apply(output, x, weight, self.down)


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def feedback_layers(
    model: nn.Module,
    cuts: Sequence[str],
    signal: TransposeSignal,
    example_inputs: Any,
    step: Step,
) -> dict[str, FeedbackLayer]:
    """Make what stands in for each transpose above the lowest interface, by dotted name.

    Raises:
        UnsupportedModelError: a module there has parameters that are used in a way for which no
            other transpose is known; the message names all of them.
    """
    above = _modules_above(model, cuts, example_inputs)
    made, problems = dict[str, FeedbackLayer](), list[str]()
    for name, module in model.named_modules():
        if not any(True for _ in module.parameters(recurse=False)):
            continue
        caller = name
        while caller not in above:
            caller = caller.rpartition(".")[0]
        if not above[caller]:
            continue
        if caller != name:
            problems.append(
                f"{name!r} ({type(module).__name__}) has parameters and is not called as a module "
                "in the forward pass, so nobody can tell how they are used."
            )
        elif not isinstance(module, NORMALIZATIONS):
            down = input_gradient_of(module)
            if down is None:
                problems.append(f"{name!r} ({type(module).__name__}) has parameters.")
            else:
                made[name] = FeedbackLayer(name, signal, module, down, step)
    if problems:
        lines = "\n".join(f"  {n}. {text}" for n, text in enumerate(problems, 1))
        raise UnsupportedModelError(
            f"{signal} replaces the transposed weight in every layer above the interface "
            f"{cuts[0]!r}, and knows nn.Linear, nn.Conv1d and nn.Conv2d (zero padding, alike on "
            f"both sides), normalizations, and layers without parameters:\n{lines}"
        )
    return made


def _modules_above(
    model: nn.Module, cuts: Sequence[str], example_inputs: Any
) -> Mapping[str, bool]:
    """Run the model once; return, a module that was called, whether any call ended above a cut."""
    called = dict[str, bool]()
    crossed = list[str]()

    def note(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            called[name] = called.get(name, False) or bool(crossed)
            if name in cuts:
                crossed.append(name)

        return hook

    handles = [m.register_forward_hook(note(name)) for name, m in model.named_modules()]
    try:
        with restored(model), torch.enable_grad():
            model.train()
            call(model, example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    return called
