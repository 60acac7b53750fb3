"""From a schedule, times and conditions to the numbers that both simulators run on.

Everything random is drawn here, beforehand: so the two see the same draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from synthgrad.bench.seeds import derive_seed
from synthgrad.errors import ConfigError
from synthgrad.planning.measurements import Link, StageTimes, at_least_zero, is_number
from synthgrad.planning.schedules import (
    NUM_OPS,
    SENDS_DOWN,
    SENDS_UP,
    TAKES_FROM_ABOVE,
    TAKES_FROM_BELOW,
    Op,
    Program,
    Schedule,
)

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
_MAX_OPERATIONS = 100_000_000
_NO_OP = -1


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the stages run under.

    Args:
        link: between each two of them.
        compute_jitter: standard deviation of an operation's time over its mean; log-normal.
        slow_factor: by how much the slow stage, the one in the middle, takes longer than it would.
        seed: of what is random.

    Raises:
        ConfigError: a value cannot work.
    """

    link: Link = field(default_factory=Link)
    compute_jitter: float = 0.0
    slow_factor: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        at_least_zero("compute_jitter", self.compute_jitter)
        if not (is_number(self.slow_factor) and 1 <= self.slow_factor < np.inf):
            raise ConfigError(f"slow_factor={self.slow_factor!r} must be 1 or more")

    @property
    def is_random(self) -> bool:
        """Whether anything is drawn."""
        return self.compute_jitter > 0 or self.link.jitter_s > 0

    def slowed(self, stages: Sequence[StageTimes]) -> tuple[StageTimes, ...]:
        """Return the stages with the slow one slowed."""
        times = list(stages)
        if self.slow_factor != 1:
            slow = times[len(times) // 2]
            longer = {
                name: value * self.slow_factor
                for name, value in vars(slow).items()
                if name.endswith("_s") and value is not None
            }
            times[len(times) // 2] = replace(slow, **longer)
        return tuple(times)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Programs and their costs, as arrays.

    Args:
        programs: [distinct, operations], padded with -1.
        which: [stages], the program of each.
        lengths: [stages], operations of each.
        seconds: [stages, kinds of operations].
        factors: [stages, operations], what each takes longer; None for 1.
        transfer_s: up and down, [stages - 1], for which a message holds the link.
        delay_s: up and down, [stages - 1, messages], from leaving the link to arriving.
    """

    programs: Program
    which: Ints
    lengths: Ints
    seconds: Floats
    factors: Floats | None
    transfer_s: tuple[Floats, Floats]
    delay_s: tuple[Floats, Floats]

    @property
    def num_stages(self) -> int:
        """How many stages there are."""
        return len(self.which)

    def of_stage(self, stage: int) -> list[tuple[Op, float]]:
        """Return the operations of a stage with the seconds of each."""
        ops = self.programs[self.which[stage], : self.lengths[stage]]
        seconds = self.seconds[stage, ops]
        if self.factors is not None:
            seconds = seconds * self.factors[stage, : len(ops)]
        return [(Op(op), float(s)) for op, s in zip(ops, seconds, strict=True)]


def make_costs(
    schedule: Schedule, stages: Sequence[StageTimes], conditions: Conditions, num_batches: int
) -> Costs:
    """Return the costs of so many batches under a schedule with a fixed order.

    Raises:
        ConfigError: the schedule has none, or this would be too much to simulate.
    """
    num_stages = len(stages)
    keys = [schedule.same_program_from(k, num_stages, num_batches) for k in range(num_stages)]
    distinct = list(dict.fromkeys(keys))
    about = num_stages * len(schedule.program(0, num_stages, num_batches))
    if about > _MAX_OPERATIONS:
        raise ConfigError(
            f"{schedule.method} on {num_stages} stages takes some {about:,} operations to "
            f"simulate, more than {_MAX_OPERATIONS:,}: take fewer stages or micro-batches"
        )
    made = [schedule.program(keys.index(key), num_stages, num_batches) for key in distinct]
    longest = max(map(len, made))
    programs = np.full((len(made), longest), _NO_OP, dtype=np.int8)
    for row, program in zip(programs, made, strict=True):
        row[: len(program)] = program
    which = np.array([distinct.index(key) for key in keys])
    factors, delays = _draw(conditions, num_stages, longest, num_batches, schedule)
    return Costs(
        programs=programs,
        which=which,
        lengths=np.array([len(program) for program in made])[which],
        seconds=operation_seconds(schedule, stages, conditions),
        factors=factors,
        transfer_s=transfers(schedule, stages, conditions.link),
        delay_s=delays,
    )


def operation_seconds(
    schedule: Schedule, stages: Sequence[StageTimes], conditions: Conditions
) -> Floats:
    """Return what each operation takes each stage [stages, kinds], its messages included."""
    kinds = dict[StageTimes, list[float]]()
    for stage in conditions.slowed(stages):
        if stage not in kinds:
            kinds[stage] = [schedule.seconds(op, stage) for op in Op]
    seconds = np.array([kinds[stage] for stage in conditions.slowed(stages)])
    if message_s := conditions.link.message_s:
        up = TAKES_FROM_ABOVE.astype(float) + SENDS_UP
        down = TAKES_FROM_BELOW.astype(float) + SENDS_DOWN
        seconds[:-1] += message_s * up
        seconds[1:] += message_s * down
    assert seconds.shape == (len(stages), NUM_OPS)
    return seconds


def transfers(
    schedule: Schedule, stages: Sequence[StageTimes], link: Link
) -> tuple[Floats, Floats]:
    """Return for how long a message holds its link, up and down [stages - 1]."""
    sizes = np.array([stage.activation_bytes for stage in stages[:-1]], dtype=np.float64)
    sizes /= schedule.num_microbatches
    up, down = link.bandwidths
    return sizes / up, sizes / down if schedule.sends_gradients else np.zeros_like(sizes)


def _draw(
    conditions: Conditions, num_stages: int, longest: int, num_batches: int, schedule: Schedule
) -> tuple[Floats | None, tuple[Floats, Floats]]:
    num_messages = num_batches * schedule.num_microbatches
    factors, link = None, conditions.link
    if cv := conditions.compute_jitter:
        draws = np.random.default_rng(derive_seed(conditions.seed, "compute jitter"))
        variance = np.log1p(cv**2)  # of the logarithm, whose mean makes the factor's mean 1
        factors = draws.lognormal(-variance / 2, variance**0.5, (num_stages, longest))
    draws = np.random.default_rng(derive_seed(conditions.seed, "link jitter"))
    delays = list[Floats]()
    for latency_s in link.latencies_s:
        delay = np.full((num_stages - 1, num_messages if link.jitter_s else 1), latency_s)
        if link.jitter_s:
            delay += draws.exponential(link.jitter_s, delay.shape)
        delays.append(np.broadcast_to(delay, (num_stages - 1, num_messages)))
    return factors, (delays[0], delays[1])
