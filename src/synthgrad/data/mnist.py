"""MNIST, out of the package itself: the first experiment needs neither network nor folder.

The four IDX files lie in one compressed archive, made by `scripts/make_mnist.py`.
"""

from __future__ import annotations

import io
import tarfile
from importlib.resources import files
from pathlib import Path

from synthgrad.data.checksums import verify_sha256
from synthgrad.data.dataset import Dataset
from synthgrad.data.mnist_like import dataset_from_idx
from synthgrad.errors import DataNotFoundError

ARCHIVE_SHA256 = "26238404fded0c41ced4202c8e24fe9305db15fcdb9d059f6669c2e7792b7491"
"""Of the archive as it is shipped; another version of liblzma may pack the same files otherwise."""

IDX_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Of the four files as published, unpacked."""

_MEND = "Install synthgrad again."


def archive_path() -> Path:
    """Return where the package keeps its copy of MNIST."""
    return Path(str(files("synthgrad.data"))) / "mnist" / "mnist.tar.xz"


def load_mnist(path: Path | None = None) -> Dataset:
    """Load MNIST: 28 x 28 grayscale digits, 55,000 to train, 5,000 to validate, 10,000 to test.

    Args:
        path: The archive; the package's own by default.

    Returns:
        The data set, on the CPU.

    Raises:
        CorruptDataError: The archive is truncated or changed.
        DataNotFoundError: The archive is not there.
    """
    path = path or archive_path()
    try:
        packed = path.read_bytes()
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{path} is missing. {_MEND}") from error
    verify_sha256(packed, ARCHIVE_SHA256, source=str(path), mend=_MEND)
    return dataset_from_idx("MNIST", unpack(packed), sha256=IDX_SHA256, mend=_MEND)


def unpack(packed: bytes) -> dict[str, bytes]:
    """Return the files in a .tar.xz archive, by name."""
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:xz") as archive:
        streams = ((member.name, archive.extractfile(member)) for member in archive)
        return {name: stream.read() for name, stream in streams if stream is not None}
