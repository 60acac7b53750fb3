"""Experiments of several cases: one comparison of arms on each network or data set.

A case is a folder of its own below that of the experiment, and its name is in its records.
"""

from collections.abc import Iterable

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.summary import summarize


def by_case(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Group records by case, in the order in which the cases were started."""
    cases: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: (record.started, record.name)):
        cases.setdefault(record.case, []).append(record)
    return cases


def summarize_cases(records: Iterable[RunRecord]) -> dict[str, dict[str, ArmSummary]]:
    """Summarize the runs of each case: by case, then by arm; cases without a run are left out."""
    summaries = {case: summarize(group) for case, group in by_case(records).items()}
    return {case: {arm.arm: arm for arm in arms} for case, arms in summaries.items() if arms}
