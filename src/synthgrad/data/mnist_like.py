"""MNIST and Fashion-MNIST are the same four IDX files with other pictures; both are read here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from synthgrad.data.checksums import verify_sha256
from synthgrad.data.dataset import Dataset, build_dataset
from synthgrad.data.idx import parse_idx
from synthgrad.errors import CorruptDataError

IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
NUM_CLASSES = 10


def dataset_from_idx(
    name: str, files: Mapping[str, bytes], *, sha256: Mapping[str, str], mend: str
) -> Dataset:
    """Make a data set of four IDX files, each checked against its published checksum.

    Args:
        name: What tables and records must call it.
        files: The unpacked contents, by the names in `IDX_NAMES`.
        sha256: The published checksum of each.
        mend: What the user can do about a file that is not the published one.

    Returns:
        The data set, its images of shape (1, height, width).

    Raises:
        CorruptDataError: A file is not the published one, breaks the IDX format, or its images
            and labels do not belong together.
    """
    for file_name in IDX_NAMES:
        source = f"{name}: {file_name}"
        verify_sha256(files[file_name], sha256[file_name], source=source, mend=mend)
    train_images, train_labels, test_images, test_labels = IDX_NAMES
    return build_dataset(
        name,
        train=_pair(name, files, train_images, train_labels),
        test=_pair(name, files, test_images, test_labels),
        num_classes=NUM_CLASSES,
    )


def _pair(
    name: str, files: Mapping[str, bytes], image_name: str, label_name: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = parse_idx(files[image_name], source=f"{name}: {image_name}")
    labels = parse_idx(files[label_name], source=f"{name}: {label_name}")
    if images.dtype != np.uint8 or images.ndim != 3:
        raise CorruptDataError(
            f"{name}: {image_name} holds {images.dtype} of shape {images.shape}; images must be "
            "uint8 of shape (num_examples, height, width)"
        )
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise CorruptDataError(
            f"{name}: {label_name} holds {labels.dtype} of shape {labels.shape}; labels must be "
            f"uint8 of shape {images.shape[:1]}, one for each image"
        )
    if labels.size and labels.max() >= NUM_CLASSES:
        raise CorruptDataError(
            f"{name}: {label_name} has the label {labels.max()} at position {labels.argmax()}; "
            f"labels must be from 0 to {NUM_CLASSES - 1}"
        )
    return images[:, None], labels
