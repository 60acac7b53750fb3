"""Each arm at its own best number of threads: a short calibration, and a scope to set it in."""

import os
import statistics
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import torch

from synthgrad.bench.clock import Stopwatch

_NUM_ROUNDS = 5
_NUM_STEPS = 3


@contextmanager
def num_threads(count: int) -> Generator[None]:
    """Let torch use so many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def thread_counts() -> tuple[int, ...]:
    """Return the counts worth trying: powers of two, and all cores this process may use."""
    try:
        num_cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        num_cores = os.cpu_count() or 1
    powers = (2**k for k in range(num_cores.bit_length()))
    return tuple(sorted({num_cores, *(power for power in powers if power < num_cores)}))


def calibrate(build: Callable[[], Callable[[], object]], counts: Sequence[int]) -> dict[int, float]:
    """Time a training step with each number of threads, in turn.

    Args:
        build: makes a network from scratch and returns a function that trains it for one step; a
            compiler may bake the number of threads in.
        counts: the numbers of threads to try.

    Returns:
        Median seconds a step by number of threads.
    """
    steps = dict[int, Callable[[], object]]()
    for count in counts:
        with num_threads(count):
            steps[count] = build()
            steps[count]()
    times = {count: list[float]() for count in counts}
    for _ in range(_NUM_ROUNDS):
        for count in counts:
            with num_threads(count):
                steps[count]()  # wakes the threads, and brings the weights into the cache
                watch = Stopwatch()
                watch.start()
                for _ in range(_NUM_STEPS):
                    steps[count]()
                watch.pause()
                times[count].append(watch.seconds / _NUM_STEPS)
    return {count: statistics.median(values) for count, values in times.items()}
