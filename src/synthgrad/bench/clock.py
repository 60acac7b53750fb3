"""The training clock: it runs while a method trains and stands still while we look at it.

It counts nanoseconds of `time.perf_counter_ns`. On CUDA it waits for the device where it starts and
where it pauses and nowhere else, so a timed interval holds no synchronization of its own.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager

import torch

_NANOSECONDS = 1_000_000_000


class Stopwatch:
    """A clock that can be started, paused, and built with time already on it.

    Starting a running watch and pausing a standing one do nothing.

    Args:
        seconds: time already on it, for a run that is resumed.
        device: a CUDA device to wait for whenever the watch starts or pauses; any other device, or
            None, is never waited for.

    Example:
        >>> watch = Stopwatch(seconds=3.0)
        >>> watch.start()
        >>> with watch.paused():
        ...     pass  # evaluate
        >>> watch.pause()
        >>> watch.seconds >= 3.0
        True
    """

    def __init__(self, seconds: float = 0.0, device: torch.device | str | None = None) -> None:
        """Set the watch; it does not run yet."""
        self._elapsed_ns = round(seconds * _NANOSECONDS)
        self._started_ns: int | None = None
        self._device = None if device is None else torch.device(device)

    @property
    def running(self) -> bool:
        """Whether time is being counted now."""
        return self._started_ns is not None

    @property
    def seconds(self) -> float:
        """Seconds counted so far; reading them neither stops the watch nor waits for a device."""
        return self._count() / _NANOSECONDS

    def start(self) -> None:
        """Count from now on."""
        if self._started_ns is None:
            self._wait_for_device()
            self._started_ns = time.perf_counter_ns()

    def pause(self) -> None:
        """Stop counting; `start` goes on from here."""
        if self._started_ns is not None:
            self._wait_for_device()
            self._elapsed_ns = self._count()
            self._started_ns = None

    @contextmanager
    def paused(self) -> Generator[None]:
        """Stand still within the block, and go on after it if the watch was running before."""
        was_running = self.running
        self.pause()
        try:
            yield
        finally:
            if was_running:
                self.start()

    def _count(self) -> int:
        if self._started_ns is None:
            return self._elapsed_ns
        return self._elapsed_ns + time.perf_counter_ns() - self._started_ns

    def _wait_for_device(self) -> None:
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
