"""The Python layout of CIFAR-10, read without letting a file run code.

A pickle is a program: it may call anything that it can name. The batches need three names, all of
NumPy, to build one array. Here each of them stands for a harmless class of our own, and every
other name is refused; so a file cannot reach NumPy itself, nor anything else.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from synthgrad.errors import CorruptDataError


def read_pickled_batch(data: bytes, *, source: str) -> tuple[list[Any], NDArray[np.uint8]]:
    """Take the labels and the pixels out of a pickled batch.

    Args:
        data: The file's bytes.
        source: The file's name, for messages.

    Returns:
        The labels as they stand in the file, not checked; the pixels, one image a row.

    Raises:
        CorruptDataError: The pickle is damaged, names something that a batch does not need, or
            holds something else than a batch.
    """
    try:
        # Batches were written by Python 2, whose strings are the bytes of today.
        content = _BatchUnpickler(io.BytesIO(data), encoding="bytes").load()
    except CorruptDataError as error:
        raise CorruptDataError(f"{source}: {error}") from error
    # The documentation of pickle does not bound what a damaged file may raise.
    except Exception as error:
        raise CorruptDataError(f"{source} cannot be read as a pickle: {error!r}") from error
    labels, pixels = _entry(content, "labels"), _entry(content, "data")
    if not isinstance(labels, list) or not isinstance(pixels, _Array) or pixels.values is None:
        raise CorruptDataError(
            f"{source} is not a CIFAR-10 batch: it must be a dict with a list 'labels' and an "
            "array 'data'"
        )
    return cast("list[Any]", labels), pixels.values


def _entry(content: object, key: str) -> object:
    if not isinstance(content, dict):
        return None
    items = cast("dict[object, object]", content)
    # Batches that Python 3 wrote anew have text for keys.
    return items.get(key.encode(), items.get(key))


class _Class:
    """Stands for `numpy.ndarray`, which a batch names but does not call."""


class _Dtype:
    """Stands for `numpy.dtype`: keeps the name of the type."""

    def __init__(self, name: object, *_: object) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        """Ignore the byte order: one byte has none."""


class _Array:
    """Stands for NumPy's `_reconstruct`: becomes the array when its state arrives."""

    # On the class, because a pickle can make an instance without calling __init__.
    values: NDArray[np.uint8] | None = None

    def __init__(self, *_: object) -> None:
        """Accept the arguments that NumPy's function takes."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, raw = state
        if dtype.name != "u1" or is_fortran or len(shape) != 2 or not isinstance(raw, bytes):
            raise CorruptDataError(
                f"its array is of type {dtype.name!r} and shape {shape}; it must be a matrix of "
                "type 'u1'"
            )
        self.values = np.frombuffer(raw, np.uint8).reshape(shape)


_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Class,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
}


class _BatchUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> type:
        stand_in = _STAND_INS.get((module_name, global_name))
        if stand_in is None:
            raise CorruptDataError(
                f"refused, because it asks for {module_name}.{global_name}, which a CIFAR-10 batch "
                "does not need. Do not use this file: it may be malicious"
            )
        return stand_in
