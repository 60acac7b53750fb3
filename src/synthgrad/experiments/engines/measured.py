"""What the records of `engines` say, as numbers: ratios, gaps, distances; pure functions."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthgrad.bench.records.events import Block, RunRecord
from synthgrad.bench.scoring.scores import BootstrapRatio, paired_ratio
from synthgrad.experiments.accuracy import MIN_SEEDS
from synthgrad.experiments.engines.limits import Limits, Peaks, Work, limits

GOAL = 97.0
"""Validation accuracy in percent to which the time is told."""
CLOSE = 0.5
"""Points below backprop within which a ratio may be a headline."""


@dataclass(frozen=True)
class TimedArm:
    """One arm of one case: what it is, and its seconds of an update by round."""

    facts: Mapping[str, Any]
    seconds: tuple[float, ...]

    @property
    def name(self) -> str:
        """In records."""
        return self.facts["arm"]

    @property
    def label(self) -> str:
        """For people."""
        return self.facts["label"]

    @property
    def median(self) -> float:
        """Seconds of an update."""
        return statistics.median(self.seconds)

    def limits(self, peaks: Peaks) -> Limits:
        """Return the least seconds of its update on a machine of these peaks."""
        return limits(
            Work(
                flops=self.facts["flops"],
                moved_bytes=self.facts["moved_bytes"],
                working_set=self.facts["working_set"],
                launches=self.facts["launches"],
                path=self.facts["path"],
                on_graph="graph" in self.facts["form"],
            ),
            peaks,
        )


@dataclass(frozen=True)
class TimedCase:
    """One network with everything that was timed on it, in turn."""

    record: RunRecord
    arms: Mapping[str, TimedArm]

    @property
    def name(self) -> str:
        """Of the network and its batch."""
        return self.record.case

    @property
    def cuts(self) -> list[str]:
        """The cuts that were timed, such as "cdni-4"."""
        return list(dict.fromkeys(a.facts["cut"] for a in self.arms.values() if a.facts["cut"]))

    def best(self, engine: str, cut: str | None = None, form: str | None = None) -> TimedArm | None:
        """Return the fastest arm of an engine on a cut, of one form or of all; None without one."""
        found = [
            arm
            for arm in self.arms.values()
            if arm.facts["engine"] == engine
            and arm.facts["cut"] == cut
            and form in (None, arm.facts["form"])
        ]
        return min(found, key=lambda arm: arm.median, default=None)

    def times(self, arm: TimedArm, rival: TimedArm) -> BootstrapRatio:
        """Return how many updates an arm makes while a rival makes one, round by round."""
        blocks = [
            Block(
                round=number,
                arm=one.name,
                iterations=1,
                seconds=seconds,
                examples=0,
                stage_updates=0,
                threads=None,
            )
            for one in {arm.name: arm, rival.name: rival}.values()
            for number, seconds in enumerate(one.seconds)
        ]
        return paired_ratio(blocks, rival.name, arm.name)


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What one method reached on one network, seed by seed.

    Attributes:
        accuracy: on validation data after the last update, in percent, by seed.
        to_goal: updates to the goal, by seed; infinite where it was missed.
        updates: of each run.
        test: test accuracy by seed.
    """

    accuracy: Mapping[int, float]
    to_goal: Mapping[int, float]
    updates: int
    test: Mapping[int, float]


def peaks_of(records: Sequence[RunRecord]) -> Peaks | None:
    """Return what the machine was measured to do, or None."""
    events = [event for record in records for event in record.of_kind("peaks")]
    return Peaks.from_event(events[-1]) if events else None


def timed_cases(records: Sequence[RunRecord]) -> dict[str, TimedCase]:
    """Return every case that was timed alone on the machine, by name."""
    cases = dict[str, TimedCase]()
    for record in records:
        if record.arm != "throughput" or record.status != "finished" or not record.clocked:
            continue
        seconds = {event["arm"]: event["by_round"] for event in record.of_kind("seconds")}
        arms = {
            event["arm"]: TimedArm(event, tuple(seconds[event["arm"]]))
            for event in record.of_kind("arm")
            if seconds.get(event["arm"])
        }
        if arms:
            cases[record.case] = TimedCase(record, arms)
    return cases


def learned(records: Sequence[RunRecord]) -> dict[tuple[str, str | None], Learned]:
    """Return what was learned, by case and cut (None is backprop); unfinished runs left out."""
    groups: dict[tuple[str, str | None], list[RunRecord]] = {}
    for record in records:
        if record.of_kind("tested") and record.snapshots and record.status == "finished":
            groups.setdefault((record.case, record.config.get("cut")), []).append(record)
    return {
        key: Learned(
            accuracy={run.seed: run.snapshots[-1].val_accuracy for run in runs},
            to_goal={
                run.seed: next(
                    (s.iteration for s in run.snapshots if s.val_accuracy >= GOAL), math.inf
                )
                for run in runs
            },
            updates=min(run.snapshots[-1].iteration for run in runs),
            test={run.seed: run.of_kind("tested")[-1]["test_accuracy"] for run in runs},
        )
        for key, runs in groups.items()
    }


def gaps(own: Learned | None, backprop: Learned | None) -> list[float]:
    """Return how far a method's test accuracy is above backprop's within each seed, in points."""
    if own is None or backprop is None:
        return []
    shared = sorted(set(own.test) & set(backprop.test))
    return [own.test[seed] - backprop.test[seed] for seed in shared]


def may_be_headline(found: Sequence[float]) -> tuple[bool, str]:
    """Return whether a ratio may be a headline, given the gaps in accuracy, and why.

    Example:
        >>> may_be_headline([-0.1, -0.4, 0.2])
        (True, 'accuracy within half a point')
        >>> may_be_headline([-0.1, -0.6, -0.7])[0]
        False
    """
    if not found:
        return False, "accuracy not measured"
    if len(found) < MIN_SEEDS:
        return False, f"accuracy of fewer than {MIN_SEEDS} seeds"
    if not statistics.median(found) >= -CLOSE:  # a NaN is no success
        return False, "accuracy more than half a point below backprop's"
    return True, "accuracy within half a point"
