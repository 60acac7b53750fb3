"""CIFAR-10, from its binary or its Python layout, and under a name that says which copy it is.

Both layouts hold the same records, a label and 3,072 pixels. A batch is brought into the binary
layout's form and its checksum compared with the published batch's, so one table serves both.
What differs from the published images must not be compared with published figures; it is not an
error, but the data set's name says so:

- "CIFAR-10": all six batches are the published ones.
- "CIFAR-10 (JPEG copy)": a copy whose images were re-encoded as JPEG, which loses detail. It is
  known by the order of its labels, because the pixels depend on the JPEG decoder that made them.
- "CIFAR-10 (unverified copy)": anything else of the right form.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgrad.data.checksums import sha256
from synthgrad.data.cifar_pickle import read_pickled_batch
from synthgrad.data.dataset import Dataset, build_dataset
from synthgrad.data.download import RemoteFile
from synthgrad.data.locate import FileSet
from synthgrad.errors import CorruptDataError

NUM_CLASSES = 10
IMAGE_SHAPE = (3, 32, 32)
PIXELS_PER_IMAGE = 3 * 32 * 32
RECORDS_PER_BATCH = 10_000

_PYTHON_NAMES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_BINARY_NAMES = tuple(f"{name}.bin" for name in _PYTHON_NAMES)

FILES = FileSet(
    name="cifar10",
    title="CIFAR-10",
    layouts=(_BINARY_NAMES, _PYTHON_NAMES),
    subfolders=tuple(
        f"{parent}/{folder}"
        for parent in ("cifar10", ".")
        for folder in ("cifar-10-batches-bin", "cifar-10-batches-py", ".")
    ),
    hint="They are published at https://www.cs.toronto.edu/~kriz/cifar.html.",
)

BATCH_SHA256 = (
    "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
)
"""Of the five training batches and the test batch as published in the binary layout."""

JPEG_COPY_LABELS_SHA256 = "82d32eebb492b571931eb74558b64f1242d69e426259f799cdfb7b675de26350"
"""Of all 60,000 labels of the JPEG copy, a byte each, in the order of its six batches."""

REMOTE = (
    RemoteFile(
        file_name="cifar-10-binary.tar.gz",
        urls=(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
        ),
        # Its published MD5 is c32a1d4ab5d03f1284b67883e8d87530.
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        members=tuple(f"cifar-10-batches-bin/{name}" for name in _BINARY_NAMES),
    ),
)


def load_cifar10(paths: Sequence[Path]) -> Dataset:
    """Load CIFAR-10: 32 x 32 color images; 45,000 to train, 5,000 to validate, 10,000 to test.

    Args:
        paths: The five training batches and the test batch, all of one layout.

    Returns:
        The data set, on the CPU; its name says whether it is the published one.

    Raises:
        CorruptDataError: A batch has the wrong length, a label out of range or a broken format.
    """
    batches = [read_batch(path) for path in paths]
    *train, test = batches
    return build_dataset(
        _name(batches),
        train=_images_and_labels(np.concatenate(train)),
        test=_images_and_labels(test),
        num_classes=NUM_CLASSES,
    )


def read_batch(path: Path) -> NDArray[np.uint8]:
    """Read a batch of either layout.

    Args:
        path: The file: the binary layout if its name ends in ".bin", else the Python layout.

    Returns:
        One row of 3,073 bytes a record: the label, then the red, green and blue planes.

    Raises:
        CorruptDataError: The batch has the wrong length, a label out of range or a broken format.
    """
    data = path.read_bytes()
    records = _from_binary(data, path) if path.suffix == ".bin" else _from_python(data, path)
    labels = records[:, 0]
    if labels.max() >= NUM_CLASSES:
        raise CorruptDataError(
            f"{path} has the label {labels.max()} at record {labels.argmax()}; labels must be from "
            f"0 to {NUM_CLASSES - 1}"
        )
    return records


def _from_binary(data: bytes, path: Path) -> NDArray[np.uint8]:
    record_bytes = 1 + PIXELS_PER_IMAGE
    if len(data) != RECORDS_PER_BATCH * record_bytes:
        raise CorruptDataError(
            f"{path} has {len(data):,} bytes; a batch of {RECORDS_PER_BATCH:,} records of "
            f"{record_bytes:,} bytes has exactly {RECORDS_PER_BATCH * record_bytes:,}"
        )
    return np.frombuffer(data, np.uint8).reshape(RECORDS_PER_BATCH, record_bytes)


def _from_python(data: bytes, path: Path) -> NDArray[np.uint8]:
    labels, pixels = read_pickled_batch(data, source=str(path))
    expected = (RECORDS_PER_BATCH, PIXELS_PER_IMAGE)
    if len(labels) != RECORDS_PER_BATCH or pixels.shape != expected:
        raise CorruptDataError(
            f"{path} has {len(labels):,} labels and pixels of shape {pixels.shape}; a batch has "
            f"{RECORDS_PER_BATCH:,} labels and pixels of shape {expected}"
        )
    try:
        column = np.frombuffer(bytes(labels), np.uint8)
    except (TypeError, ValueError) as error:
        raise CorruptDataError(
            f"{path} has a label that is not a number from 0 to {NUM_CLASSES - 1}: {error}"
        ) from error
    return np.column_stack([column, pixels])


def _images_and_labels(
    records: NDArray[np.uint8],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return records[:, 1:].reshape(-1, *IMAGE_SHAPE), records[:, 0]


def _name(batches: Sequence[NDArray[np.uint8]]) -> str:
    if all(
        sha256(batch.tobytes()) == expected
        for batch, expected in zip(batches, BATCH_SHA256, strict=True)
    ):
        return "CIFAR-10"
    labels = np.concatenate([batch[:, 0] for batch in batches])
    if sha256(labels.tobytes()) == JPEG_COPY_LABELS_SHA256:
        return "CIFAR-10 (JPEG copy)"
    return "CIFAR-10 (unverified copy)"
