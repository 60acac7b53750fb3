"""Target scaling: the synthesizer regresses on targets of size one, whatever their size is."""

from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.synthesizers.statistics import Statistics, widened

MOMENTUM = 0.01
"""The share of the newest target in the running mean square."""


class NormalizedSynthesizer(Statistics):
    """Predict s * M(h, c), where s is the running root mean square of the targets' elements.

    M itself is fitted to target / s, so that its learning rate means the same at every interface.
    Before the first target s is one.

    When not to use it: with Adam, whose steps have a size of their own; see docs/long-chains.md.

    Args:
        inner: the synthesizer M.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.mean_square: Tensor
        self.register_buffer("mean_square", torch.zeros(()))

    def forward(self, h: Tensor, code: Tensor | None) -> Tensor:
        """Map activations to per-example gradients of the same shape."""
        square = self.mean_square
        scale = torch.where(square > 0, square, torch.ones_like(square)).sqrt()
        return _Rescale.apply(self.inner(h, code), scale)

    @torch.no_grad()
    def observe(self, target: Tensor) -> None:
        """Take a target, in per-example units, into the running mean square.

        One that overflowed is left out, as a GradScaler leaves out its step.
        """
        old, new = self.mean_square, widened(target).square().mean().to(self.mean_square)
        mean = torch.where(old > 0, old.lerp(new, MOMENTUM), new)
        old.copy_(torch.where(new.isfinite(), mean, old))


class _Rescale(torch.autograd.Function):
    """x -> s x, with the regression gradient 2/B (s x - t) led back as 2/B (x - t/s)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return x * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        return gradients[0] / scale, None
