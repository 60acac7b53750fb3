"""The list of records at the end of the page, where every number's link leads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from synthgrad.bench.records.events import RunRecord, number
from synthgrad.bench.records.reading import RUN_FILE
from synthgrad.bench.report.cells import record_link
from synthgrad.bench.report.tables import records_anchor
from synthgrad.bench.scoring.arm_summary import ArmSummary, known
from synthgrad.bench.scoring.formats import count, fixed, significant
from synthgrad.bench.scoring.summary import runs_by_arm

_OTHER_KINDS = {
    "throughput": "Interleaved timing",
    "tune": "Tuning, on seeds of its own",
    "study": "Tasks",
}


@dataclass(frozen=True, kw_only=True)
class RecordRow:
    """One record: its name, the links to its two files, and what became of it."""

    name: str
    run_href: str
    events_href: str
    seed: str
    status: str
    reason: str
    started: str
    iterations: str
    seconds: str
    test_accuracy: str
    test_loss: str


@dataclass(frozen=True, kw_only=True)
class RecordGroup:
    """The records of one arm, or those of another kind, under the id that numbers link to."""

    anchor: str
    title: str
    rows: Sequence[RecordRow]


def list_records(
    summaries: Sequence[ArmSummary], records: Sequence[RunRecord]
) -> list[RecordGroup]:
    """Return every record in groups: arm by arm, then timing, tuning and tasks."""
    runs_of = runs_by_arm(records)
    groups = [
        _group(records_anchor(index), summary.label, runs_of[summary.arm])
        for index, summary in enumerate(summaries)
    ]
    for kind, title in _OTHER_KINDS.items():
        groups.append(_group(f"records-{kind}", title, (r for r in records if r.kind == kind)))
    return [group for group in groups if group.rows]


def list_all(records: Sequence[RunRecord]) -> list[RecordGroup]:
    """Return every record in groups: by case and arm, in the order in which they were started."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        names = [record.case, record.label or _OTHER_KINDS.get(record.kind, record.kind)]
        groups.setdefault(": ".join(name for name in names if name), []).append(record)
    return [
        _group(f"records-{number}", title, group)
        for number, (title, group) in enumerate(groups.items())
    ]


def _group(anchor: str, title: str, records: Iterable[RunRecord]) -> RecordGroup:
    return RecordGroup(anchor=anchor, title=title, rows=[_row(record) for record in records])


def _row(record: RunRecord) -> RecordRow:
    end = record.finished or {}
    return RecordRow(
        name=record.name,
        run_href=record_link(record.name, RUN_FILE),
        events_href=record_link(record.name),
        seed=str(record.seed),
        status=record.status,
        reason=record.reason,
        started=record.started[:19].replace("T", " "),
        iterations=count(record.iterations_reached),
        seconds=significant(known(number(end, "seconds"))),
        test_accuracy=fixed(known(number(end, "test_accuracy")), 2),
        test_loss=significant(known(number(end, "test_loss"))),
    )
