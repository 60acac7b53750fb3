"""Pure measures of how good a predicted gradient is: tensors in, 0-dim tensors out."""

import torch
from torch import Tensor


def cosine(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the cosine of the angle between two gradients, taken over all their elements.

    Math: <a, b> / (|a| |b|), and 0 where either is zero (a direction that does not exist agrees
    with nothing). 1 is the same direction, 0 is no information, -1 is the opposite direction.

    Args:
        predicted: any shape.
        true: the same shape.

    Returns:
        A 0-dim tensor in [-1, 1], at least float32.
    """
    a, b = _flat(predicted), _flat(true)
    tiny = torch.finfo(a.dtype).tiny
    return torch.dot(a, b) / (norm(a) * norm(b)).clamp_min(tiny)


def relative_error(predicted: Tensor, true: Tensor) -> Tensor:
    """Return |predicted - true| / |true| over all elements; 1 for a prediction of zero.

    Below 1 the prediction is better than no signal. It is the quantity that the epsilon-tracking
    condition of Czarnecki et al. 2017 (Proposition 2) bounds. A true gradient of exactly zero
    gives 0 for a prediction of zero and a huge number otherwise.
    """
    a, b = _flat(predicted), _flat(true)
    return norm(a - b) / norm(b).clamp_min(torch.finfo(b.dtype).tiny)


def norm(gradient: Tensor) -> Tensor:
    """Return the Euclidean norm over all elements, as a 0-dim tensor of at least float32."""
    return torch.linalg.vector_norm(_flat(gradient))


def _flat(gradient: Tensor) -> Tensor:
    """One dimension, and wide enough that squares of small gradients do not vanish."""
    flat = gradient.detach().reshape(-1)
    return flat.to(torch.promote_types(flat.dtype, torch.float32))
