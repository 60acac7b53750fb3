"""Loss and accuracy of a network on examples it is not trained on meanwhile."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from synthgrad.data import Split

_BATCH_SIZE = 2_500  # large enough to be quick, small enough for the cache of one core


class Score(NamedTuple):
    """A mean loss, and an accuracy in percent."""

    loss: float
    accuracy: float


@torch.no_grad()
def evaluate(model: nn.Module, split: Split) -> Score:
    """Return the mean cross-entropy and the accuracy of a model, in eval mode.

    The mode that each of its modules had is restored; nothing else is touched.

    Args:
        model: from inputs to logits [batch, classes].
        split: the examples; they must be on the model's device.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    hits = torch.zeros((), dtype=torch.int64, device=split.labels.device)
    for inputs, labels in split.in_order(_BATCH_SIZE):
        logits = model(inputs)
        loss += F.cross_entropy(logits, labels, reduction="sum")
        hits += (logits.argmax(1) == labels).sum()
    for module, training in modes:
        module.training = training
    return Score(loss.item() / len(split), 100.0 * hits.item() / len(split))
