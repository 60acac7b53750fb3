"""From records to numbers: pure functions, with one rule for everything that went wrong.

A miss is a goal not reached, a value that is NaN, or a run that failed. It counts as infinity and
takes part in every median, so an arm cannot look better by failing more often. The order of runs
never matters.
"""

import math
import statistics
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthgrad.bench.records.events import Block, RunRecord, Snapshot
from synthgrad.bench.seeds import derive_seed
from synthgrad.errors import ConfigError

_CONFIDENCE = 0.95


class Interval(NamedTuple):
    """The two ends of a 95 % bootstrap interval; infinite where the data set no bound."""

    low: float
    high: float


class BootstrapRatio(NamedTuple):
    """A ratio of medians with its 95 % bootstrap interval.

    `ratio` is NaN where both medians are infinite or both are 0: nothing can be said. The interval
    is never NaN: what is not known lies between 0 and infinity.
    """

    ratio: float
    low: float
    high: float


def seconds_to_goal(record: RunRecord, goal_percent: float) -> float:
    """Return the training seconds at the first snapshot that reached the goal.

    Args:
        record: the run.
        goal_percent: the validation accuracy to be reached.

    Returns:
        Seconds; infinity if the goal was missed, NaN if it was reached without a clock. A run that
        failed misses every goal, also one that it passed before: what diverges has not been
        trained.
    """
    snapshot = _first_at_goal(record, goal_percent)
    return math.inf if snapshot is None else snapshot.seconds


def examples_to_goal(record: RunRecord, goal_percent: float) -> float:
    """Return the examples seen at the first snapshot that reached the goal.

    The same rules as `seconds_to_goal`.
    """
    snapshot = _first_at_goal(record, goal_percent)
    return math.inf if snapshot is None else float(snapshot.examples)


def _first_at_goal(record: RunRecord, goal_percent: float) -> Snapshot | None:
    if record.status == "failed":
        return None
    reached = (snap for snap in record.snapshots if snap.val_accuracy >= goal_percent)
    return next(reached, None)


def snapshot_at(
    record: RunRecord,
    *,
    iterations: float | None = None,
    seconds: float | None = None,
    stage_updates: float | None = None,
) -> Snapshot | None:
    """Return the last snapshot within a budget; nothing is interpolated.

    Args:
        record: the run.
        iterations: the budget in iterations, or
        seconds: in training seconds, or
        stage_updates: in updates of a stage. Exactly one of the three.

    Returns:
        The snapshot; None if the run failed or stopped before the budget was used up, or has no
        snapshot within it. A run that finished within the budget keeps its last.

    Raises:
        ConfigError: not exactly one budget is given.
    """
    budgets = {"iteration": iterations, "seconds": seconds, "stage_updates": stage_updates}
    given = [(key, budget) for key, budget in budgets.items() if budget is not None]
    if len(given) != 1:
        raise ConfigError("give exactly one of iterations, seconds and stage_updates")
    [(key, budget)] = given
    snapshots = record.snapshots
    if not snapshots or (record.status != "finished" and getattr(snapshots[-1], key) < budget):
        return None
    within = (snap for snap in reversed(snapshots) if getattr(snap, key) <= budget)
    return next(within, None)


def accuracy_at(
    record: RunRecord,
    *,
    iterations: float | None = None,
    seconds: float | None = None,
    stage_updates: float | None = None,
) -> float:
    """Return the validation accuracy (percent) of `snapshot_at` that budget; NaN without one."""
    snapshot = snapshot_at(
        record, iterations=iterations, seconds=seconds, stage_updates=stage_updates
    )
    return math.nan if snapshot is None else snapshot.val_accuracy


def median_with_misses(values: Iterable[float], *, miss: float = math.inf) -> float:
    """Return the median, in which every NaN counts as a miss.

    Args:
        values: one a run; for an even number the two middle ones are averaged.
        miss: what a miss counts as: infinity for times, losses and counts; minus infinity for
            accuracies.

    Returns:
        The median, which may be the miss itself; NaN for no values at all.

    Example:
        >>> median_with_misses([2.0, math.nan, 1.0])
        2.0
        >>> median_with_misses([2.0, math.inf])
        inf
    """
    known = _with_misses(values, miss)
    return statistics.median(known) if known else math.nan


def hit_fraction(values: Iterable[float]) -> float:
    """Return the share of values that are no misses (finite); NaN for no values at all."""
    hits = [math.isfinite(value) for value in values]
    return sum(hits) / len(hits) if hits else math.nan


def bootstrap_median(
    values: Iterable[float],
    *,
    miss: float = math.inf,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the 95 % percentile bootstrap interval of `median_with_misses`.

    With a handful of seeds it can be no wider than their range, so it tells the scatter and not
    more. Of fewer than two values nothing is known: from minus infinity to infinity.

    Args:
        values: one a run.
        miss: what a NaN counts as.
        num_resamples: how many resamples to draw.
        seed: fixes the draw.
    """
    known = np.array(sorted(_with_misses(values, miss)))
    if len(known) < 2:
        return Interval(-math.inf, math.inf)
    medians = _resampled_medians(known, num_resamples, _rng(seed))
    return _percentiles(medians, medians)


def bootstrap_ratio(
    a: Iterable[float], b: Iterable[float], *, num_resamples: int = 2000, seed: int = 0
) -> BootstrapRatio:
    """Return median(a) / median(b) with the 95 % percentile bootstrap interval of that ratio.

    Both sides are resampled independently. Misses (infinity or NaN) take part: a resample in which
    only a's median is a miss has the ratio infinity, in which only b's is has 0; one in which both
    are could be anything, so it counts as 0 for the lower end and as infinity for the upper end,
    which only ever widens the interval. So does 0 / 0. With fewer than two values on a side the
    interval is all of [0, infinity].

    Args:
        a: times or counts, one a run.
        b: the same of the baseline.
        num_resamples: how many resamples to draw.
        seed: fixes the draw.

    Raises:
        ConfigError: a value is below 0.
    """
    a, b = sorted(_with_misses(a, math.inf)), sorted(_with_misses(b, math.inf))
    if any(value < 0 for value in (*a, *b)):
        raise ConfigError("bootstrap_ratio takes times and counts; a value below 0 was given")
    ratio = float(_divide(np.array(median_with_misses(a)), np.array(median_with_misses(b))))
    if min(len(a), len(b)) < 2:
        return BootstrapRatio(ratio, 0.0, math.inf)
    rng = _rng(seed)
    ratios = _divide(
        _resampled_medians(np.array(a), num_resamples, rng),
        _resampled_medians(np.array(b), num_resamples, rng),
    )
    unknown = np.isnan(ratios)
    low, high = _percentiles(np.where(unknown, 0.0, ratios), np.where(unknown, np.inf, ratios))
    return BootstrapRatio(ratio, low, high)


def paired_ratio(
    blocks: Iterable[Block],
    arm: str,
    baseline: str,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
) -> BootstrapRatio:
    """Return an arm's seconds per iteration over the baseline's, from interleaved blocks.

    The ratio is taken within each round and then the median over rounds, so what slows a whole
    round down, another process say, cancels out. The interval resamples rounds. Rounds that lack
    one of the two blocks are left out; of a block that was timed twice, as after an interruption,
    the later one counts.

    Args:
        blocks: the blocks of a throughput record.
        arm: the arm.
        baseline: the arm to compare with.
        num_resamples: how many resamples to draw.
        seed: fixes the draw.

    Returns:
        The ratio; NaN within [0, infinity] where no round holds both.
    """
    costs = {(block.round, block.arm): block.seconds / block.iterations for block in blocks}
    rounds = {number for number, name in costs if name == arm}
    ratios = sorted(
        costs[number, arm] / costs[number, baseline]
        for number in rounds
        if (number, baseline) in costs
    )
    if len(ratios) < 2:
        return BootstrapRatio(median_with_misses(ratios), 0.0, math.inf)
    medians = _resampled_medians(np.array(ratios), num_resamples, _rng(seed))
    return BootstrapRatio(statistics.median(ratios), *_percentiles(medians, medians))


def _with_misses(values: Iterable[float], miss: float) -> list[float]:
    return [miss if math.isnan(value) else float(value) for value in values]


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, "bootstrap"))


def _resampled_medians(
    values: NDArray[np.float64], num_resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    picks = rng.integers(len(values), size=(num_resamples, len(values)))
    return np.median(values[picks], axis=1)


def _divide(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return a / b


def _percentiles(for_low: NDArray[np.float64], for_high: NDArray[np.float64]) -> Interval:
    # Ranks rounded outward and no interpolation, which between infinities would give NaN.
    tail = (1 - _CONFIDENCE) / 2 * (len(for_low) - 1)
    return Interval(
        float(np.sort(for_low)[math.floor(tail)]),
        float(np.sort(for_high)[math.ceil(len(for_high) - 1 - tail)]),
    )
