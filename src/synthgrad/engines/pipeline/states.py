"""What a rank's stages have learned, as tensors under names that no number of ranks is part of."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from synthgrad.engines.pipeline.message import put_together, take_apart

_SPEC = "spec"


def to_entries(name: str, state: Any) -> dict[str, Tensor]:
    """Return a tree of tensors, numbers and texts as named tensors, copied to the CPU.

    Example:
        >>> sorted(to_entries("a", {"x": torch.zeros(2), "y": 3}))
        ['a.0', 'a.spec']
    """
    spec, tensors = take_apart(state)
    text = torch.frombuffer(bytearray(json.dumps(spec).encode()), dtype=torch.uint8)
    entries = {f"{name}.{k}": t.detach().clone().cpu() for k, t in enumerate(tensors)}
    return {f"{name}.{_SPEC}": text} | entries


def from_entries(name: str, entries: Mapping[str, Tensor]) -> Any:
    """Return the tree that `to_entries` made entries of.

    Raises:
        KeyError: an entry is missing.
    """
    spec = json.loads(bytes(entries[f"{name}.{_SPEC}"].tolist()))
    count = sum(1 for key in entries if key.rpartition(".")[0] == name) - 1
    return put_together(spec, [entries[f"{name}.{k}"] for k in range(count)])
