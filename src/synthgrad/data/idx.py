"""The IDX format of MNIST and its relatives: a header of big-endian sizes, then the numbers.

bytes 0-1   zero
byte  2     the type of the numbers
byte  3     the number of dimensions
then        each dimension's size, four bytes
then        the numbers, the last dimension running fastest
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgrad.errors import CorruptDataError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> NDArray[Any]:
    """Read one IDX file, gzipped if its name ends in ".gz".

    Args:
        path: The file.

    Returns:
        A read-only array of the shape and type that the file's header states.

    Raises:
        CorruptDataError: The file breaks the format or is truncated.
        FileNotFoundError: There is no such file.
    """
    return parse_idx(read_maybe_gzipped(path), source=str(path))


def parse_idx(data: bytes, *, source: str) -> NDArray[Any]:
    """Read an IDX file's bytes; `source` names the file in messages. See `read_idx`."""
    if len(data) < 4:
        raise CorruptDataError(
            f"{source} has {len(data)} bytes; an IDX file begins with a magic number of 4"
        )
    if data[:2] != b"\0\0" or data[2] not in _TYPES:
        known = ", ".join(f"0000{code:02x}" for code in _TYPES)
        raise CorruptDataError(
            f"{source} is not an IDX file: it begins with {data[:3].hex()}, not with one of {known}"
        )
    dtype = np.dtype(_TYPES[data[2]])
    num_dimensions = data[3]
    header_bytes = 4 + 4 * num_dimensions
    if num_dimensions == 0 or len(data) < header_bytes:
        raise CorruptDataError(
            f"{source} states {num_dimensions} dimensions and has {len(data)} bytes; its header "
            f"alone needs at least one dimension and {header_bytes} bytes"
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", num_dimensions, offset=4))
    expected_bytes = header_bytes + math.prod(shape) * dtype.itemsize
    if len(data) != expected_bytes:
        raise CorruptDataError(
            f"{source} has {len(data):,} bytes; for its shape {shape} it must have exactly "
            f"{expected_bytes:,}"
        )
    return np.frombuffer(data, dtype, offset=header_bytes).reshape(shape)


def read_maybe_gzipped(path: Path) -> bytes:
    """Return a file's contents, unpacked if its name ends in ".gz".

    Raises:
        CorruptDataError: The gzip stream is damaged or truncated.
    """
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptDataError(
            f"{path} ({len(data):,} bytes) cannot be unpacked: {error}. Replace it by a whole copy"
        ) from error
