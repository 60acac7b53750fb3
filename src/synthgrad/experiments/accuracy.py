"""Test errors, gaps within a seed and curves of arms, as every finding reads them."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.arm_summary import ArmSummary, known
from synthgrad.bench.scoring.formats import MISSING
from synthgrad.bench.scoring.scores import median_with_misses

Cases = Mapping[str, Mapping[str, ArmSummary]]

MIN_SEEDS = 3
FEW_SEEDS = f"Fewer than {MIN_SEEDS} seeds."


class Gap(NamedTuple):
    """How much more accurate an arm is than another within a seed, in points; below zero is worse.

    A seed with which the arm failed counts as minus infinity. `num_pairs` says of how many seeds
    this is: a verdict needs `MIN_SEEDS` of them.
    """

    median: float
    least: float
    most: float
    num_pairs: int


def error(summary: ArmSummary | None) -> float | None:
    """Return an arm's median test error in percent."""
    if summary is None or summary.test_accuracy is None:
        return None
    return 100 - summary.test_accuracy


def errors(summary: ArmSummary) -> list[float]:
    """Return the test error of every seed that has one, in percent."""
    return [100 - a for a in summary.test_accuracy_points if a is not None]


def error_interval(summary: ArmSummary | None) -> tuple[float, float] | None:
    """Return the 95 % interval of an arm's median test error, in percent; None without one."""
    interval = None if summary is None else summary.test_accuracy_interval
    if interval is None or interval[0] is None or interval[1] is None:
        return None
    return 100 - interval[1], 100 - interval[0]


def gap_interval(arm: ArmSummary | None, other: ArmSummary | None) -> Gap | None:
    """Return the median, least and most difference in test accuracy within a seed, in points.

    Args:
        arm: the arm; where it is the worse one the numbers are below zero.
        other: the arm that it is compared with, such as backprop.

    Returns:
        The gap; None where no seed was run with both. See `paired_gap` for seeds that failed.
    """
    if arm is None or other is None:
        return None
    return paired_gap(_by_seed(arm), _by_seed(other))


def paired_gap(ours: Mapping[int, float | None], theirs: Mapping[int, float | None]) -> Gap | None:
    """Return the gap over the seeds that both have.

    Args:
        ours: an arm's accuracy by seed, in percent. None is a run that failed: minus infinity, so
            that no arm looks better by failing more often.
        theirs: the same of the arm that it is compared with. Where that failed there is nothing
            to compare with, and the seed is left out.

    Returns:
        The gap; None where no pair is left.
    """
    gaps = [
        -math.inf if accuracy is None else accuracy - reference
        for seed, accuracy in ours.items()
        if (reference := theirs.get(seed)) is not None
    ]
    return Gap(statistics.median(gaps), min(gaps), max(gaps), len(gaps)) if gaps else None


def _by_seed(arm: ArmSummary) -> dict[int, float | None]:
    return dict(zip(arm.seeds, arm.test_accuracy_points, strict=True))


def falls(first: Gap, last: Gap) -> bool:
    """Whether every seed of the last gap is worse than any of the first."""
    return last[0] < first[0] and last[2] < first[1]


def error_text(arm: ArmSummary | None) -> str:
    """Write an arm's test error with its interval; or why there is none."""
    if arm is None:
        return MISSING
    value, interval = error(arm), error_interval(arm)
    if value is None:
        return arm.status
    if interval is None:
        return f"{value:.2f}"
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def gap_text(gap: Gap | None) -> str:
    """Write a gap with the least and the most of a seed."""
    if gap is None:
        return MISSING
    median, least, most = (
        f"{points:+.2f}" if math.isfinite(points) else "failed" for points in gap[:3]
    )
    return f"{median} [{least}, {most}]"


class Curve(NamedTuple):
    """Medians over seeds at each snapshot but the first; errors on validation data, in percent."""

    iterations: list[float]
    stage_updates: list[float]
    errors: list[float | None]


def median_curve(runs: Sequence[RunRecord]) -> Curve:
    """Return how an arm's validation error went down; over the runs that finished."""
    finished = [run.snapshots[1:] for run in runs if run.status == "finished"]
    rows = list(zip(*finished, strict=False))
    return Curve(
        [row[0].iteration for row in rows],
        [statistics.median(s.stage_updates for s in row) for row in rows],
        [known(median_with_misses(100 - s.val_accuracy for s in row)) for row in rows],
    )
