"""What came of `synthgrad tune`: the learning rate at which each arm validated best."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.scores import median_with_misses


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One arm at one learning rate: the median over its seeds, a failed run as the worst."""

    arm: str
    label: str
    learning_rate: float
    num_seeds: int
    val_accuracy: float


def trials(records: Iterable[RunRecord]) -> list[Trial]:
    """Return every trial among some records, in the order in which they were started.

    The accuracy (percent) is that of the last snapshot; minus infinity where the median run
    failed. Interrupted runs are left out.
    """
    groups = defaultdict[tuple[str, float], list[RunRecord]](list)
    for record in records:
        if record.kind == "tune" and record.status in ("finished", "failed"):
            groups[record.arm, record.config["learning_rate"]].append(record)
    return [
        Trial(
            arm=arm,
            label=runs[0].label,
            learning_rate=rate,
            num_seeds=len(runs),
            val_accuracy=median_with_misses(map(_last_accuracy, runs), miss=-math.inf),
        )
        for (arm, rate), runs in groups.items()
    ]


def best_rates(tried: Iterable[Trial]) -> dict[str, float]:
    """Return each arm's best learning rate, the lowest of those that are equally good.

    Arms that failed at every rate are left out.
    """
    best = dict[str, Trial]()
    for trial in sorted(tried, key=lambda trial: trial.learning_rate):
        so_far = best[trial.arm].val_accuracy if trial.arm in best else -math.inf
        if trial.val_accuracy > so_far:
            best[trial.arm] = trial
    return {arm: trial.learning_rate for arm, trial in best.items()}


def _last_accuracy(run: RunRecord) -> float:
    if run.status != "finished" or not run.snapshots:
        return math.nan
    return run.snapshots[-1].val_accuracy
