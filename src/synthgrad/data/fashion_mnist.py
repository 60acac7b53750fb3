"""Fashion-MNIST, from its four IDX files: articles of clothing in place of MNIST's digits.

The checksums are those of the unpacked files, because Debian's package holds the same files
gzipped anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from synthgrad.data.dataset import Dataset
from synthgrad.data.download import RemoteFile
from synthgrad.data.idx import read_maybe_gzipped
from synthgrad.data.locate import FileSet
from synthgrad.data.mnist_like import IDX_NAMES, dataset_from_idx

FILES = FileSet(
    name="fashion-mnist",
    title="Fashion-MNIST",
    layouts=(tuple(f"{name}.gz" for name in IDX_NAMES), IDX_NAMES),
    subfolders=("fashion-mnist", "FashionMNIST/raw", "."),
    system_folders=(Path("/usr/share/datasets/fashion-mnist"),),
    hint="On Debian and Ubuntu, `apt-get install dataset-fashion-mnist` puts them in place.",
)

IDX_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""Of the four files as published, unpacked."""

_PUBLISHED = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
)
_GZIPPED_SHA256 = {
    "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
REMOTE = tuple(
    RemoteFile(
        file_name=f"{name}.gz",
        urls=tuple(f"{base}{name}.gz" for base in _PUBLISHED),
        sha256=_GZIPPED_SHA256[name],
    )
    for name in IDX_NAMES
)


def load_fashion_mnist(paths: Sequence[Path]) -> Dataset:
    """Load Fashion-MNIST: 28 x 28 grayscale images, split as MNIST is.

    Args:
        paths: The four files in the order of `IDX_NAMES`, gzipped or not.

    Returns:
        The data set, on the CPU.

    Raises:
        CorruptDataError: A file is truncated or is not the published one.
    """
    contents = {path.name.removesuffix(".gz"): read_maybe_gzipped(path) for path in paths}
    mend = f"Replace the files in {paths[0].parent}, or name another folder with --data-dir."
    return dataset_from_idx("Fashion-MNIST", contents, sha256=IDX_SHA256, mend=mend)
