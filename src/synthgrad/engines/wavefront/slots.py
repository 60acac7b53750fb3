"""Rows of what is stacked along the stages."""

import torch
from torch import Tensor


def pick(values: Tensor, slots: tuple[int, ...]) -> Tensor:
    """Return the stages' rows, as a view where they are neighbors; without the axis for one."""
    if len(slots) == 1:
        return values[slots[0]]
    if slots == tuple(range(slots[0], slots[-1] + 1)):
        return values[slots[0] : slots[-1] + 1]
    return torch.stack([values[s] for s in slots])


def lift(values: Tensor, like: Tensor) -> Tensor:
    """Give a vector over stages the axes that it needs to be broadcast."""
    return values.reshape(values.shape + (1,) * (like.dim() - values.dim()))
