"""Records on disk: a folder a run, written once and then only appended to.

run.json says what was asked for, where and when, and is never changed; events.jsonl is the run's
diary. A crash, a full disk or Ctrl-C leaves everything written so far readable. `reading` reads it
back.
"""

import errno
import json
import math
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.records.machine import describe_git, describe_machine, describe_packages
from synthgrad.bench.records.reading import (
    CODE,
    EVENTS_FILE,
    RUN_FILE,
    SCHEMA,
    Problem,
    check_run,
    differences,
    load_run,
    read_records,
)
from synthgrad.errors import ConfigError, RecordError

try:
    import fcntl
except ImportError:  # not a system with locks on files
    fcntl = None

__all__ = ["Problem", "RecordWriter", "RunRecord", "read_records"]

PROTOCOL = "1.0"

_IDENTITY = ("protocol", "kind", "experiment", "arm", "seed")


class RecordWriter:
    """Writes the record of one run; a context manager.

    A new folder gets its run.json at once. In a folder that has one, the same run goes on: kind,
    experiment, arm, seed and every value of the config must be equal, and `resumes` is True. The
    next event should then be "resumed" with its `iteration`, which tells the reader to forget the
    snapshots that will be taken again.

    Args:
        folder: the run's folder; it and its parents are made.
        run: the content of run.json. `kind`, `experiment`, `config` and, but for throughput, `arm`
            and `seed` are needed; `schema`, `protocol`, `argv`, `git`, `machine`, `packages` and
            `started` are added where they are missing.

    Raises:
        ConfigError: something that run.json needs is missing.
        RecordError: the folder cannot be written, or holds the record of something else.

    Example:
        >>> import tempfile
        >>> run = {"kind": "run", "experiment": "demo", "arm": "backprop", "seed": 0, "config": {}}
        >>> with tempfile.TemporaryDirectory() as out:
        ...     with RecordWriter(Path(out) / "runs/backprop-s0", run) as record:
        ...         record.event("failed", reason="loss is NaN at iteration 37", iteration=37)
        ...     [read], problems = read_records(Path(out))
        >>> read.status, read.reason, problems
        ('failed', 'loss is NaN at iteration 37', [])
    """

    def __init__(self, folder: Path | str, run: Mapping[str, Any]) -> None:
        """Create the record, or open it to go on."""
        self.folder = Path(folder)
        self.run: dict[str, Any] = _to_json(_completed(run))
        try:
            check_run(self.run)
        except ValueError as error:
            raise ConfigError(f"run.json of {self.folder}: {error}") from error
        self._changed: dict[str, Any] = {}
        self.resumes = (self.folder / RUN_FILE).exists()
        if self.resumes:
            self._check_same_run()
        else:
            self._create()
        path = self.folder / EVENTS_FILE
        try:
            # Unbuffered: what `event` has returned from is with the operating system, and a failed
            # write is not tried again behind our back when the file is closed.
            self._file = path.open("ab", buffering=0)
            _claim(self._file, self.folder)
            # A process that was killed while it wrote leaves a torn line; do not write on into it.
            self._torn = self._file.tell() > 0 and not path.read_bytes().endswith(b"\n")
        except OSError as error:
            raise _write_error(path, error) from error

    def event(self, name: str, /, **values: Any) -> None:
        """Append one event and hand it to the operating system.

        Args:
            name: the event: "snapshot", say.
            values: its values: None, bool, int, float, str, scalar tensors, and lists and mappings
                of them. What is not finite becomes null.

        Raises:
            ConfigError: a value is of another type, or is called "event" or "time".
            RecordError: the line cannot be written; the lines before it stay readable.
        """
        if reserved := {"event", "time"} & values.keys():
            raise ConfigError(f"event {name!r}: {sorted(reserved)} are set by the writer itself")
        if name == "resumed":
            values = self._changed | values
        event = {"event": name, "time": _now(), **_to_json(values)}
        line = json.dumps(event, allow_nan=False).encode() + b"\n"
        data = b"\n" + line if self._torn else line
        self._torn = True
        try:
            written = self._file.write(data)
        except OSError as error:
            raise _write_error(self.folder / EVENTS_FILE, error) from error
        if written != len(data):  # what an unbuffered file does when the disk fills up
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise _write_error(self.folder / EVENTS_FILE, error)
        self._torn = False

    def close(self) -> None:
        """Close the file; the writer is of no use after it."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def _create(self) -> None:
        path = self.folder / RUN_FILE
        temporary = path.with_suffix(".json.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self.run, indent=2) + "\n", encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            raise _write_error(path, error) from error

    def _check_same_run(self) -> None:
        path = self.folder / RUN_FILE
        try:
            before = load_run(path)
        except (OSError, ValueError) as error:
            raise RecordError(
                f"{path} is damaged ({error}); move its folder away, or choose another --out"
            ) from error
        differing = differences(before, self.run, _IDENTITY)
        if differing:
            raise RecordError(
                f"{self.folder} holds the record of another run: {'; '.join(differing)}. "
                "Ask for the same again, or choose another --out"
            )
        # Other code may give other numbers: the event that says that the run goes on tells it.
        self._changed = {k: self.run[k] for k in CODE if self.run[k] != before.get(k)}
        self.run = before


def _completed(run: Mapping[str, Any]) -> dict[str, Any]:
    device = str((run.get("config") or {}).get("device"))
    defaults: dict[str, Any] = {
        "schema": SCHEMA,
        "protocol": PROTOCOL,
        "argv": ["synthgrad", *sys.argv[1:]],
        "git": describe_git(Path(__file__).parent),
        "machine": describe_machine(device if device.startswith("cuda") else "cpu"),
        "packages": describe_packages(),
        "started": _now(),
    }
    return defaults | dict(run)


def _to_json(value: Any) -> Any:
    """Return a value as JSON can hold it: tensors as numbers, tuples as lists, NaN as None."""
    if hasattr(value, "item"):  # a scalar of torch or NumPy
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(part) for part in value]
    raise ConfigError(f"a record cannot hold {value!r} of type {type(value).__name__}")


def _claim(file: IO[bytes], folder: Path) -> None:
    """Keep two processes from mixing their events; the system forgets it when either ends.

    Raises:
        RecordError: another one writes there.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise RecordError(
            f"{folder} is being written by another process: wait for it, or give another folder."
        ) from error


def _write_error(path: Path, error: OSError) -> RecordError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        mend = "free some space; what was written before stays readable"
    else:
        mend = "choose another --out"
    return RecordError(f"cannot write {path}: {error.strerror or error}; {mend}")


def _now() -> str:
    return datetime.now(UTC).isoformat()
