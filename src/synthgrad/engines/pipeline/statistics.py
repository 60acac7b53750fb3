"""What a rank did and when: counts and times of the engine, and spans for a time line."""

import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Span:
    """What a rank did for a while.

    Attributes:
        kind: "wait activation", "forward", "send", "backward" (the optimizer's step included),
            "wait target" or "fit".
        stage: at which stage; a fit is that of the synthesizers on top of it.
        batch: number of the batch.
        start_s: by `time.perf_counter()`, one clock for all processes of a Linux machine.
        end_s: by the same clock.
    """

    kind: str
    stage: int
    batch: int
    start_s: float
    end_s: float


@dataclass
class Statistics:
    """Counts of one rank since it began, or since `Pipeline.reset_statistics`.

    Attributes:
        num_steps: batches that this rank has trained on.
        num_fits: targets that it has applied, over all its interfaces.
        messages_sent: to other ranks, layouts and evaluations included.
        bytes_sent: in them.
        idle_s: seconds in which it waited for an activation, a target or a free place to send.
        wall_s: seconds in `step` and `flush`.
        max_in_flight: the most batches that were ever under way at one of its interfaces.
        staleness: by stage below the interface: how many fits came how many steps after their
            emission.
    """

    num_steps: int = 0
    num_fits: int = 0
    messages_sent: int = 0
    bytes_sent: int = 0
    idle_s: float = 0.0
    wall_s: float = 0.0
    max_in_flight: int = 0
    staleness: dict[int, Counter[int]] = field(default_factory=dict[int, Counter[int]])

    @property
    def idle_share(self) -> float:
        """Idle seconds a second in `step` and `flush`."""
        return self.idle_s / self.wall_s if self.wall_s else 0.0


class Watch:
    """Takes the times of what a rank does.

    Args:
        timeline: keep every span.
    """

    def __init__(self, *, timeline: bool) -> None:
        self.statistics = Statistics()
        self.spans = list[Span]()
        self.keeps = timeline
        self.doing = ("start", -1, -1)

    @contextmanager
    def span(self, kind: str, stage: int, batch: int) -> Generator[None]:
        """Note what is done inside; waiting counts as idle."""
        self.doing = (kind, stage, batch)
        start = time.perf_counter()
        yield
        end = time.perf_counter()
        if kind.startswith("wait"):
            self.statistics.idle_s += end - start
        if self.keeps:
            self.spans.append(Span(kind, stage, batch, start, end))

    @contextmanager
    def at_work(self) -> Generator[None]:
        """Count what is done inside as time in the engine."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.statistics.wall_s += time.perf_counter() - start
