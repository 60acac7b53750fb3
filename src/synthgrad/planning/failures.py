"""What failures leave of a throughput: machines that break, and a job that starts again.

A failure of one stops all, as torch's elastic launcher has it: what was done since the last
checkpoint is lost, the job comes back after a while, and the line fills anew. Batches take
milliseconds and machines live for days, so this runs on checkpoints and failures, not on batches.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from synthgrad.bench.seeds import derive_seed
from synthgrad.errors import ConfigError
from synthgrad.planning.measurements import is_number

_NUM_FAILURES = 400
_MAX_SEGMENTS = 100_000


@dataclass(frozen=True, kw_only=True)
class Failures:
    """How machines fail, and what is done about it.

    Args:
        mtbf_s: mean time between failures of one machine; exponentially distributed. Infinite
            where they do not fail.
        restart_s: from a failure to the job at work again.
        checkpoint_every_s: work between two checkpoints.
        checkpoint_s: for which a checkpoint stops the work. It is a drain point too.

    Raises:
        ConfigError: a value is not above 0, or a duration is below it.
    """

    mtbf_s: float = float("inf")
    restart_s: float = 60.0
    checkpoint_every_s: float = 600.0
    checkpoint_s: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("mtbf_s", "checkpoint_every_s"):
            value = getattr(self, name)
            if not (is_number(value) and value > 0):
                raise ConfigError(f"{name}={value!r} must be above 0")
        for name in ("restart_s", "checkpoint_s"):
            value = getattr(self, name)
            if not (is_number(value) and 0 <= value < float("inf")):
                raise ConfigError(f"{name}={value!r} must be 0 or more")


def useful_share(failures: Failures, *, num_stages: int, fill_s: float, seed: int = 0) -> float:
    """Return which share of the time a job spends on work that lasts.

    Args:
        failures: how machines fail.
        num_stages: of machines that all have to be up.
        fill_s: for which an empty line is not yet at its throughput; after each start and drain.
        seed: of the failures.

    Math: with a rate of failures r = num_stages / mtbf_s and a segment of s = checkpoint_every_s +
    checkpoint_s + fill_s seconds, the expected share is checkpoint_every_s / ((1 / r + restart_s)
    (exp(r s) - 1)). The simulation counts, and the tests compare.
    """
    segment_s = failures.checkpoint_every_s + failures.checkpoint_s + fill_s
    if failures.mtbf_s == float("inf"):
        return failures.checkpoint_every_s / segment_s
    job = _Job(
        failures, segment_s, num_stages, np.random.default_rng(derive_seed(seed, "failures"))
    )
    return job.run() * failures.checkpoint_every_s


class _Job:
    def __init__(
        self, failures: Failures, segment_s: float, num_stages: int, draws: np.random.Generator
    ) -> None:
        self.failures = failures
        self.segment_s = segment_s
        self.draws = draws
        self.env = simpy.Environment()
        self.num_segments = 0
        self.num_failures = 0
        self.is_up = False
        self.work = self.env.process(self._work())
        for _ in range(num_stages):
            self.env.process(self._machine())

    def run(self) -> float:
        """Return segments finished a second."""
        self.env.run(until=self.work)
        return self.num_segments / self.env.now

    def _work(self) -> Generator[simpy.Event, Any, None]:
        while self.num_failures < _NUM_FAILURES and self.num_segments < _MAX_SEGMENTS:
            self.is_up = True
            try:
                yield self.env.timeout(self.segment_s)
                self.num_segments += 1
            except simpy.Interrupt:
                self.is_up = False
                self.num_failures += 1
                yield self.env.timeout(self.failures.restart_s)

    def _machine(self) -> Generator[simpy.Event, Any, None]:
        # Without memory: while the job is down anyway, another failure changes nothing.
        while True:
            yield self.env.timeout(self.draws.exponential(self.failures.mtbf_s))
            if self.is_up:
                self.is_up = False
                self.work.interrupt()
