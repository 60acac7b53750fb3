"""Studies that are no training runs: each task leaves a record of its own, like a run's.

What a task measures it yields as events; how it is run, kept, and shared over processes is the same
for all of them.
"""

import re
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from synthgrad.bench.records.reading import read_one
from synthgrad.bench.records.record import RecordWriter
from synthgrad.bench.running.job import Outcome
from synthgrad.bench.running.processes import run_in_processes
from synthgrad.bench.running.progress import Listener, RunProgress
from synthgrad.bench.running.randomness import forked_random
from synthgrad.bench.running.training import FROM_THE_START, failure
from synthgrad.bench.seeds import derive_seed
from synthgrad.errors import ConfigError, DataNotFoundError, RecordError

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)?")
_OWN_EVENTS = frozenset({"finished", "failed", "interrupted", "unavailable", "resumed"})


@dataclass(frozen=True, kw_only=True)
class Task:
    """One measurement of a study.

    Args:
        name: of its folder below `runs`; one "/" may divide it.
        arm: what it is grouped by: "linear".
        label: the arm's name for people.
        seed: of its random numbers; torch's default generators are seeded from it.
        options: what its record's config says beside the study's.
        measure: returns what is yielded, each a mapping with "event", a name, and values that a
            record can hold. A partial of a function on module level, or it cannot go to another
            process.

    Raises:
        ConfigError: the name cannot be a folder's.
    """

    name: str
    arm: str
    label: str
    seed: int
    measure: Callable[[], Iterator[Mapping[str, Any]]]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        """Check the name."""
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"a task's name is made of letters, digits, '.', '_' and '-', with one '/' at "
                f"most, not {self.name!r}"
            )


def run_tasks(
    experiment: str,
    preset: str,
    config: Mapping[str, Any],
    tasks: Sequence[Task],
    out: Path,
    *,
    console: Console,
    processes: int = 1,
) -> Outcome:
    """Run every task, each into a record of the kind "study" in `out/runs/NAME`.

    A task that finished or diverged before is kept; any other starts anew.

    Args:
        experiment: its name.
        preset: the preset that the config was made from.
        config: what decides the numbers of every task.
        tasks: what to run, in this order.
        out: the folder of the records.
        console: for the progress.
        processes: how many tasks at once, each in a process of its own.

    Returns:
        How the tasks ended: "failed" is a `DivergedError`, "unavailable" a data set that is not
        here, "crashed" any other error or a process that died.

    Raises:
        ConfigError: two tasks have one name, or a task cannot be sent to another process.
        RecordError: `out` cannot be written, or holds the record of something else.
        KeyboardInterrupt: by the user; the record holds what was done, and the same call goes on.
    """
    work = {task.name: task for task in tasks}
    if len(work) < len(tasks):
        twice = [name for name, n in Counter(task.name for task in tasks).items() if n > 1]
        raise ConfigError(f"tasks are named twice: {', '.join(twice)}; every name is a folder")
    description = {
        "kind": "study",
        "experiment": experiment,
        "preset": preset,
        "clocked": processes == 1,
        "config": dict(config),
    }
    setup = partial(_Tasks, description, out)
    outcome = Outcome()
    with RunProgress(len(tasks), console, unit="tasks") as progress:
        if processes > 1:
            outcome.runs += run_in_processes(work, setup, processes=processes, progress=progress)
        else:
            run = setup()
            outcome.runs += Counter(run(task, progress) for task in tasks)
    return outcome


@dataclass(frozen=True)
class _Tasks:
    """Runs the tasks of a study one after the other, in whichever process it is made."""

    description: Mapping[str, Any]
    out: Path

    def __call__(self, task: Task, progress: Listener) -> str:
        """Run one task and return how it ended."""
        progress.describe(task.name)
        status = self._run(task, progress)
        progress.advance(1)
        return status

    def _run(self, task: Task, progress: Listener) -> str:
        folder = self.out / "runs" / task.name
        description = {
            **self.description,
            "arm": task.arm,
            "label": task.label,
            "seed": task.seed,
            "config": {**self.description["config"], **task.options},
            "arm_options": sorted(task.options),
        }
        with RecordWriter(folder, description) as writer:
            before = read_one(folder) if writer.resumes else None
            if before and before.is_settled:
                progress.note(f"{task.name}: {before.status} before, kept in {folder}")
                return before.status
            if before:
                writer.event("resumed", iteration=FROM_THE_START)
            try:
                num_events = self._measure(task, writer)
            except KeyboardInterrupt:
                writer.event("interrupted")
                raise
            except RecordError:
                raise
            except DataNotFoundError as error:
                # Where it was looked for is for the console: a record names no paths.
                writer.event("unavailable", reason=str(error).partition(". ")[0])
                progress.note(f"{task.name}: unavailable: {error}")
                return "unavailable"
            except Exception as error:
                reason = failure(error)
                writer.event("failed", **reason)
                if reason["crashed"]:
                    traceback.print_exception(error, file=sys.stderr)
                progress.note(f"{task.name}: failed: {error}")
                return "crashed" if reason["crashed"] else "failed"
            writer.event("finished")
        progress.note(f"{task.name}: finished: {num_events} events")
        return "finished"

    def _measure(self, task: Task, writer: RecordWriter) -> int:
        device = torch.device(self.description["config"].get("device", "cpu"))
        num_events = 0
        with forked_random(device):
            torch.manual_seed(derive_seed(task.seed, "task"))
            for values in task.measure():
                name = values.get("event")
                if not isinstance(name, str) or name in _OWN_EVENTS:
                    raise ConfigError(
                        f"task {task.name!r} yielded the event {name!r}; give it a name under "
                        f"'event', none of {', '.join(sorted(_OWN_EVENTS))}"
                    )
                writer.event(name, **{key: values[key] for key in values if key != "event"})
                num_events += 1
        return num_events
