"""How alike two surfaces over one grid are, in numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from synthgrad.diagnostics import ImpliedLoss


@dataclass(frozen=True, kw_only=True)
class SurfaceNumbers:
    """An implied loss against the true one.

    Attributes:
        error: |I - T| / |T - T(0)| over the grid, both surfaces with the same height in the
            middle: 0 where they agree, 1 for a flat implied loss. The true loss's own range is the
            measure, so radii can be compared.
        correlation: Pearson's, over the grid; 0 where a surface is flat.
        asymmetry: how far the synthetic gradient is from being any loss's gradient.
        beyond_quadratic: |I - Q| / |I - mean(I)|, Q the quadratic closest to the implied loss: 0
            for a quadratic.
        true_beyond_quadratic: the same of the true loss.
    """

    error: float
    correlation: float
    asymmetry: float
    beyond_quadratic: float
    true_beyond_quadratic: float


def compare_surfaces(found: ImpliedLoss) -> SurfaceNumbers:
    """Return the numbers of one surface; its grid has an odd number of points each way."""
    middle = found.true[len(found.a) // 2, len(found.b) // 2]
    true, implied = ((grid - grid.mean()).flatten() for grid in (found.true, found.implied))
    return SurfaceNumbers(
        error=_ratio(found.implied - found.true, found.true - middle),
        correlation=float(true @ implied / scale)
        if (scale := float(true.norm() * implied.norm()))
        else 0.0,
        asymmetry=found.asymmetry,
        beyond_quadratic=_beyond_quadratic(found, found.implied),
        true_beyond_quadratic=_beyond_quadratic(found, found.true),
    )


def _beyond_quadratic(found: ImpliedLoss, grid: Tensor) -> float:
    # Scaled to one, or the squares of a small radius would be lost in rounding.
    a, b = torch.meshgrid(found.a / found.a[-1], found.b / found.b[-1], indexing="ij")
    terms = torch.stack([torch.ones_like(a), a, b, a * a, a * b, b * b]).flatten(1).T
    heights = grid.flatten()[:, None]
    closest = terms @ torch.linalg.lstsq(terms, heights).solution
    return _ratio(heights - closest, heights - heights.mean())


def _ratio(part: Tensor, whole: Tensor) -> float:
    scale = float(whole.norm())
    return float(part.norm()) / scale if scale else 0.0
