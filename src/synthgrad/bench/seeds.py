"""Seeds for each purpose of a run, so that the draws of one never shift those of another.

Initial weights, order of the batches and skipped stages each get their own stream: an arm that
draws more numbers than another for one purpose still sees the same batches. `hash()` would not do,
because it differs between processes.
"""

import hashlib

import torch

from synthgrad.errors import ConfigError


def derive_seed(seed: int, purpose: str) -> int:
    """Return the seed of one purpose of a run: the top 63 bits of SHA-256 of both.

    Args:
        seed: the run's seed, any integer.
        purpose: what the numbers are for, such as "weights" or "batches".

    Returns:
        An integer in [0, 2**63), the same in every process and on every machine.

    Raises:
        ConfigError: the purpose is empty.

    Example:
        >>> derive_seed(0, "weights") == derive_seed(0, "weights")
        True
        >>> derive_seed(0, "weights") == derive_seed(0, "batches")
        False
    """
    if not purpose:
        raise ConfigError("derive_seed needs a purpose, such as 'weights'; an empty one was given")
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a new CPU generator for one purpose of a run.

    Args:
        seed: the run's seed, any integer.
        purpose: what the numbers are for, such as "weights" or "batches".

    Raises:
        ConfigError: the purpose is empty.
    """
    return torch.Generator().manual_seed(derive_seed(seed, purpose))
