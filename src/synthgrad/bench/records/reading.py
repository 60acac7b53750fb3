"""Records read back from their folders, with every damage named and nothing else lost to it."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgrad.bench.records.derived import with_derived_seconds
from synthgrad.bench.records.events import Event, RunRecord, check_event, reached
from synthgrad.errors import RecordError

SCHEMA = "1.0"
RUN_FILE = "run.json"
EVENTS_FILE = "events.jsonl"
CODE = ("git", "packages")
"""What of run.json tells the code: a "resumed" event repeats it where it has changed."""

_OF_TIMING = frozenset({"arms", "rounds", "block_iterations"})
_OPTIONS_BEFORE_THEY_WERE_RECORDED = ("learning_rate", "update_probability")


@dataclass(frozen=True)
class Problem:
    """Something in a folder of records that could not be used.

    Args:
        path: the file, below the folder that was read.
        message: what is wrong with it, and what was done about it.
    """

    path: str
    message: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.path}: {self.message}"


def read_records(folder: Path | str) -> tuple[list[RunRecord], list[Problem]]:
    """Read every record at and below a folder.

    Runs that had no clock get their seconds from the timing: see `with_derived_seconds`.

    What is damaged becomes a problem and is skipped; the rest is read. A record whose config
    differs from that of the same arm's first record is a problem too, as their numbers do not
    belong together; runs of `tune` and tasks of a study may differ.

    Args:
        folder: the folder that `synthgrad run --out` filled, or any part of it.

    Returns:
        The records in the order in which they were started, and the problems.

    Raises:
        RecordError: there is no such folder, or its records follow protocols of different majors.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RecordError(f"{folder} is no folder; give the --out of `synthgrad run`")
    records: list[RunRecord] = []
    problems: list[Problem] = []

    def unreadable(error: OSError) -> None:
        name = Path(error.filename).relative_to(folder).as_posix()
        problems.append(Problem(name, f"folder skipped: {_short(error)}"))

    for root, subfolders, files in os.walk(folder, onerror=unreadable):
        subfolders.sort()
        if RUN_FILE in files or EVENTS_FILE in files:
            record = _read_record(Path(root), Path(root).relative_to(folder).as_posix(), problems)
            if record is not None:
                records.append(record)
    records.sort(key=lambda record: (record.started, record.name))
    _check_protocols(records)
    return with_derived_seconds(_set_strangers_aside(records, problems)), problems


def read_one(folder: Path) -> RunRecord | None:
    """Return the record in a folder, or None if there is none that can be read."""
    records, _ = read_records(folder)
    return records[0] if records else None


def _read_record(folder: Path, name: str, problems: list[Problem]) -> RunRecord | None:
    try:
        run = load_run(folder / RUN_FILE)
    except (OSError, ValueError) as error:
        problems.append(Problem(f"{name}/{RUN_FILE}", f"damaged, run skipped: {_short(error)}"))
        return None
    try:
        lines = (folder / EVENTS_FILE).read_bytes().split(b"\n")
    except FileNotFoundError:  # stopped before anything happened
        lines = []
    except OSError as error:
        problems.append(Problem(f"{name}/{EVENTS_FILE}", f"events skipped: {_short(error)}"))
        lines = []
    events = _parse_events(lines, f"{name}/{EVENTS_FILE}", problems)
    if changed := {key for e in events if e["event"] == "resumed" for key in CODE if key in e}:
        message = f"went on with other {' and '.join(sorted(changed))} than it had begun with"
        problems.append(Problem(f"{name}/{EVENTS_FILE}", message))
    return RunRecord(folder=folder, name=name, run=run, events=_without_repeated(events))


def load_run(path: Path) -> dict[str, Any]:
    """Read and check a run.json.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    return check_run(json.loads(path.read_bytes()))


def check_run(run: Any) -> dict[str, Any]:
    """Return the content of a run.json if it has what scoring needs.

    Raises:
        ValueError: something is missing or of the wrong type, or the schema is of another major.
    """
    if not isinstance(run, dict):
        raise ValueError("no object")
    texts = ["schema", "protocol", "kind", "experiment", "started"]
    if run.get("kind") != "throughput":
        texts.append("arm")
        if not isinstance(run.get("seed"), int):
            raise ValueError("'seed' is missing or no integer")
    for key in texts:
        if not isinstance(run.get(key), str):
            raise ValueError(f"{key!r} is missing or no text")
    if not isinstance(run.get("config"), dict):
        raise ValueError("'config' is missing or no object")
    if not isinstance(run.get("label") or "", str):
        raise ValueError("'label' is no text")
    facts = run.get("facts") or {}
    if not isinstance(facts, dict):
        raise ValueError("'facts' is no object")
    check_event({"event": "facts", **facts})
    if _major(run["schema"]) != _major(SCHEMA):
        raise ValueError(f"schema {run['schema']}; this version of synthgrad reads {SCHEMA}")
    return run


def _parse_events(lines: list[bytes], path: str, problems: list[Problem]) -> list[Event]:
    events: list[Event] = []
    torn: Problem | None = None  # a bad line that nothing follows yet
    for line_number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = check_event(json.loads(line))
        except ValueError as error:
            if torn is not None:
                problems.append(torn)
            torn = Problem(path, f"line {line_number} skipped: {_short(error)}")
            continue
        # A process that is killed while it writes leaves a torn line: no problem at the end of an
        # unfinished run, nor where that run was then resumed.
        if torn is not None and event["event"] != "resumed":
            problems.append(torn)
        torn = None
        events.append(event)
    if torn is not None and events and events[-1]["event"] in ("finished", "failed", "unavailable"):
        problems.append(torn)
    return events


def _without_repeated(events: list[Event]) -> tuple[Event, ...]:
    """Drop what a resumed run went through again: its checkpoint may be older than its diary."""
    kept: list[Event] = []
    for event in events:
        if event["event"] == "resumed":
            again = event["iteration"]  # below 0: from the start, with all that it had said
            kept = [old for old in kept if again >= 0 and not reached(old) > again]
        kept.append(event)
    return tuple(kept)


def _check_protocols(records: Iterable[RunRecord]) -> None:
    first_of_major: dict[str, RunRecord] = {}
    for record in records:
        first_of_major.setdefault(_major(record.run["protocol"]), record)
    if len(first_of_major) > 1:
        found = ", ".join(
            f"{record.run['protocol']} ({record.name})" for record in first_of_major.values()
        )
        raise RecordError(
            f"records of different protocols cannot be compared: {found}. Report them separately"
        )


def _set_strangers_aside(records: list[RunRecord], problems: list[Problem]) -> list[RunRecord]:
    """Keep what can be compared: equal configs within an arm, and but for its options across arms.

    The timing counts too: of another network it would be printed beside these runs.
    """
    first_of_arm: dict[tuple[str, str], RunRecord] = {}
    first_of_case: dict[str, RunRecord] = {}
    kept: list[RunRecord] = []
    for record in records:
        if record.kind in ("run", "throughput"):
            first = first_of_case.setdefault(record.case, record)
            same_arm = first_of_arm.setdefault((record.case, record.arm), record)
            own = _OF_TIMING | _options(first) | _options(record)
            shared = first.config.keys() & record.config.keys() - own
            against, differing = first, differences(first.run, record.run, ("experiment",), shared)
            if not differing and record.kind == "run":
                against, differing = same_arm, differences(same_arm.run, record.run, ())
            if differing:
                message = f"differs from {against.name}, skipped: {'; '.join(differing)}"
                problems.append(Problem(f"{record.name}/{RUN_FILE}", message))
                continue
        kept.append(record)
    return kept


def _options(record: RunRecord) -> set[str]:
    """Return the keys of the config that belong to the arm alone."""
    return set(record.run.get("arm_options", _OPTIONS_BEFORE_THEY_WERE_RECORDED))


def differences(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    identity: Iterable[str],
    options: Iterable[str] | None = None,
) -> list[str]:
    """Name the keys whose values differ; seeds are no config.

    Nor are threads where one of the two had no clock: they decide times, and it has none.

    Args:
        before: what run.json holds.
        now: what another one holds.
        identity: keys to compare besides the configs.
        options: keys of the configs to compare; by default all.
    """
    pairs = {key: (before.get(key), now.get(key)) for key in identity}
    old, new = before["config"], now["config"]
    clocked = before.get("clocked", True) and now.get("clocked", True)
    ignored = {"seed"} if clocked else {"seed", "threads"}
    for key in sorted(({*old, *new} if options is None else {*options}) - ignored):
        pairs[f"config.{key}"] = (old.get(key), new.get(key))
    return [f"{key} was {was!r}, is {now!r}" for key, (was, now) in pairs.items() if was != now]


def _short(error: Exception) -> str:
    """Return what is wrong without the path, which the problem names already."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _major(version: str) -> str:
    return version.partition(".")[0]
