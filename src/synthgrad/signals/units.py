"""Per-example units: what synthesizers predict in, and how it becomes a gradient of the loss."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Units:
    """How a per-example gradient is turned into a gradient of the loss, and back.

    `signal = prediction * factor`, and `prediction's target = gradient / factor`.

    Attributes:
        batch_size: number of examples in the batch.
        weight: of one example in the loss: 1/batch_size for a mean, 1 for a sum.
        loss_scale: what a GradScaler multiplies the loss by; 1.0 without one.
    """

    batch_size: int
    weight: float
    loss_scale: float | Tensor

    @classmethod
    def of(cls, batch_size: int, *, mean: bool = True, loss_scale: float | Tensor = 1.0) -> "Units":
        """Return the units of a batch, whose loss is a mean over examples or a sum."""
        return cls(batch_size, 1 / max(batch_size, 1) if mean else 1.0, loss_scale)

    @property
    def factor(self) -> float | Tensor:
        """The weight of one example in the scaled loss."""
        return self.weight * self.loss_scale


def squared_distance(prediction: Tensor, target: Tensor, units: Units) -> Tensor:
    """Return the squared distance per example, averaged over the batch, times the loss scale.

    Summed over features, not averaged: each output of a predictor then has a regression of its
    own, whose step does not shrink with the number of the others. `ErrorSignal.fit_gradient` is
    the gradient of the same.

    Args:
        prediction: [batch, ...], with its graph.
        target: the same shape; no gradient flows into it.
        units: of this batch.
    """
    wide = torch.promote_types(prediction.dtype, torch.float32)
    error = prediction.to(wide) - target.detach().to(wide)
    return error.square().sum() * (units.loss_scale / max(units.batch_size, 1))
