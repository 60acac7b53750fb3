"""Seconds for runs that had no clock, because they were trained beside others on the same cores.

What such a run took says nothing about its arm. The interleaved timing does, so the seconds at an
iteration are that iteration times the arm's median time of one.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from synthgrad.bench.records.events import Block, Event, RunRecord, reached


def latest_timing(records: Sequence[RunRecord]) -> RunRecord | None:
    """Return the throughput record that was started last, or None if there is none."""
    timings = (record for record in records if record.kind == "throughput")
    return max(timings, key=lambda record: (record.started, record.name), default=None)


def seconds_per_iteration(blocks: Iterable[Block]) -> float:
    """Return the median over some blocks of one arm; NaN for none."""
    times = [block.seconds / block.iterations for block in blocks]
    return statistics.median(times) if times else math.nan


def with_derived_seconds(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the records as scoring may read them: a case's runs have seconds of the same making.

    If all runs of a case had a clock nothing of it is changed. If one had none, then no clock of
    the case counts, as its seconds would be compared with others that mean something else: the
    seconds of every event of every run become iterations times the arm's median seconds per
    iteration in the case's latest throughput record, and None for an arm without blocks.

    Args:
        records: of one experiment, of any kind, in any order.
    """
    cases = dict[str, list[RunRecord]]()
    for record in records:
        cases.setdefault(record.case, []).append(record)
    paces = {case: _paces(group) for case, group in cases.items() if not _all_clocked(group)}

    def derived(record: RunRecord) -> RunRecord:
        pace = paces.get(record.case)
        if pace is None or record.kind != "run":
            return record
        return _derived(record, pace.get(record.arm))

    return list(map(derived, records))


def _all_clocked(records: Sequence[RunRecord]) -> bool:
    return all(record.clocked for record in records if record.kind == "run")


def _paces(records: Sequence[RunRecord]) -> dict[str, float]:
    """Return each arm's seconds per iteration in the latest timing."""
    timing = latest_timing(records)
    blocks = timing.blocks if timing else ()
    return {
        arm: seconds_per_iteration(block for block in blocks if block.arm == arm)
        for arm in {block.arm for block in blocks}
    }


def _derived(record: RunRecord, pace: float | None) -> RunRecord:
    def derive(event: Event) -> Event:
        iteration = reached(event)
        if "seconds" not in event or math.isnan(iteration):
            return event
        return {**event, "seconds": None if pace is None else pace * iteration}

    run = {**record.run, "clocked": False}
    return replace(record, run=run, events=tuple(map(derive, record.events)))
