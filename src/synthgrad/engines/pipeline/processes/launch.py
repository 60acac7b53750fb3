"""Start ranks on this machine, and leave none behind, however they end.

The ranks meet in a file, so nothing listens but their connections, on loopback. Torch's elastic
launcher would do as well, but its rendezvous listens on every network interface; it is there for
those who want it (`torchrun`).
"""

import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from synthgrad.engines.pipeline.processes.ranks import Rank
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
    with tempfile.TemporaryDirectory(prefix="synthgrad-") as folder:
        ranks = list[Rank]()
        try:
            for number in range(num_ranks):
                ranks.append(
                    Rank(
                        number,
                        num_ranks,
                        store=Path(folder) / "store",
                        threads=threads,
                        worker=worker,
                        args=args,
                    )
                )
            _watch(ranks, grace_s)
        finally:
            for rank in ranks:
                rank.end()
    failed = [r for r in ranks if r.failure is not None]
    if failed:
        failed.sort(key=lambda r: r.is_silent, reverse=True)
        raise RankError("\n".join(f"rank {r.number}: {r.failure}" for r in failed))
    return [r.result for r in ranks]


def _watch(ranks: list[Rank], grace_s: float) -> None:
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
