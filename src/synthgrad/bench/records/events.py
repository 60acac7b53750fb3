"""What a record holds, as typed values: the run, its snapshots, its blocks of interleaved timing.

Nothing here touches a file; `record` writes and reads.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

Status = Literal["finished", "failed", "interrupted", "unavailable"]
Event = Mapping[str, Any]

_CLOSING: tuple[Status, ...] = ("finished", "failed", "interrupted", "unavailable")
# What scoring reads of events other than snapshots and blocks.
_NUMBERS = (
    "iteration",
    "seconds",
    "examples",
    "stage_updates",
    "test_accuracy",
    "test_loss",
    "cold_seconds",
    "flops_per_iteration",
    "stage_parameters",
    "synthesizer_parameters",
    "memory_bytes",
)
_PROGRESS = ("facts", "warmup", "resumed", "snapshot", "alignment", "block")
_KNOWN = frozenset({*_CLOSING, *_PROGRESS, "calibration"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One evaluation of a run, at a fixed point, with nothing training.

    Losses are means, accuracies percent; NaN stands for what was not measured or not finite.
    `seconds` is the training clock when the snapshot was taken, evaluation not counted; NaN where
    there was none.
    """

    iteration: int
    seconds: float
    examples: int
    stage_updates: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float

    @classmethod
    def from_event(cls, event: Event) -> "Snapshot":
        """Read a "snapshot" event.

        Raises:
            ValueError: a count or the time is missing, or a value is no number. A time of null is
                there: the run had no clock.
        """
        iteration = required_number(event, "iteration")
        if "seconds" not in event:
            raise ValueError("'seconds' is missing")
        return cls(
            iteration=iteration,
            seconds=number(event, "seconds"),
            examples=required_number(event, "examples"),
            stage_updates=required_number(event, "stage_updates"),
            train_loss=number(event, "train_loss"),
            train_accuracy=number(event, "train_accuracy"),
            val_loss=number(event, "val_loss"),
            val_accuracy=number(event, "val_accuracy"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some iterations of one arm, timed in turn with the blocks of all others of its round."""

    round: int
    arm: str
    iterations: int
    seconds: float
    examples: int
    stage_updates: int
    threads: int | None

    @classmethod
    def from_event(cls, event: Event) -> "Block":
        """Read a "block" event.

        Raises:
            ValueError: something other than `threads` is missing, a value is no number, or there
                are no iterations or no time.
        """
        if not isinstance(event.get("arm"), str):
            raise ValueError("'arm' is missing")
        if min(required_number(event, "iterations"), required_number(event, "seconds")) <= 0:
            raise ValueError("'iterations' and 'seconds' must be above 0")
        return cls(
            round=required_number(event, "round"),
            arm=event["arm"],
            iterations=event["iterations"],
            seconds=event["seconds"],
            examples=required_number(event, "examples"),
            stage_updates=required_number(event, "stage_updates"),
            threads=event.get("threads"),
        )


@dataclass(frozen=True)
class RunRecord:
    """One run of one arm with one seed, as its folder tells it.

    Args:
        folder: where it lies.
        name: its path below the folder that was read, with slashes: "runs/backprop-s0".
        run: the content of run.json.
        events: its events in order, without those that a resumed run went through again.
    """

    folder: Path
    name: str
    run: Mapping[str, Any]
    events: tuple[Event, ...]

    @property
    def kind(self) -> str:
        """`"run"`, `"throughput"`, `"tune"`, or `"study"` for a task."""
        return self.run["kind"]

    @property
    def experiment(self) -> str:
        """The experiment's name."""
        return self.run["experiment"]

    @property
    def case(self) -> str:
        """The network or data set, of an experiment with several; empty where there is one."""
        return str(self.config.get("case") or "")

    @property
    def arm(self) -> str:
        """The arm's name; empty for a throughput record, which is about all of them."""
        return self.run.get("arm") or ""

    @property
    def label(self) -> str:
        """The arm's name for people."""
        return self.run.get("label") or self.arm

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.run.get("seed") or 0

    @property
    def preset(self) -> str:
        """The preset that the config was made from; empty where there was none."""
        return self.run.get("preset") or ""

    @property
    def config(self) -> Mapping[str, Any]:
        """Everything that decides the numbers."""
        return self.run["config"]

    @property
    def clocked(self) -> bool:
        """Whether its seconds were measured; not where it was trained beside other runs."""
        went_on = self.of_kind("resumed")
        return all(told.get("clocked", True) for told in (self.run, *went_on))

    @property
    def tuned(self) -> bool:
        """Whether its learning rate was tuned; what does not say so was not, or not known to be."""
        return bool(self.run.get("tuned", False))

    @property
    def started(self) -> str:
        """When the run was started, ISO-8601 in UTC."""
        return self.run["started"]

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What is known once the network is built: counts of FLOPs, parameters and bytes."""
        facts = dict(self.run.get("facts") or {})
        for event in self.of_kind("facts"):
            facts |= {key: event[key] for key in event if key not in ("event", "time")}
        return facts

    @cached_property
    def status(self) -> Status:
        """How the run ended; "interrupted" also where it just stops."""
        for event in reversed(self.events):
            if event["event"] in _CLOSING:
                return event["event"]
            if event["event"] in _PROGRESS:
                break
        return "interrupted"

    @property
    def crashed(self) -> bool:
        """Whether it failed by an error other than a loss that was not finite."""
        return self.status == "failed" and bool(self.of_kind("failed")[-1].get("crashed"))

    @property
    def is_settled(self) -> bool:
        """Whether the same command keeps it: it finished, or its loss was not finite."""
        return self.status in ("finished", "failed") and not self.crashed

    @property
    def reason(self) -> str:
        """Why the run did not finish; empty where it did."""
        if self.status == "finished":
            return ""
        if self.status == "interrupted":
            return f"interrupted at iteration {self.iterations_reached}"
        return str(self.of_kind(self.status)[-1].get("reason") or "no reason recorded")

    @cached_property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The evaluations, in order."""
        return tuple(Snapshot.from_event(event) for event in self.of_kind("snapshot"))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of a throughput record, in order."""
        return tuple(Block.from_event(event) for event in self.of_kind("block"))

    @property
    def finished(self) -> Event | None:
        """The "finished" event, or None."""
        return self.of_kind("finished")[-1] if self.status == "finished" else None

    @property
    def iterations_reached(self) -> int:
        """The last iteration that an event speaks of; 0 where none does."""
        iterations = map(reached, self.events)
        return int(max((value for value in iterations if not math.isnan(value)), default=0))

    def of_kind(self, name: str) -> list[Event]:
        """Return the events of one name, in order: "alignment", say."""
        return [event for event in self.events if event["event"] == name]


def number(event: Event, key: str) -> float:
    """Return a number of an event; NaN where it is missing, null or not finite.

    Raises:
        ValueError: it is something else than a number.
    """
    value = event.get(key)
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key!r} is {value!r}, not a number")
    return value if math.isfinite(value) else math.nan


def reached(event: Event) -> float:
    """Return the iteration that an event speaks of; NaN where it speaks of none.

    Unlike `number` it takes any event: those of studies hold what they like.
    """
    return number(event, "iteration") if event["event"] in _KNOWN else math.nan


def required_number(event: Event, key: str) -> Any:
    """Return a number that an event cannot do without, whole or not.

    Raises:
        ValueError: it is missing, not finite, or no number.
    """
    value = number(event, key)
    if math.isnan(value):
        raise ValueError(f"{key!r} is missing")
    return value


def check_event(event: Any) -> Event:
    """Return a parsed line of events.jsonl if it is an event that scoring can use.

    Unknown keys are fine, and so are unknown events, such as those of studies, with any values.

    Raises:
        ValueError: it is none, with what is wrong.
    """
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise ValueError("no object with an 'event'")
    match event["event"]:
        case "snapshot":
            Snapshot.from_event(event)
        case "block":
            Block.from_event(event)
        case "resumed":
            required_number(event, "iteration")
        case name if name in _KNOWN:
            for key in _NUMBERS:
                number(event, key)
        case _:
            pass
    return event
