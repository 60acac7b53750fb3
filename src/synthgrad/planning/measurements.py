"""What is known of the stages and the link: measured or given seconds and bytes, as JSON.

A schema of its own, small enough to be written by hand for a model that is not built yet.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from synthgrad.bench.records.reading import read_records
from synthgrad.errors import ConfigError, RecordError

SCHEMA = 1
EVENT = "measurements"

Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Seconds of one stage for a whole batch, and bytes.

    Args:
        forward_s: of the stage's own part of the forward pass.
        backward_input_s: of its backward, the part that makes gradients of activations.
        backward_weight_s: the part that makes gradients of parameters.
        update_s: of the optimizer.
        predict_s: of the synthesizer on top: the prediction and the signal; and what a signal at
            a cut in time adds to a pass.
        fit_s: of that synthesizer's backward and update.
        local_s: of a local loss on top: its head's forward, backward and update; and, again, what
            a signal at a cut in time adds.
        local_backward_s: of a backward that hands nothing down; by default both parts.
        overhead_s: what one pass costs however few examples there are in it.
        runtime_s: what the runtime of GPipe, 1F1B and zero bubble takes beside each forward, and
            each backward that makes gradients of activations; measured beside its link's times.
        activation_bytes: what goes up for a whole batch; as much comes down.
        saved_bytes: what autograd keeps of a whole batch; by default `activation_bytes`.
        parameter_bytes: of the stage's parameters.

    Raises:
        ConfigError: a value is no number of 0 or more, or the stage takes no time at all.
    """

    forward_s: float
    backward_input_s: float = 0.0
    backward_weight_s: float = 0.0
    update_s: float = 0.0
    predict_s: float = 0.0
    fit_s: float = 0.0
    local_s: float = 0.0
    local_backward_s: float | None = None
    overhead_s: float = 0.0
    runtime_s: float = 0.0
    activation_bytes: float = 0.0
    saved_bytes: float | None = None
    parameter_bytes: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        for name, value in asdict(self).items():
            if value is not None:
                at_least_zero(name, value)
        if self.forward_s + self.backward_s == 0:
            raise ConfigError("a stage with forward_s=0 and no backward takes no time: give one")

    @property
    def backward_s(self) -> float:
        """Seconds of the whole backward."""
        return self.backward_input_s + self.backward_weight_s

    @property
    def backward_handing_nothing_down_s(self) -> float:
        """Seconds of a backward that makes no gradient for the stage below."""
        return self.backward_s if self.local_backward_s is None else self.local_backward_s

    @property
    def bytes_kept(self) -> float:
        """What autograd keeps of a whole batch."""
        return self.activation_bytes if self.saved_bytes is None else self.saved_bytes

    def part(self, seconds: float, num_microbatches: int) -> float:
        """Return what a pass takes on one of so many equal parts of the batch."""
        fixed = min(self.overhead_s, seconds)
        return fixed + (seconds - fixed) / num_microbatches


@dataclass(frozen=True, kw_only=True)
class Link:
    """What lies between two neighboring stages: every message goes over it, one after the other.

    Args:
        latency_s: one way.
        bandwidth_bytes_per_s: infinite where it is no limit.
        latency_down_s: of what comes down; by default as up.
        bandwidth_down_bytes_per_s: of what comes down; by default as up.
        message_s: what a message costs the stage itself, where it is sent and where it is received.
        jitter_s: mean of what a message is late by, exponentially distributed.

    Raises:
        ConfigError: a value is no number of 0 or more, or a bandwidth is 0.
    """

    latency_s: float = 0.0
    bandwidth_bytes_per_s: float = math.inf
    latency_down_s: float | None = None
    bandwidth_down_bytes_per_s: float | None = None
    message_s: float = 0.0
    jitter_s: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("latency_s", "latency_down_s", "message_s", "jitter_s"):
            at_least_zero(name, getattr(self, name) or 0.0)
        for name in ("bandwidth_bytes_per_s", "bandwidth_down_bytes_per_s"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and value > 0):
                raise ConfigError(f"{name}={value!r} must be above 0; leave it out for no limit")

    @property
    def latencies_s(self) -> tuple[float, float]:
        """Up and down."""
        down = self.latency_s if self.latency_down_s is None else self.latency_down_s
        return self.latency_s, down

    @property
    def bandwidths(self) -> tuple[float, float]:
        """Up and down, in bytes a second."""
        up, down = self.bandwidth_bytes_per_s, self.bandwidth_down_bytes_per_s
        return up, up if down is None else down

    def later(self, added_s: float) -> "Link":
        """Return the link with some latency added in both directions."""
        up, down = self.latencies_s
        return replace(self, latency_s=up + added_s, latency_down_s=down + added_s)

    def to_json(self) -> dict[str, Any]:
        """Return it as an object, None for an infinite bandwidth."""
        return {name: None if v == math.inf else v for name, v in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What a plan starts from.

    Args:
        stages: bottom first.
        link: between each two of them, as it was when they were measured.
        batch_size: examples in a batch.
        source: where the numbers come from, one line for people.

    Raises:
        ConfigError: there is no stage, or the batch is empty.
    """

    stages: tuple[StageTimes, ...]
    link: Link = field(default_factory=Link)
    batch_size: int = 256
    source: str = "given"

    def __post_init__(self) -> None:
        """Check that there is something."""
        if not self.stages:
            raise ConfigError("stages=() is empty: a plan needs the times of one stage or more")
        if not is_number(self.batch_size) or self.batch_size < 1 or self.batch_size % 1:
            raise ConfigError(f"batch_size={self.batch_size!r} must be a whole number, 1 or more")

    @classmethod
    def from_json(cls, given: Any) -> "Measurements":
        """Read an object such as `to_json` returns; keys that it does not know are left alone.

        Raises:
            ConfigError: a field is missing or wrong; it is named.
        """
        if not isinstance(given, Mapping):
            raise ConfigError(f"measurements are an object with 'stages', not {given!r:.60}")
        if given.get("schema", SCHEMA) != SCHEMA:
            raise ConfigError(f"schema is {given['schema']!r}; this version reads {SCHEMA}")
        stages = given.get("stages")
        if not isinstance(stages, list):
            raise ConfigError(f"stages is {stages!r:.60}, not a list of objects, one a stage")
        link = given.get("link") or {}
        if isinstance(link, Mapping):
            link = {key: value for key, value in link.items() if value is not None}
        return cls(
            stages=tuple(_read(StageTimes, f"stages[{k}]", s) for k, s in enumerate(stages)),
            link=_read(Link, "link", link),
            batch_size=given.get("batch_size", 256),
            source=str(given.get("source", "given")),
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything as one object, as a file or an event holds it."""
        return {
            "schema": SCHEMA,
            "source": self.source,
            "batch_size": self.batch_size,
            "stages": [asdict(stage) for stage in self.stages],
            "link": self.link.to_json(),
        }

    def spread(self, num_stages: int) -> tuple[StageTimes, ...]:
        """Return so many stages like these.

        More than were measured: the model grows, by stages like the inner ones (a chain of two has
        no inner one: there a stage above is like the last one, under the first one's synthesizer).
        Fewer: neighbors are put together.

        Raises:
            ConfigError: there would be no stage.
        """
        if num_stages < 1:
            raise ConfigError(f"num_stages={num_stages} must be 1 or more")
        measured = self.stages
        if num_stages <= len(measured):
            bounds = [len(measured) * k // num_stages for k in range(num_stages + 1)]
            return tuple(_merge(measured[a:b]) for a, b in pairwise(bounds))
        if len(measured) == 1:
            return measured * num_stages
        first, *inner, last = measured
        inner = inner or [_inner(first, last)]
        return (first, *(inner[k % len(inner)] for k in range(num_stages - 2)), last)


def read_measurements(path: Path | str) -> Measurements:
    """Read a JSON file, or the first "measurements" event of a folder of records.

    Raises:
        RecordError: there is none, or a field of it is wrong; the field is named.
    """
    path = Path(path)
    try:
        if path.is_dir():
            found = [event for record in read_records(path)[0] for event in record.of_kind(EVENT)]
            if not found:
                raise RecordError(f"{path} holds no record with a {EVENT!r} event")
            return Measurements.from_json(found[0])
        return Measurements.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except ConfigError as error:
        raise RecordError(f"{path}: {error}") from error
    except ValueError as error:
        raise RecordError(f"{path} is no JSON: {error}") from error


def is_number(value: Any) -> bool:
    """Whether it is a number other than NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def at_least_zero(name: str, value: Any) -> None:
    """Refuse what is no finite number of 0 or more.

    Raises:
        ConfigError: it is not.
    """
    if not (is_number(value) and 0 <= value < math.inf):
        raise ConfigError(f"{name}={value!r} must be a number of 0 or more")


def _read(cls: type[Part], place: str, given: Any) -> Part:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{place} is {given!r:.60}, not an object")
    known = {f.name for f in fields(cls)}  # pyright: ignore[reportArgumentType]  # a dataclass
    try:
        return cls(**{key: value for key, value in given.items() if key in known})
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    except TypeError as error:
        raise ConfigError(f"{place}: {'forward_s'!r} is missing") from error


def _inner(first: StageTimes, last: StageTimes) -> StageTimes:
    return replace(
        last,
        predict_s=first.predict_s,
        fit_s=first.fit_s,
        local_s=first.local_s,
        activation_bytes=first.activation_bytes,
    )


def _merge(stages: tuple[StageTimes, ...]) -> StageTimes:
    """Return neighboring stages as one, under the interface of the topmost."""
    if len(stages) == 1:
        return stages[0]
    top, below = stages[-1], stages[:-1]

    def total(name: str) -> float:
        return sum(getattr(stage, name) for stage in stages)

    return replace(
        top,
        forward_s=total("forward_s"),
        backward_input_s=total("backward_input_s"),
        backward_weight_s=total("backward_weight_s"),
        local_backward_s=stages[0].backward_handing_nothing_down_s
        + sum(stage.backward_s for stage in stages[1:]),
        update_s=total("update_s"),
        overhead_s=total("overhead_s"),
        saved_bytes=sum(stage.bytes_kept for stage in (*below, top)),
        parameter_bytes=total("parameter_bytes"),
    )
