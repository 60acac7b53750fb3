"""The tasks of a study follow each other in one process, most of them on the same data."""

from functools import lru_cache
from pathlib import Path

from synthgrad.data import Dataset, load


@lru_cache(maxsize=1)  # a second is long, where a smoke takes eight
def load_once(name: str, data_dir: Path | None, device: str = "cpu") -> Dataset:
    """Return a data set as `load` does, on a device; the last one is kept.

    Args:
        name: of the data set.
        data_dir: where to look for it first.
        device: to have it on.
    """
    return load(name, data_dir).to(device)
