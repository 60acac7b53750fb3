"""What one arm came to over all its seeds: the object that reports are made of."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from synthgrad.bench.records.events import Status
from synthgrad.bench.scoring.claims import Claim

CLOCK = "clock"
DERIVED = "iterations x median time of an iteration"

Points = tuple[float | None, ...]
Bounds = tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class GoalSummary:
    """How an arm came to one goal; None stands for a miss, points are in the order of the seeds.

    Examples tell the misses. Seconds are None as well where the run had no clock.
    `seconds_ratio` is the median over the baseline's, with its bootstrap interval: None where
    neither reached the goal.
    """

    goal: float
    seconds: float | None
    examples: float | None
    hit_fraction: float | None
    seconds_points: Points
    examples_points: Points
    seconds_ratio: float | None
    seconds_ratio_interval: Bounds | None


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """One arm over all its seeds. None stands for a miss and for what was not measured.

    Medians count a miss as the worst value there is; accuracies are in percent, an interval is
    (low, high), None where there is none, with None for an end at infinity.

    | field | meaning |
    | --- | --- |
    | `num_seeds` | runs that are scored: finished or failed |
    | `num_interrupted` | runs that are not, because they were interrupted |
    | `seeds` | of the scored runs: which seed each of the points is of |
    | `status`, `reason` | "finished", or the worst that happened to one of its runs, and what |
    | `iterations` | the most that a run reached |
    | `seconds`, `stage_updates`, `test_*`, `val_accuracy` | medians at the end |
    | `seconds_from` | what tells the seconds of runs: `CLOCK` or `DERIVED`, None if nothing does |
    | `seconds_per_iteration`, `examples_per_second`, `stage_updates_per_second` | steady speed |
    | `timing` | where that is from: "interleaved blocks", or "runs" |
    | `num_rounds`, `threads` | rounds of interleaved blocks, and threads while timing |
    | `time_ratio` | seconds per iteration over the baseline's, with `time_ratio_interval` |
    | `speedup_per_iteration` | 1 / `time_ratio` |
    | `speedup_per_stage_update` | stage updates a second over the baseline's |
    | `cold_seconds` | from nothing to ready, compilation included |
    | `val_accuracy_at_equal_*` | medians at a budget of iterations, seconds or stage updates |
    | `equal_*` | that budget: see `summarize` |
    | `seconds_to_goal`, `examples_to_goal` | those of the first goal |
    | `records`, `timing_record` | the run folders, and the folder of the blocks |
    """

    arm: str
    label: str
    num_seeds: int
    num_interrupted: int
    status: Status
    reason: str
    iterations: int
    seconds: float | None
    stage_updates: float | None
    test_accuracy: float | None
    seeds: tuple[int, ...]
    test_accuracy_points: Points
    test_accuracy_interval: Bounds | None
    test_loss: float | None
    val_accuracy: float | None
    seconds_to_goal: float | None
    examples_to_goal: float | None
    goals: tuple[GoalSummary, ...]
    equal_iterations: float | None
    equal_seconds: float | None
    equal_stage_updates: float | None
    val_accuracy_at_equal_iterations: float | None
    val_accuracy_at_equal_seconds: float | None
    val_accuracy_at_equal_stage_updates: float | None
    timing: str | None
    num_rounds: int
    threads: int | None
    seconds_per_iteration: float | None
    examples_per_second: float | None
    stage_updates_per_second: float | None
    time_ratio: float | None
    time_ratio_interval: Bounds | None
    speedup_per_iteration: float | None
    speedup_per_stage_update: float | None
    cold_seconds: float | None
    flops_per_iteration: int | None
    stage_parameters: int | None
    synthesizer_parameters: int | None
    memory_bytes: int | None
    records: tuple[str, ...]
    timing_record: str | None
    seconds_from: str | None = CLOCK
    claim: tuple[Claim, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the object that `synthgrad report --format json` prints; it holds no NaN."""
        return asdict(self)


def known(value: float) -> float | None:
    """Return a finite number as it is, and None for a miss."""
    return value if math.isfinite(value) else None


def bounds(low: float, high: float) -> Bounds | None:
    """Return an interval with None for an infinite end; None where it bounds nothing."""
    if not math.isfinite(high) and (low == 0 or not math.isfinite(low)):
        return None
    return known(low), known(high)
