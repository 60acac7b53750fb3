"""Ranks as processes of this machine, seen from the one that starts them; none outlives it."""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from synthgrad.engines.pipeline.wire.connect import STORE_FILE
from synthgrad.errors import ConfigError


class Rank:
    """One process, as the one that started it sees it.

    Args:
        number: of the rank.
        num_ranks: how many there are.
        store: the file in which they meet.
        threads: of torch.
        worker: what it does, a function on the level of a module.
        args: for it.

    Raises:
        ConfigError: this process may not start others, as one of several that share work.
    """

    def __init__(
        self,
        number: int,
        num_ranks: int,
        *,
        store: Path,
        threads: int,
        worker: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        if multiprocessing.current_process().daemon:
            raise ConfigError(
                "ranks are processes, and this process is itself one of several that may start no "
                "others: run one at a time (processes=1)."
            )
        context = _context()
        self.pipe, there = context.Pipe(duplex=False)
        self.process = context.Process(
            target=_serve,
            args=(there, number, num_ranks, str(store), threads),
            kwargs={"worker": worker, "args": args, "environment": dict(os.environ)},
            daemon=True,
        )
        self.process.start()
        there.close()  # or its end would go unnoticed
        self.number = number
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
