"""Test errors, gaps within a seed and curves of arms, as every finding reads them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.arm_summary import ArmSummary, known
from synthgrad.bench.scoring.formats import MISSING
from synthgrad.bench.scoring.scores import median_with_misses

Cases = Mapping[str, Mapping[str, ArmSummary]]
Gap = tuple[float, float, float]

MIN_SEEDS = 3
FEW_SEEDS = f"Fewer than {MIN_SEEDS} seeds."


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
    """
    if arm is None or other is None:
        return None
    pairs = zip(arm.test_accuracy_points, other.test_accuracy_points, strict=False)
    gaps = [a - b for a, b in pairs if a is not None and b is not None]
    return (statistics.median(gaps), min(gaps), max(gaps)) if gaps else None


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
    return MISSING if gap is None else f"{gap[0]:+.2f} [{gap[1]:+.2f}, {gap[2]:+.2f}]"


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
