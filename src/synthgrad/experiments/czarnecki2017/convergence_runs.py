"""The runs of the convergence study as values, and the rule by which each one's outcome is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from synthgrad.bench.records.events import RunRecord

REACHED = 1e-4
"""A run has reached the minimum where its relative distance is below this."""

ROUNDING = 1e-9
"""Below this distance gradients are rounding errors, and Proposition 2's condition says nothing."""

_FALLEN = 0.1
_AT_REST = 1e-6
_STRETCH = 0.9

Outcome = Literal["reached", "falls", "elsewhere", "moving", "diverged"]
Column = Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class ToyRun:
    """One model, trained with one signal.

    Args:
        model: the task's arm.
        data_set: name of the data set.
        dim: inputs.
        seed: of data and weights.
        signal: what trained it.
        finite: whether the weights stayed finite.
        has_minimum: whether the loss has a minimum at finite weights.
        iteration: when it was measured.
        loss: mean loss.
        distance: relative distance of the end-to-end weights to the minimum.
        to_rest: to the point where a linear synthesizer should leave a linear model.
        ratio: epsilon K / |gradient|; Proposition 2 holds below 1.
        relative_error: error of the update below the interface over the gradient.
    """

    model: str
    data_set: str
    dim: int
    seed: int
    signal: str
    finite: bool
    has_minimum: bool
    iteration: Sequence[int]
    loss: Column
    distance: Column
    to_rest: Column
    ratio: Column
    relative_error: Column

    @property
    def outcome(self) -> Outcome:
        """How it ended.

        "diverged": the weights became infinite. Where there is a minimum, "reached": its distance
        is below `REACHED`; else "moving" where it fell over the last tenth of the run, by more than
        a millionth of itself, and "elsewhere" where it did not. Where there is none, "falls": the
        loss is below a tenth of what it was; else "elsewhere".
        """
        if not self.finite:
            return "diverged"
        if not self.has_minimum:
            first, last = self.loss[0], self.loss[-1]
            fallen = first is not None and last is not None and last < _FALLEN * first
            return "falls" if fallen else "elsewhere"
        pairs = list(zip(self.iteration, self.distance, strict=True))
        last = pairs[-1][1]
        before = [d for at, d in pairs if at <= _STRETCH * pairs[-1][0]][-1]
        if last is None or before is None:
            return "diverged"
        if last < REACHED:
            return "reached"
        return "moving" if last < before * (1 - _AT_REST) else "elsewhere"

    @property
    def succeeded(self) -> bool:
        """Whether it did what backprop does in the end."""
        return self.outcome in ("reached", "falls")

    def condition(self, *, strict: bool = True) -> list[bool]:
        """Return whether Proposition 2's condition held, moment by moment.

        Moments at which the model is at the minimum but for rounding are left out.

        Args:
            strict: the condition itself; else whether the update's own relative error is below 1,
                which it implies.
        """
        column = self.ratio if strict else self.relative_error
        return [
            value is not None and value < 1
            for value, distance in zip(column, self.distance, strict=True)
            if distance is None or distance > ROUNDING
        ]

    @property
    def tracks(self) -> bool:
        """Whether the condition held at every moment of the last half, and there were some."""
        held = last_half(self.condition())
        return self.signal != "backprop" and self.finite and bool(held) and all(held)

    @property
    def converges(self) -> bool:
        """Whether the last half brought it nearer to the minimum, or to a loss of zero."""
        column = self.distance if self.has_minimum else self.loss
        middle, last = column[len(column) // 2], column[-1]
        return self.succeeded or (middle is not None and last is not None and last < middle)


def last_half(moments: Sequence[bool]) -> Sequence[bool]:
    """Return the last half of some moments."""
    return moments[len(moments) // 2 :]


def read_runs(records: Sequence[RunRecord]) -> list[ToyRun]:
    """Return every run that records of the study tell of, in their order."""
    runs = list[ToyRun]()
    for record in records:
        problem = next(iter(record.of_kind("problem")), None)
        if problem is None:
            continue
        columns = ("iteration", "loss", "distance", "to_rest", "ratio", "relative_error")
        runs += [
            ToyRun(
                model=record.arm,
                data_set=record.config["data_set"],
                dim=record.config["dim"],
                seed=record.seed,
                signal=event["signal"],
                finite=event["finite"],
                has_minimum=problem["has_minimum"],
                **{name: event[name] for name in columns},
            )
            for event in record.of_kind("trained")
        ]
    return runs
