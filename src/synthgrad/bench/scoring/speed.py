"""How fast an arm trains, and how that compares with the baseline.

Interleaved blocks are the better evidence and are used where there are any; else the runs are that
had a clock, between their first and last snapshot, so that building and compiling are left out of
both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from synthgrad.bench.records.derived import seconds_per_iteration
from synthgrad.bench.records.events import Block, RunRecord
from synthgrad.bench.scoring.arm_summary import Bounds, bounds, known
from synthgrad.bench.scoring.scores import bootstrap_ratio, median_with_misses, paired_ratio


@dataclass(frozen=True, kw_only=True)
class SpeedSummary:
    """The speed fields of an `ArmSummary`, which explains them."""

    timing: str | None = None
    num_rounds: int = 0
    threads: int | None = None
    seconds_per_iteration: float | None = None
    examples_per_second: float | None = None
    stage_updates_per_second: float | None = None
    time_ratio: float | None = None
    time_ratio_interval: Bounds | None = None
    speedup_per_iteration: float | None = None
    speedup_per_stage_update: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Pace:
    """The steady pace of one arm: time by the median, counts exactly."""

    seconds: float
    examples: float
    stage_updates: float


def summarize_speed(
    runs: Sequence[RunRecord],
    baseline_runs: Sequence[RunRecord],
    blocks: Sequence[Block],
) -> SpeedSummary:
    """Measure the steady speed of an arm and compare it with the baseline's.

    Args:
        runs: the arm's runs, at least one.
        baseline_runs: those of the baseline; empty where it was not run.
        blocks: the interleaved blocks of all arms; empty where there are none.
    """
    arm = runs[0].arm
    baseline = baseline_runs[0].arm if baseline_runs else ""
    own = [block for block in blocks if block.arm == arm]
    other = [block for block in blocks if block.arm == baseline]
    pace = _pace_of_blocks(own) if own else _pace_of_runs(runs)
    if pace is None:
        return SpeedSummary()
    if own and other:
        ratio = paired_ratio(blocks, arm, baseline)
        baseline_pace = _pace_of_blocks(other)
    else:
        ratio = bootstrap_ratio(_paces(runs), _paces(baseline_runs))
        baseline_pace = _pace_of_runs(baseline_runs)
    speedup = 1 / ratio.ratio if ratio.ratio > 0 else math.nan
    more_updates = (
        pace.stage_updates / baseline_pace.stage_updates
        if baseline_pace and baseline_pace.stage_updates
        else math.nan
    )
    return SpeedSummary(
        timing="interleaved blocks" if own else "runs",
        num_rounds=len({block.round for block in own}),
        threads=own[0].threads if own else runs[0].facts.get("threads"),
        seconds_per_iteration=pace.seconds,
        examples_per_second=pace.examples / pace.seconds,
        stage_updates_per_second=pace.stage_updates / pace.seconds,
        time_ratio=known(ratio.ratio),
        time_ratio_interval=bounds(ratio.low, ratio.high),
        speedup_per_iteration=known(speedup),
        speedup_per_stage_update=known(speedup * more_updates),
    )


def _pace_of_blocks(blocks: Sequence[Block]) -> _Pace:
    iterations = sum(block.iterations for block in blocks)
    return _Pace(
        seconds=seconds_per_iteration(blocks),
        examples=sum(block.examples for block in blocks) / iterations,
        stage_updates=sum(block.stage_updates for block in blocks) / iterations,
    )


def _pace_of_runs(runs: Sequence[RunRecord]) -> _Pace | None:
    seconds = median_with_misses(_paces(runs))
    if not 0 < seconds < math.inf:
        return None
    spans = [(run.snapshots[0], run.snapshots[-1]) for run in runs if run.snapshots]
    iterations = sum(last.iteration - first.iteration for first, last in spans)
    return _Pace(
        seconds=seconds,
        examples=sum(last.examples - first.examples for first, last in spans) / iterations,
        stage_updates=sum(last.stage_updates - first.stage_updates for first, last in spans)
        / iterations,
    )


def _paces(runs: Sequence[RunRecord]) -> list[float]:
    """Return the steady pace of each run that has one, interrupted and failed runs included."""
    spans = [(run.snapshots[0], run.snapshots[-1]) for run in runs if run.snapshots and run.clocked]
    return [
        (last.seconds - first.seconds) / (last.iteration - first.iteration)
        for first, last in spans
        if last.iteration > first.iteration
    ]
