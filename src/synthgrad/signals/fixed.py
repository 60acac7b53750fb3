"""Fixed random numbers that depend on a seed and a place, and on nothing else.

Feedback weights are drawn once and never learned, so a network that is built again, on another
device or with other interfaces around, must get the same ones.
"""

import random

import torch
from torch import Tensor


def fixed_uniform(shape: torch.Size, bound: float, *, like: Tensor, key: str) -> Tensor:
    """Return numbers drawn uniformly from [-bound, bound].

    Args:
        shape: of the result.
        bound: half the width of the range.
        like: has the dtype and the device of the result.
        key: what the draw depends on; torch's own random state is neither used nor changed.
    """
    # Seeded with a string, the generator goes through SHA-512: alike on every platform.
    source = torch.Generator("cpu").manual_seed(random.Random(f"synthgrad {key}").getrandbits(63))
    wide = torch.promote_types(like.dtype, torch.float32)
    drawn = torch.empty(shape, dtype=wide, device="cpu").uniform_(-bound, bound, generator=source)
    return drawn.to(like)
