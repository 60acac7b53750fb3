"""Ranks as threads of one process: the same engine without a network, for tests and for learning.

Each message is copied into the buffer that was posted for it when both are there.
"""

import threading
from collections import defaultdict, deque

import torch
import torch.distributed as dist
from torch import Tensor

from synthgrad.engines.pipeline.wire.transport import CPU, Pending


class InProcessTransport:
    """What one thread has of it; made by `in_process`."""

    device = CPU

    def __init__(self, rank: int, num_ranks: int, store: dist.Store, hub: "_Hub") -> None:
        self.rank = rank
        self.num_ranks = num_ranks
        self.store = store
        self._hub = hub

    def send(self, message: Tensor, to: int, lane: int) -> Pending:
        """Begin to send."""
        return self._hub.meet((self.rank, to, lane), message, sends=True)

    def receive(self, buffer: Tensor, source: int, lane: int) -> Pending:
        """Post a buffer."""
        return self._hub.meet((source, self.rank, lane), buffer, sends=False)


def in_process(num_ranks: int) -> list[InProcessTransport]:
    """Return the transports of ranks that are threads of this process, one each."""
    hub, store = _Hub(), dist.HashStore()
    return [
        InProcessTransport(rank, num_ranks, dist.PrefixStore("synthgrad", store), hub)
        for rank in range(num_ranks)
    ]


class _Half:
    """A message or a buffer, until it has met its other half."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.met = threading.Event()

    def wait(self, timeout_s: float) -> None:
        if not self.met.wait(min(timeout_s, threading.TIMEOUT_MAX)):
            raise TimeoutError


class _Hub:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alone = defaultdict[tuple[int, int, int], tuple[deque[_Half], deque[_Half]]](
            lambda: (deque(), deque())
        )

    def meet(self, key: tuple[int, int, int], tensor: Tensor, *, sends: bool) -> _Half:
        half = _Half(tensor)
        with self._lock:
            ours, others = self._alone[key] if sends else reversed(self._alone[key])
            if not others:
                ours.append(half)
                return half
            other = others.popleft()
        message, buffer = (tensor, other.tensor) if sends else (other.tensor, tensor)
        with torch.no_grad():
            buffer.copy_(message)
        other.met.set()
        half.met.set()
        return half
