"""The same latency for torch's schedules as the engine's transport adds: patched, and said so."""

import queue
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch.distributed.pipelining import schedules


class LateMessages:
    """Hands the sends of torch's schedules on when they are due.

    A message is on its way for `delay_s` and does not hold up its sender, which is told at once
    that it has left, as by a link that takes everything. That favors the schedule: gloo itself
    would wait for the receiver's word.

    Args:
        delay_s: added to every message.
    """

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self._due = queue.SimpleQueue[tuple[float, dist.P2POp] | None]()
        self._thread = threading.Thread(target=self._hand_on, daemon=True)
        self._thread.start()

    @contextmanager
    def between_stages(self) -> Generator[None]:
        """Have every schedule in this process send so, within the block."""
        before: Callable[..., Any] = schedules._batch_p2p
        schedules._batch_p2p = self._batch
        try:
            yield
        finally:
            schedules._batch_p2p = before

    def close(self) -> None:
        """Hand on what is left, and end."""
        self._due.put(None)
        self._thread.join()

    def _batch(self, ops: list[dist.P2POp], desc: str | None = None) -> list[Any]:
        works = list[Any]()
        for op in ops:
            if op.op is dist.isend:
                self._due.put((time.perf_counter() + self.delay_s, op))
            else:
                works.append(
                    dist.irecv(op.tensor, group=op.group, tag=op.tag, group_src=op.group_peer)
                )
        return works

    def _hand_on(self) -> None:
        leaving = list[tuple[Any, Any]]()  # a tensor lives until its send is done
        while waiting := self._due.get():
            due, op = waiting
            time.sleep(max(0.0, due - time.perf_counter()))
            work = dist.isend(op.tensor, group=op.group, tag=op.tag, group_dst=op.group_peer)
            leaving = [(w, t) for w, t in leaving if not w.is_completed()]
            leaving.append((work, op.tensor))
        for work, _ in leaving:
            work.wait()
