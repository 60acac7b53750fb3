"""Start ranks on this machine, and leave none behind, however they end.

The ranks meet in a file, so nothing listens but their connections, on loopback. Torch's elastic
launcher would do as well, but its rendezvous listens on every network interface; it is there for
those who want it (`torchrun`).
"""

import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from synthgrad.engines.pipeline.connect import STORE_FILE
from synthgrad.errors import ConfigError, RankError

# How long ranks that are told of another's failure may take to say so.
_GRACE_S = 8.0


def launch(
    worker: Callable[..., Any],
    *args: Any,
    num_ranks: int = 2,
    threads: int = 1,
    max_restarts: int = 0,
    grace_s: float = _GRACE_S,
) -> list[Any]:
    """Run a function on several ranks of this machine, and return what each of them returned.

    Inside, `connect()` (which `Pipeline` calls itself) joins the ranks. If one of them fails, the
    others get a moment to say what they saw, then all are ended.

    Args:
        worker: a function on the level of a module; it is called as `worker(*args)` on each rank.
        args: for it; they and its result go through pickle, between processes of this one.
        num_ranks: how many processes.
        threads: of torch, in each of them.
        max_restarts: how often to start all ranks anew after one has failed. A worker that begins
            with `Pipeline.load` goes on from its last checkpoint.
        grace_s: seconds that the others get.

    Raises:
        ConfigError: a number is too small.
        RankError: ranks failed, and no restart is left; it names each of them and its error.
    """
    if num_ranks < 1 or threads < 1 or max_restarts < 0:
        raise ConfigError(
            f"num_ranks={num_ranks} and threads={threads} must be 1 or more, and "
            f"max_restarts={max_restarts} must not be negative."
        )
    for left in reversed(range(max_restarts + 1)):
        try:
            return _run(worker, args, num_ranks, threads, grace_s)
        except RankError:
            if left == 0:
                raise
    raise AssertionError


def _run(
    worker: Callable[..., Any], args: tuple[Any, ...], num_ranks: int, threads: int, grace_s: float
) -> list[Any]:
    context = _context()
    with tempfile.TemporaryDirectory(prefix="synthgrad-") as folder:
        ranks = list[_Rank]()
        try:
            for rank in range(num_ranks):
                here, there = context.Pipe(duplex=False)
                process = context.Process(
                    target=_serve,
                    args=(there, rank, num_ranks, str(Path(folder) / "store"), threads),
                    kwargs={"worker": worker, "args": args, "environment": dict(os.environ)},
                    daemon=True,
                )
                process.start()
                there.close()  # or its end would go unnoticed
                ranks.append(_Rank(rank, process, here))
            _watch(ranks, grace_s)
        finally:
            for rank in ranks:
                rank.end()
    failed = [r for r in ranks if r.failure is not None]
    if failed:
        failed.sort(key=lambda r: r.is_silent, reverse=True)
        raise RankError("\n".join(f"rank {r.number}: {r.failure}" for r in failed))
    return [r.result for r in ranks]


class _Rank:
    """One process, as the one that started it sees it."""

    def __init__(self, number: int, process: Any, pipe: Connection) -> None:
        self.number = number
        self.process = process
        self.pipe = pipe
        self.result: Any = None
        self.failure: str | None = None
        self.is_silent = False
        self.is_done = False

    def hear(self) -> None:
        """Take what it says last; nothing, if it was killed."""
        try:
            ended_well, said = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self.process.join()
            self.fail(f"{_ending(self.process.exitcode)} and said nothing")
        else:
            if ended_well:
                self.result = said
            else:
                self.failure = said
        self.is_done = True

    def fail(self, how: str) -> None:
        """Note that it ended without a word."""
        self.failure, self.is_silent, self.is_done = how, True, True

    def end(self) -> None:
        """Wait for the process if it is ending, else kill it."""
        self.process.join(1.0 if self.is_done and not self.is_silent else 0.0)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.pipe.close()


def _context() -> Any:
    """Return how to start processes: not by a fork of this one, whose threads it could wait for.

    A server that has imported torch and done nothing else is forked instead, so that ranks need not
    import it again; where there is none, processes begin from nothing. It is the whole process's
    server, so it holds nothing of this library's.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # The second is what making any optimizer imports, and takes seconds.
    context.set_forkserver_preload(["torch", "torch._dynamo"])
    return context


def _watch(ranks: list[_Rank], grace_s: float) -> None:
    """Hear every rank; after the first failure, only for as long as the grace lasts."""
    deadline: float | None = None
    while running := {r.pipe: r for r in ranks if not r.is_done}:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = wait(list(running), left)
        for pipe in ready:
            assert isinstance(pipe, Connection)
            running[pipe].hear()
        if not ready:
            for rank in running.values():
                rank.fail("did not end by itself, and was killed")
            return
        if deadline is None and any(r.failure is not None for r in ranks):
            deadline = time.monotonic() + grace_s


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _serve(
    pipe: Connection,
    rank: int,
    num_ranks: int,
    store: str,
    threads: int,
    *,
    worker: Callable[..., Any],
    args: tuple[Any, ...],
    environment: dict[str, str],
) -> None:
    """All that one rank does."""
    os.environ.clear()
    os.environ |= environment | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
    }
    os.environ[STORE_FILE] = store
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = worker(*args)
    except BaseException as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        pipe.send_bytes(pickle.dumps((False, text)))
        # Connections close with the process, which is how the others learn of it. Destructors
        # could wait for the very ranks that are gone.
        os._exit(1)
    # Not `send`, which would share the memory of tensors, and this process is about to end.
    pipe.send_bytes(pickle.dumps((True, result)))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _end_with_parent() -> None:
    """End this process when the one that started the ranks is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
