"""Checkpoints by `torch.distributed.checkpoint`: written in the background, whole or not at all.

A checkpoint is a folder `step-N`. It is written under another name, synced to the disk by every
rank, and renamed when all are done, so that whoever reads finds a whole one. Entries are named by
stage, not by rank. Reading unpickles nothing but the file of metadata, and that with the few
classes that belong there.
"""

import pickle
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from synthgrad.errors import CheckpointError

_NAME = re.compile(r"step-(\d+)(\.old)?")
_UNFINISHED = ".unfinished"
_ALLOWED = {
    "pathlib": {"PosixPath", "WindowsPath"},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
}


class Saver:
    """Writes the checkpoints of all ranks; collective, one at a time.

    Args:
        timeout_s: for what the ranks tell each other about it.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout = timedelta(seconds=timeout_s)
        self._group: dist.ProcessGroup | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="synthgrad checkpoint")
        self._writing: Future[None] | None = None

    def begin(self, folder: Path, step: int, entries: dict[str, Tensor], *, keep: int) -> None:
        """Begin to write; what was begun before is waited for.

        Args:
            folder: of all checkpoints.
            step: number of steps done.
            entries: those of this rank; they must not be changed afterwards.
            keep: how many checkpoints are kept.

        Raises:
            CheckpointError: the one before could not be written.
        """
        self.wait()
        if self._group is None:
            if not dist.is_initialized():
                raise CheckpointError(
                    "checkpoints are written by ranks started by torchrun or by launch(); keep "
                    "engine.state_dict() elsewhere."
                )
            # Of its own, so that the background's messages do not meet those of training.
            group = dist.new_group(backend="gloo", timeout=self._timeout)
            assert isinstance(group, dist.ProcessGroup)
            self._group = group
        self._writing = self._pool.submit(self._write, folder, step, entries, keep)

    def wait(self) -> None:
        """Wait until what was begun is written.

        Raises:
            CheckpointError: it could not be; the checkpoints before are as they were.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Wait, and let the thread go."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def _write(self, folder: Path, step: int, entries: dict[str, Tensor], keep: int) -> None:
        path = folder / f"step-{step:09d}"
        unfinished = path.with_suffix(_UNFINISHED)
        is_first = dist.get_rank() == 0
        try:
            if is_first:
                _remove(unfinished)
                with suppress(OSError):  # which the writer will meet too, and tell every rank
                    unfinished.mkdir(parents=True)
            dist.barrier(self._group)
            writer = dcp.FileSystemWriter(unfinished)
            dcp.save(entries, storage_writer=writer, process_group=self._group)
            self._finish(unfinished, path, keep)
        except (Exception, CheckpointException) as error:  # torch's own is no Exception
            if is_first:
                _remove(unfinished)
            raise CheckpointError(
                f"the checkpoint {path} could not be written: {_cause(error)}. Those before are as "
                "they were; training can go on."
            ) from error

    def _finish(self, unfinished: Path, path: Path, keep: int) -> None:
        """Give the checkpoint its name, on the first rank; fail on all of them if that fails."""
        failure: OSError | None = None
        if dist.get_rank() == 0:
            try:
                _put_in_place(unfinished, path)
                _remove_old(path.parent, keep)
            except OSError as error:
                failure = error
        is_there = torch.tensor(failure is None)
        dist.broadcast(is_there, 0, group=self._group)
        if not is_there:
            raise failure or OSError("rank 0 could not give it its name")


def find_latest(folder: Path) -> Path | None:
    """Return the latest whole checkpoint in a folder, or None if there is none."""
    found = [(int(m[1]), not m[2], p) for p, m in _checkpoints(folder)]
    return max(found)[2] if found else None


def read(path: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return the entries of a checkpoint that are wanted, on the CPU.

    Raises:
        CheckpointError: it is damaged, or holds what does not belong there.
    """
    try:
        reader = _Reader(path)
        entries = {
            name: torch.empty(meta.size, dtype=meta.properties.dtype)
            for name, meta in reader.read_metadata().state_dict_metadata.items()
            if wanted(name) and isinstance(meta, TensorStorageMetadata)
        }
        with warnings.catch_warnings():
            # Every rank reads its own entries alone, which torch takes for a mistake.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(entries, storage_reader=reader, no_dist=True)
    except CheckpointError:
        raise
    except (Exception, CheckpointException) as error:
        raise CheckpointError(
            f"the checkpoint {path} is damaged: {_cause(error)}; delete it to go on from the one "
            "before."
        ) from error
    return entries


class _Reader(dcp.FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata = _Unpickler(file).load()
        assert isinstance(metadata, Metadata)
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Unpickler(pickle.Unpickler):
    """Reads metadata and nothing else, so that a foreign file cannot run code."""

    def find_class(self, module: str, name: str, /) -> Any:
        allowed = name in _ALLOWED.get(module, ())
        if module == "torch":
            allowed = name == "Size" or isinstance(getattr(torch, name, None), torch.dtype)
        if not allowed:
            raise CheckpointError(
                f"the metadata names {module}.{name}, which no checkpoint of ours has in it: it "
                "was not read further."
            )
        return super().find_class(module, name)


def _checkpoints(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    if not folder.is_dir():
        return []
    matches = [(path, _NAME.fullmatch(path.name)) for path in folder.iterdir()]
    return [(p, m) for p, m in matches if m is not None and (p / ".metadata").is_file()]


def _put_in_place(unfinished: Path, path: Path) -> None:
    if path.exists():  # of an earlier run that came this far; whole under one name or the other
        old = path.with_suffix(".old")
        _remove(old)
        path.rename(old)
    unfinished.rename(path)


def _remove_old(folder: Path, keep: int) -> None:
    found = sorted((int(m[1]), not m[2], p) for p, m in _checkpoints(folder))
    for _, _, path in found[:-keep]:
        _remove(path)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def _cause(error: BaseException) -> str:
    """Return what went wrong on the rank where it did."""
    failures: Mapping[int, Any] = getattr(error, "failures", {})
    for rank, (failure, _) in sorted(failures.items()):
        return f"rank {rank}: {type(failure).__name__}: {failure}"
    return f"{type(error).__name__}: {error}"
