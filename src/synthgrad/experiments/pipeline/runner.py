"""A method as a rank runs it: what the timing calls, and what it counts."""

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from synthgrad.bench.running.threads import num_threads
from synthgrad.engines import Evaluation
from synthgrad.engines.pipeline import Span


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a rank has done so far, by one method.

    Args:
        idle_s: seconds of waiting for other ranks.
        messages: that it sent.
        bytes: that it sent.
    """

    idle_s: float = 0.0
    messages: int = 0
    bytes: int = 0


class Runner(ABC):
    """One method on one rank.

    Args:
        threads: of torch, while it runs.
        works_here: whether this rank takes part.
    """

    def __init__(self, *, threads: int = 1, works_here: bool = True) -> None:
        self.threads = threads
        self.works_here = works_here

    @abstractmethod
    def step(self, x: Tensor, y: Tensor) -> None:
        """Train on a batch, that of all ranks together."""

    def flush(self) -> None:
        """Finish what is under way."""
        return

    @abstractmethod
    def counts(self) -> Counts:
        """Return what has been counted."""

    @abstractmethod
    def spans(self) -> Sequence[Span]:
        """Return what it was doing when."""

    def most_in_flight(self) -> int | None:
        """Return the most batches that were ever under way here; None where nobody counts them."""
        return None

    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation | None:
        """Return loss and accuracy; None on a rank that does not know them."""
        raise NotImplementedError(f"{type(self).__name__} is not evaluated")

    def run(self, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
        """Train on some batches and return this rank's seconds; 0 where it takes no part."""
        if not self.works_here:
            return 0.0
        with num_threads(self.threads):
            start = time.perf_counter()
            for x, y in batches:
                self.step(x, y)
            return time.perf_counter() - start


class Slowed(Runner):
    """A runner whose rank is half as fast: after each step it sleeps for as long as it computed.

    Args:
        runner: what is slowed.
    """

    def __init__(self, runner: Runner) -> None:
        super().__init__(threads=runner.threads, works_here=runner.works_here)
        self.runner = runner

    def step(self, x: Tensor, y: Tensor) -> None:
        """Train on a batch and sleep; its waits keep no processor busy, and are not doubled."""
        start = time.process_time()
        self.runner.step(x, y)
        time.sleep(time.process_time() - start)

    def flush(self) -> None:
        """Finish what is under way."""
        self.runner.flush()

    def counts(self) -> Counts:
        """Return those of the runner."""
        return self.runner.counts()

    def spans(self) -> Sequence[Span]:
        """Return those of the runner."""
        return self.runner.spans()

    def most_in_flight(self) -> int | None:
        """Return that of the runner."""
        return self.runner.most_in_flight()


class Tape:
    """Notes spans, and what they are not is waiting; for methods without an engine of ours."""

    def __init__(self, stage: int) -> None:
        self.stage = stage
        self.spans = list[Span]()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.spans.clear()
        self.idle_s = 0.0
        self.messages = 0
        self.bytes = 0
        self.batch = -1

    @contextmanager
    def span(self, kind: str, stage: int | None = None) -> Generator[None]:
        """Note what is done inside."""
        start = time.perf_counter()
        yield
        end = time.perf_counter()
        where = self.stage if stage is None else stage
        self.spans.append(Span(kind, where, self.batch, start, end))

    @contextmanager
    def step(self) -> Generator[None]:
        """Count what is no span inside as waiting."""
        self.batch += 1
        first, start = len(self.spans), time.perf_counter()
        yield
        busy = sum(span.end_s - span.start_s for span in self.spans[first:])
        self.idle_s += time.perf_counter() - start - busy

    def sent(self, tensor: Tensor) -> None:
        """Count a message."""
        self.messages += 1
        self.bytes += tensor.numel() * tensor.element_size()

    def counts(self) -> Counts:
        """Return what has been counted."""
        return Counts(idle_s=self.idle_s, messages=self.messages, bytes=self.bytes)


def shares(tensor: Tensor, number: int) -> Sequence[Tensor]:
    """Return a batch in equal parts, one a rank."""
    return torch.chunk(tensor, number)
