"""Signals that are backprop but for the weights on the way down: what they have in common.

They replace the transposed weight in the vector-Jacobian product of each linear and convolutional
layer above an interface. Here is the maths of that; `synthgrad.feedback` hangs it onto the layers.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import grad

from synthgrad.signals.limits import Backprop

InputGradient = Callable[[Tensor, torch.Size, Tensor], Tensor]
"""From (gradient of the output, shape of the input, weight) to the gradient of the input."""


@dataclass(frozen=True, kw_only=True)
class TransposeSignal(Backprop):
    """Hand down the gradient from above, which other weights than the layers' own led there."""

    @abstractmethod
    def draw(self, weight: Tensor, layer: str) -> Tensor | None:
        """Return the fixed weights to keep for a layer of that dotted name, or None."""

    @abstractmethod
    def feedback(self, weight: Tensor, fixed: Tensor | None) -> Tensor:
        """Return the weight that takes an error down through a layer.

        Args:
            weight: the layer's own, as it is now.
            fixed: what `draw` returned.
        """


def init_bound(weight: Tensor) -> float:
    """Return the bound of the uniform range that torch draws such a layer's weight from.

    It is 1/sqrt(fan_in), for linear and convolutional layers alike.
    """
    return max(weight[0].numel(), 1) ** -0.5


def init_deviation(weight: Tensor) -> float:
    """Return the standard deviation of that range, 1/sqrt(3 fan_in)."""
    return init_bound(weight) / math.sqrt(3)


def input_gradient_of(layer: nn.Module) -> InputGradient | None:
    """Return how an error goes down through a layer, or None if nobody knows that here.

    It knows `nn.Linear`, `nn.Conv1d` and `nn.Conv2d` (zero padding), and their subclasses that
    keep the forward pass.
    """
    forward = type(layer).forward
    if forward is nn.Linear.forward:
        return _through_linear
    for kind, function in (
        (nn.Conv1d, grad.conv1d_input),
        (nn.Conv2d, grad.conv2d_input),
    ):
        if forward is kind.forward:
            assert isinstance(layer, kind)
            padding = _padding(layer)
            return None if padding is None else _ThroughConv(layer, function, padding)
    return None


def _through_linear(gradient: Tensor, shape: torch.Size, weight: Tensor) -> Tensor:
    del shape
    return gradient @ weight


class _ThroughConv:
    """The input gradient of a convolution with the layer's strides; an object, to be picklable."""

    def __init__(
        self,
        layer: nn.Conv1d | nn.Conv2d,
        function: Callable[..., Tensor],
        padding: tuple[int, ...],
    ) -> None:
        self.function = function
        self.options = {
            "stride": layer.stride,
            "padding": padding,
            "dilation": layer.dilation,
            "groups": layer.groups,
        }

    def __call__(self, gradient: Tensor, shape: torch.Size, weight: Tensor) -> Tensor:
        return self.function(shape, weight, gradient, **self.options)


def _padding(layer: nn.Conv1d | nn.Conv2d) -> tuple[int, ...] | None:
    """The layer's padding as numbers; None if it is not of zeros, or not the same on both sides."""
    if layer.padding_mode != "zeros":
        return None
    if layer.padding == "valid":
        return (0,) * len(layer.kernel_size)
    if layer.padding != "same":
        assert not isinstance(layer.padding, str)
        return tuple(layer.padding)
    total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    return None if any(t % 2 for t in total) else tuple(t // 2 for t in total)


class Feedback(torch.autograd.Function):
    """(y, x) -> y; backward passes the error on to y, and to x through other weights.

    y must have been computed from x detached, so that this is the only way down to x.
    """

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, weight: Callable[[], Tensor], down: InputGradient
    ) -> Tensor:
        """Return y itself, and keep how to get down to x."""
        ctx.shape, ctx.dtype = x.shape, x.dtype
        ctx.weight, ctx.down = weight, down
        # Nothing is written; but a view could not be worked on in place by what follows.
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Pass the error on as it is, and to x through the other weights."""
        (gradient,) = gradients
        weight: Tensor = ctx.weight().to(gradient.dtype)
        return gradient, ctx.down(gradient, ctx.shape, weight).to(ctx.dtype), None, None
