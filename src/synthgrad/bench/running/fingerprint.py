"""A checksum of a state, to prove that evaluation and warm-up left no trace in it."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def fingerprint(*states: Any) -> str:
    """Return the SHA-256 of states: every bit of every tensor, and every plain value.

    Args:
        states: tensors, numbers, texts, None, and lists, tuples and mappings of them, such as
            state dicts. Mappings count in their order.

    Returns:
        64 hexadecimal digits; equal for equal states on any device.
    """
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
        elif isinstance(value, Mapping):
            digest.update(f"mapping of {len(value)}".encode())
            for key, part in value.items():
                add(key)
                add(part)
        elif isinstance(value, (list, tuple)):
            digest.update(f"sequence of {len(value)}".encode())
            for part in value:
                add(part)
        else:
            digest.update(repr(value).encode() + b"\0")

    add(states)
    return digest.hexdigest()
