"""Kernels beside each other: what does not depend on each other, on CUDA streams of its own."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


@contextmanager
def side_by_side(
    streams: Sequence[torch.cuda.Stream],
) -> Generator[Callable[[int], AbstractContextManager[object]]]:
    """Give a context a number: 0 is the current stream, 1 the first of `streams`, and so on.

    They begin when the current stream has come here, and it waits for them at the end. Without
    streams every context does nothing.
    """
    if not streams:
        yield lambda number: nullcontext()
        return
    current = torch.cuda.current_stream(streams[0].device)
    for stream in streams:
        stream.wait_stream(current)
    try:
        yield lambda number: torch.cuda.stream(streams[number - 1] if number else current)
    finally:
        for stream in streams:
            current.wait_stream(stream)
