"""The one file from which an interrupted run goes on: written atomically, gone when it is done."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from synthgrad.errors import RecordError

CHECKPOINT_FILE = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint; a crash at any moment leaves the old one or the new one.

    Args:
        folder: the run's folder.
        state: tensors, numbers and texts, and lists, tuples and dicts of them.

    Raises:
        RecordError: it cannot be written.
    """
    path = folder / CHECKPOINT_FILE
    temporary = path.with_suffix(".pt.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
        raise RecordError(f"cannot write {path}: {error}") from error


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the folder's checkpoint with its tensors on the CPU, or None if there is none.

    Raises:
        RecordError: the file is damaged.
    """
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RecordError(
            f"{path} is damaged: {error}; delete it to start this run anew"
        ) from error


def remove_checkpoint(folder: Path) -> None:
    """Delete the folder's checkpoint, and do nothing if there is none."""
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
