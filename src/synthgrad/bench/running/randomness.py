"""The default random generators: kept, restored, and left to the caller as they were."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def forked_random(device: torch.device) -> AbstractContextManager[None]:
    """Let a block draw and seed as it likes: afterward the generators are as they were before."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of the default generators of the CPU and of a device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    """Restore what `random_state` returned for that device."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
