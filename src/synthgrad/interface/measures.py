"""How well a prediction met what it is fitted to, for `DecoupledModel.report`."""

import torch
from torch import Tensor

from synthgrad import metrics
from synthgrad.signals import Units


def measure(prediction: Tensor, target: Tensor, units: Units) -> dict[str, Tensor]:
    """Return how well a prediction met its target: 0-dim tensors, in per-example units."""
    with torch.no_grad():
        wide = torch.promote_types(prediction.dtype, torch.float32)
        predicted, true = prediction.detach().to(wide), target.detach().to(wide) / units.factor
        return {
            "regression_loss": (predicted - true).square().sum() / max(units.batch_size, 1),
            "cosine": metrics.cosine(predicted, true),
            "relative_error": metrics.relative_error(predicted, true),
            "prediction_norm": metrics.norm(predicted),
            "target_norm": metrics.norm(true),
        }
