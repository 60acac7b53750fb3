"""Gaps in validation accuracy where an arm and its baseline have spent the same.

The budget is of the pair: the smaller of what the two runs of a seed spent in all. One budget for
every arm would be that of the cheapest, and read all the others early in their schedules.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from synthgrad.bench.records.events import RunRecord, Snapshot
from synthgrad.bench.scoring.arm_summary import known
from synthgrad.bench.scoring.formats import MISSING
from synthgrad.bench.scoring.summary import scored_runs
from synthgrad.experiments.accuracy import Gap, gap_text, paired_gap

Spent = Callable[[RunRecord, Snapshot], float]
"""From a run and one of its snapshots to what it had spent by then; NaN where nobody knows."""


class EqualGap(NamedTuple):
    """A gap at equal budgets, and the median share of its run at which each of the two was read.

    Below 1 a run was in mid-schedule: its learning rate had not come down yet.
    """

    gap: Gap
    share: float
    share_of_other: float


def network_updates(run: RunRecord, snapshot: Snapshot) -> float:
    """Return how often the whole network had been updated: stage updates over stages.

    So a stage of four layers counts as four stages of one. Where the stages of one arm are of
    unequal size and not all are updated in each iteration it is approximate.
    """
    num_stages = run.facts.get("num_stages")
    return snapshot.stage_updates / num_stages if num_stages else math.nan


def training_seconds(run: RunRecord, snapshot: Snapshot) -> float:
    """Return the training seconds."""
    del run
    return snapshot.seconds


def gap_at_equal(
    spent: Spent, runs: Sequence[RunRecord], other_runs: Sequence[RunRecord]
) -> EqualGap | None:
    """Return the gap within a seed where both runs have spent the same.

    Each run is read at its last snapshot within the budget. Seeds that failed: see `paired_gap`.

    Args:
        spent: the budget's unit.
        runs: of the arm.
        other_runs: of the arm that it is compared with.

    Returns:
        The gap; None where no pair finished, or what one spent is not known.
    """
    others = {run.seed: run for run in other_runs if run.status == "finished" and run.snapshots}
    ours, theirs = dict[int, float | None](), dict[int, float | None]()
    shares, other_shares = list[float](), list[float]()
    for run in scored_runs(runs):
        other = others.get(run.seed)
        if other is None:
            continue
        theirs[run.seed] = other.snapshots[-1].val_accuracy
        if run.status == "failed" or not run.snapshots:
            ours[run.seed] = None
            continue
        budget = min(spent(run, run.snapshots[-1]), spent(other, other.snapshots[-1]))
        at, other_at = _last_within(budget, spent, run), _last_within(budget, spent, other)
        if at is None or other_at is None:
            return None
        ours[run.seed], theirs[run.seed] = known(at.val_accuracy), known(other_at.val_accuracy)
        shares.append(_share(run, at))
        other_shares.append(_share(other, other_at))
    gap = paired_gap(ours, theirs)
    if gap is None or not shares:
        return None
    return EqualGap(gap, statistics.median(shares), statistics.median(other_shares))


def equal_gap_text(equal: EqualGap | None) -> str:
    """Write a gap at equal budgets with the shares of the two runs: "-0.50 [..] at 50 / 100 %"."""
    if equal is None:
        return MISSING
    share, other = round(100 * equal.share), round(100 * equal.share_of_other)
    return f"{gap_text(equal.gap)} at {share} / {other} %"


def _last_within(budget: float, spent: Spent, run: RunRecord) -> Snapshot | None:
    """Return the last snapshot within the budget; None where the budget or the cost is NaN."""
    return next((snap for snap in reversed(run.snapshots) if spent(run, snap) <= budget), None)


def _share(run: RunRecord, snapshot: Snapshot) -> float:
    return snapshot.iteration / max(1, run.snapshots[-1].iteration)
