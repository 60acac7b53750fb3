"""The image data sets by name: what the command line and the experiments ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from synthgrad.data import cifar10, fashion_mnist, mnist
from synthgrad.data.dataset import Dataset
from synthgrad.data.download import RemoteFile, fetch
from synthgrad.data.locate import cache_folder, find_files
from synthgrad.errors import ConfigError, DataNotFoundError


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `check` found out about a data set on this machine.

    Attributes:
        name: The name it is asked for by, such as "cifar10".
        title: The name its records bear, such as "CIFAR-10 (JPEG copy)".
        official: Whether its files are the published ones.
        files: Where they lie.
        num_train: Training examples, without those held out for validation.
        num_validation: Validation examples.
        num_test: Test examples.
        num_classes: Classes.
        input_shape: (channels, height, width).
    """

    name: str
    title: str
    official: bool
    files: tuple[Path, ...]
    num_train: int
    num_validation: int
    num_test: int
    num_classes: int
    input_shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class _Source:
    title: str
    find: Callable[[Path | None], list[Path]]
    load: Callable[[Sequence[Path]], Dataset]
    remote: tuple[RemoteFile, ...] = ()


_SOURCES = {
    "mnist": _Source(
        title="MNIST",
        find=lambda data_dir: [mnist.archive_path()],
        load=lambda paths: mnist.load_mnist(paths[0]),
    ),
    "fashion-mnist": _Source(
        title="Fashion-MNIST",
        find=partial(find_files, fashion_mnist.FILES),
        load=fashion_mnist.load_fashion_mnist,
        remote=fashion_mnist.REMOTE,
    ),
    "cifar10": _Source(
        title="CIFAR-10",
        find=partial(find_files, cifar10.FILES),
        load=cifar10.load_cifar10,
        remote=cifar10.REMOTE,
    ),
}


def available(data_dir: Path | None = None) -> dict[str, Path | None]:
    """Tell which data sets can be loaded here, without reading them.

    Args:
        data_dir: The folder to search first.

    Returns:
        For every known name, the folder that its files were found in, or None.
    """
    return {name: _folder(source, data_dir) for name, source in _SOURCES.items()}


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """Load a data set into memory, verified; never downloads.

    Args:
        name: "mnist" (out of the package, always there), "fashion-mnist" or "cifar10".
        data_dir: The folder to search before the user's cache and the system's folders.

    Returns:
        The data set, on the CPU.

    Raises:
        ConfigError: There is no data set of that name.
        DataNotFoundError: Its files are not here; the message says which to put where.
        CorruptDataError: A file is truncated, changed or breaks its format.

    Example:
        >>> from synthgrad import data
        >>> mnist = data.load("mnist")
        >>> len(mnist.train), len(mnist.validation), len(mnist.test), mnist.input_shape
        (55000, 5000, 10000, (1, 28, 28))
    """
    source = _source(name)
    return source.load(source.find(data_dir))


def get(name: str, data_dir: Path | None = None) -> list[Path]:
    """Make sure that a data set's files are here, downloading them if they are not.

    Args:
        name: As for `load`.
        data_dir: The folder to search first and to download to; the user's cache by default.

    Returns:
        The files.

    Raises:
        ConfigError: There is no data set of that name.
        DataNotFoundError: The download failed; the message says why, and which files to put where.
    """
    source = _source(name)
    try:
        return source.find(data_dir)
    except DataNotFoundError as not_found:
        try:
            for remote in source.remote:
                fetch(remote, (data_dir or cache_folder()) / name)
        except DataNotFoundError as failed:
            raise DataNotFoundError(f"{failed}\n{not_found}") from failed
    return source.find(data_dir)


def check(name: str, data_dir: Path | None = None) -> CheckReport:
    """Verify the checksums and shapes of a data set's files.

    Args:
        name: As for `load`.
        data_dir: As for `load`.

    Returns:
        What was found.

    Raises:
        ConfigError: There is no data set of that name.
        DataNotFoundError: Its files are not here.
        CorruptDataError: A file is truncated, changed or breaks its format.
    """
    source = _source(name)
    files = source.find(data_dir)
    dataset = source.load(files)
    return CheckReport(
        name=name,
        title=dataset.name,
        official=dataset.name == source.title,
        files=tuple(files),
        num_train=len(dataset.train),
        num_validation=len(dataset.validation),
        num_test=len(dataset.test),
        num_classes=dataset.num_classes,
        input_shape=dataset.input_shape,
    )


def _source(name: str) -> _Source:
    try:
        return _SOURCES[name]
    except KeyError:
        raise ConfigError(
            f"there is no data set {name!r}; the names are {', '.join(_SOURCES)}"
        ) from None


def _folder(source: _Source, data_dir: Path | None) -> Path | None:
    try:
        return source.find(data_dir)[0].parent
    except DataNotFoundError:
        return None
