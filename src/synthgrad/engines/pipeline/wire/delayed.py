"""A transport with latency: every message leaves later than it was sent."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from torch import Tensor

from synthgrad.engines.pipeline.wire.transport import Around, Pending, Transport


class Delayed(Around):
    """Another transport, with a delay added to every message, as by a longer wire.

    Messages of one lane keep their order. A sender is not held up; it is told that a message has
    left only when it really has. For measuring and for tests.

    Args:
        transport: the real one.
        delay_s: seconds, or a function that gives them anew for each message.
    """

    def __init__(self, transport: Transport, delay_s: float | Callable[[], float]) -> None:
        super().__init__(transport)
        self._delay_s = delay_s if callable(delay_s) else lambda: delay_s
        self._order = itertools.count()
        self._latest = dict[tuple[int, int], float]()
        self._due = list[tuple[float, int, _Later]]()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def send(self, message: Tensor, to: int, lane: int) -> Pending:
        """Begin to send when the delay is over."""
        later = _Later(message, to, lane)
        due = max(time.perf_counter() + self._delay_s(), self._latest.get((to, lane), 0.0))
        self._latest[to, lane] = due
        with self._changed:
            heapq.heappush(self._due, (due, next(self._order), later))
            self._changed.notify()
        return later

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.perf_counter():
                    wait_s = self._due[0][0] - time.perf_counter() if self._due else None
                    self._changed.wait(wait_s)
                _, _, later = heapq.heappop(self._due)
            later.leave(self._transport)


class _Later:
    """A message that waits for its time."""

    def __init__(self, message: Tensor, to: int, lane: int) -> None:
        self.message = message
        self.to = to
        self.lane = lane
        self._left = threading.Event()
        self._pending: Pending | ConnectionError

    def leave(self, transport: Transport) -> None:
        try:
            self._pending = transport.send(self.message, self.to, self.lane)
        except ConnectionError as error:
            self._pending = error
        self._left.set()

    def wait(self, timeout_s: float) -> None:
        if not self._left.wait(min(timeout_s, threading.TIMEOUT_MAX)):
            raise TimeoutError
        if isinstance(self._pending, ConnectionError):
            raise self._pending
        self._pending.wait(timeout_s)
