"""The number of iterations varied, as in the benchmark paper's second table.

A run of all iterations holds the shorter ones: its state after a quarter of them is what a run of a
quarter of them ends with, as long as the learning rate follows no schedule that depends on the end.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.arm_summary import known
from synthgrad.bench.scoring.scores import median_with_misses, snapshot_at
from synthgrad.bench.scoring.summary import runs_by_arm, scored_runs


@dataclass(frozen=True, kw_only=True)
class IterationPoint:
    """One arm after a share of its iterations: medians over seeds, None for a miss.

    `iterations` is that of the last snapshot within the share; None where no run got there.
    """

    arm: str
    label: str
    fraction: float
    num_seeds: int
    iterations: int | None
    seconds: float | None
    val_accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the point as an object of the JSON report."""
        return asdict(self)


def vary_iterations(
    records: Iterable[RunRecord], fractions: Sequence[float] = (0.25, 0.5, 1.0)
) -> list[IterationPoint]:
    """Return seconds and validation accuracy of each arm after shares of its iterations.

    Args:
        records: what `read_records` returned; the order does not matter.
        fractions: the shares, each in (0, 1].

    Returns:
        The points, arm by arm in the order of `summarize`, and within an arm by share as given.
    """
    return [
        _point(runs, fraction) for runs in runs_by_arm(records).values() for fraction in fractions
    ]


def _point(runs: Sequence[RunRecord], fraction: float) -> IterationPoint:
    scored = scored_runs(runs)
    snapshots = [snapshot_at(run, iterations=fraction * _planned(run)) for run in scored]
    reached = [snapshot for snapshot in snapshots if snapshot is not None]
    seconds = [math.inf if snapshot is None else snapshot.seconds for snapshot in snapshots]
    accuracies = [
        -math.inf if snapshot is None else snapshot.val_accuracy for snapshot in snapshots
    ]
    return IterationPoint(
        arm=runs[0].arm,
        label=runs[0].label,
        fraction=fraction,
        num_seeds=len(scored),
        iterations=max((snapshot.iteration for snapshot in reached), default=None),
        seconds=known(median_with_misses(seconds)),
        val_accuracy=known(median_with_misses(accuracies, miss=-math.inf)),
    )


def _planned(run: RunRecord) -> float:
    planned = run.config.get("iterations")
    return planned if isinstance(planned, int) else run.iterations_reached
