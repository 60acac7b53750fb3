"""The simulator held against measured pipelines: what it says beside what they reached."""

import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from synthgrad.bench.records.events import Event, RunRecord, number, required_number
from synthgrad.bench.scoring.formats import significant
from synthgrad.bench.scoring.table import Table
from synthgrad.errors import RecordError, SynthgradError
from synthgrad.planning.costs import Conditions
from synthgrad.planning.measurements import EVENT, Measurements
from synthgrad.planning.schedules import LABELS, METHODS, Schedule
from synthgrad.planning.simulate import simulate

MEASURED = "measured"
GOAL_PERCENT = 15.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """One throughput, simulated and measured.

    Args:
        network: the experiment of its record, and its case where there is one.
        schedule: what ran.
        num_stages: on how many.
        added_latency_s: what was added to each message.
        simulated: batches a second.
        measured: batches a second.
    """

    network: str
    schedule: Schedule
    num_stages: int
    added_latency_s: float
    simulated: float
    measured: float

    @property
    def off_percent(self) -> float:
        """By how much the simulation is above what was measured."""
        return 100 * (self.simulated / self.measured - 1)


def check_against(records: Iterable[RunRecord]) -> list[Check]:
    """Simulate each throughput that records hold, from the stage times that it was measured with.

    Those are of its own record, or of the first one of the same network that has some. Where there
    are none it is passed over, and so are methods that no simulator knows.

    Args:
        records: with "measurements" and "measured" events.

    Raises:
        RecordError: an event is damaged; its record and field are named.
    """
    records = list(records)
    of_network = dict[str, Measurements]()
    of_record = dict[tuple[str, str], Measurements]()
    for record in records:
        for event in record.of_kind(EVENT)[:1]:
            with _names(record):
                found = Measurements.from_json(event)
                of_record[_network(record), record.name] = found
                of_network.setdefault(_network(record), found)
    checks = list[Check]()
    for record in records:
        network = _network(record)
        measurements = of_record.get((network, record.name)) or of_network.get(network)
        for event in record.of_kind(MEASURED):
            if measurements is not None and event.get("method") in METHODS:
                with _names(record):
                    checks.append(_check(event, network, measurements))
    return checks


def checks_table(checks: Sequence[Check]) -> Table:
    """Return simulated and measured throughput side by side."""
    network = ("Network",) if len({check.network for check in checks}) > 1 else ()
    rows = [
        (
            *((check.network,) if network else ()),
            LABELS[check.schedule.method],
            f"{1000 * check.added_latency_s:g}",
            str(check.schedule.num_microbatches) if check.schedule.is_synchronous else "",
            "" if check.schedule.is_synchronous else str(check.schedule.max_in_flight),
            significant(check.measured),
            significant(check.simulated),
            f"{check.off_percent:+.0f}",
        )
        for check in checks
    ]
    far = [check for check in checks if abs(check.off_percent) > GOAL_PERCENT]
    note = f"Within {GOAL_PERCENT:g} %: {len(checks) - len(far)} of {len(checks)}."
    return Table(
        title="The simulator against measured pipelines: batches a second",
        columns=(
            *network,
            "Method",
            "Added delay, ms",
            "Micro-batches",
            "In flight",
            "Measured",
            "Simulated",
            "Off by %",
        ),
        rows=tuple(rows),
        notes=(note,) if checks else (),
        num_text_columns=len(network) + 1,
    )


def _network(record: RunRecord) -> str:
    return f"{record.experiment} {record.case}".strip()


def _check(event: Event, network: str, measurements: Measurements) -> Check:
    added_latency_s = _number(event, "added_latency_s", 0.0)
    schedule = Schedule(
        method=event["method"],
        num_microbatches=int(_number(event, "num_microbatches", 1)),
        max_in_flight=int(_number(event, "max_in_flight", 4)),
    )
    conditions = Conditions(link=measurements.link.later(added_latency_s))
    return Check(
        network=network,
        schedule=schedule,
        num_stages=len(measurements.stages),
        added_latency_s=added_latency_s,
        simulated=simulate(schedule, measurements.stages, conditions).batches_per_second,
        measured=required_number(event, "batches_per_second"),
    )


def _number(event: Event, key: str, default: float) -> float:
    value = number(event, key)
    return default if math.isnan(value) else value


@contextmanager
def _names(record: RunRecord) -> Generator[None]:
    """Name the record in an error about one of its events."""
    try:
        yield
    except (ValueError, SynthgradError) as error:
        raise RecordError(f"record {record.name}: {error}") from error
