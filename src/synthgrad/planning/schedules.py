"""Who does what in which order: each method as one fixed program a stage.

A program is a list of operations. What an operation waits for and what it sends is the same
wherever it stands, so a program and the times decide everything, and two simulators can run it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, get_args

import numpy as np

from synthgrad.errors import ConfigError
from synthgrad.planning.measurements import StageTimes

Program = np.ndarray[Any, np.dtype[np.int8]]
Method = Literal[
    "backprop", "ddp", "gpipe", "1f1b", "zero-bubble", "stashing", "local", "dni", "dni-free"
]
METHODS: tuple[Method, ...] = get_args(Method)
LABELS: dict[Method, str] = {
    "backprop": "backprop in one process",
    "ddp": "data parallel (DDP)",
    "gpipe": "GPipe",
    "1f1b": "1F1B",
    "zero-bubble": "zero bubble (ZB-H1)",
    "stashing": "weight stashing",
    "local": "local losses",
    "dni": "DNI, ordered",
    "dni-free": "DNI, free",
}

PIPELINES_THAT_WAIT: tuple[Method, ...] = ("gpipe", "1f1b", "zero-bubble")
"""Those that cut a batch into micro-batches and wait for its gradients."""


class Op(IntEnum):
    """One operation of a stage."""

    FORWARD = 0
    BACKWARD = 1  # at the gradient from above
    BACKWARD_INPUT = 2
    BACKWARD_WEIGHT = 3
    UPDATE = 4  # ends a batch
    EMIT = 5  # the prediction, and the backward at the signal
    FIT = 6  # of the synthesizer on top
    LOCAL = 7  # a local loss and the backward at it
    TAKEN = 8  # tells the stage below that its batch has been taken in
    ROOM = 9  # waits until the stage above has told so


NUM_OPS = len(Op)


def _flags(*ops: Op) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.isin(np.arange(NUM_OPS), ops)


# Where there is a stage below or above; "from below" is an activation, the others go down.
TAKES_FROM_BELOW = _flags(Op.FORWARD)
TAKES_FROM_ABOVE = _flags(Op.BACKWARD, Op.BACKWARD_INPUT, Op.FIT, Op.ROOM)
SENDS_UP = _flags(Op.FORWARD)
SENDS_DOWN = _flags(Op.BACKWARD, Op.BACKWARD_INPUT, Op.EMIT, Op.TAKEN)
_OF_A_RUNTIME = (Op.FORWARD, Op.BACKWARD, Op.BACKWARD_INPUT)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A method with what can be chosen of it.

    Args:
        method: one of `METHODS`.
        num_microbatches: into how many a batch is cut; of the synchronous methods.
        max_in_flight: batches between a stage and the one above: handed up, and no target back. Of
            the others.

    Raises:
        ConfigError: there is no such method, or a number is below 1.
    """

    method: Method
    num_microbatches: int = 1
    max_in_flight: int = 4

    def __post_init__(self) -> None:
        """Check the values."""
        if self.method not in METHODS:
            raise ConfigError(f"method={self.method!r}: one of {', '.join(METHODS)}")
        if self.num_microbatches < 1 or self.max_in_flight < 1:
            raise ConfigError(
                f"num_microbatches={self.num_microbatches} and max_in_flight={self.max_in_flight} "
                "must be 1 or more"
            )
        if self.num_microbatches > 1 and self.method not in PIPELINES_THAT_WAIT:
            raise ConfigError(
                f"num_microbatches={self.num_microbatches}: {self.method} does not cut batches"
            )

    @property
    def is_synchronous(self) -> bool:
        """Whether it computes the numbers of backprop, batch by batch."""
        return self.method in ("backprop", "ddp", *PIPELINES_THAT_WAIT)

    @property
    def sends_gradients(self) -> bool:
        """Whether what comes down is as large as what goes up."""
        return self.method != "local"

    def program(self, stage: int, num_stages: int, num_batches: int) -> Program:
        """Return what a stage does, in order.

        Args:
            stage: which, from 0 at the bottom.
            num_stages: of how many.
            num_batches: how many it does it for.

        Raises:
            ConfigError: the method has no fixed order ("dni-free"), or no stages.
        """
        make = _PROGRAMS.get(self.method)
        if make is None:
            raise ConfigError(f"{self.method} has no fixed program for each stage")
        return np.array(make(self, num_stages - 1 - stage, stage, num_batches), dtype=np.int8)

    def same_program_from(self, stage: int, num_stages: int, num_batches: int) -> tuple[int, ...]:
        """Return a key: stages of equal keys have equal programs."""
        above = num_stages - 1 - stage
        m = self.num_microbatches
        match self.method:
            case "1f1b":
                return (min(m, above),)
            case "zero-bubble":
                return (min(m, above), min(m, stage))
            case "stashing":
                return (min(num_batches, above * (self.max_in_flight - 1)),)
            case _:
                return (min(above, 1), min(stage, 1))

    def seconds(self, op: Op, stage: StageTimes) -> float:
        """Return what an operation takes, messages aside."""
        if self.method in PIPELINES_THAT_WAIT and op in _OF_A_RUNTIME:
            return self._work_s(op, stage) + stage.runtime_s
        return self._work_s(op, stage)

    def _work_s(self, op: Op, stage: StageTimes) -> float:
        m = self.num_microbatches
        match op:
            case Op.FORWARD:
                return stage.part(stage.forward_s, m)
            case Op.BACKWARD:
                return stage.part(stage.backward_s, m)
            case Op.BACKWARD_INPUT:
                return stage.part(stage.backward_input_s, m)
            case Op.BACKWARD_WEIGHT:
                return stage.part(stage.backward_weight_s, m)
            case Op.UPDATE:
                return stage.update_s
            case Op.EMIT:
                return stage.predict_s + stage.backward_s
            case Op.FIT:
                return stage.fit_s
            case Op.LOCAL:
                return stage.local_s + stage.backward_handing_nothing_down_s
            case _:
                return 0.0


def _gpipe(schedule: Schedule, above: int, stage: int, num_batches: int) -> list[Op]:
    m = schedule.num_microbatches
    return ([Op.FORWARD] * m + [Op.BACKWARD] * m + [Op.UPDATE]) * num_batches


def _1f1b(schedule: Schedule, above: int, stage: int, num_batches: int) -> list[Op]:
    m = schedule.num_microbatches
    ahead = min(m, above)
    steady = [Op.FORWARD, Op.BACKWARD] * (m - ahead)
    one = [Op.FORWARD] * ahead + steady + [Op.BACKWARD] * ahead + [Op.UPDATE]
    return one * num_batches


def _zero_bubble(schedule: Schedule, above: int, stage: int, num_batches: int) -> list[Op]:
    """ZB-H1 of Qi et al. 2023: the gradients of parameters wait, the longer the higher the stage.

    So they fill what would be a bubble, and no more activations are kept than by 1F1B.
    """
    m = schedule.num_microbatches
    ahead, behind = min(m, above), min(m, stage)
    one = [Op.FORWARD] * ahead
    for index in range(m):
        one += [Op.FORWARD] if index + ahead < m else []
        one += [Op.BACKWARD_INPUT]
        one += [Op.BACKWARD_WEIGHT] if index >= behind else []
    return (one + [Op.BACKWARD_WEIGHT] * behind + [Op.UPDATE]) * num_batches


def _stashing(schedule: Schedule, above: int, stage: int, num_batches: int) -> list[Op]:
    """PipeDream's 1F1B without an end; max_in_flight=2 is its own number of batches in flight."""
    ahead = min(num_batches, above * (schedule.max_in_flight - 1))
    steady = [Op.FORWARD, Op.BACKWARD, Op.UPDATE] * (num_batches - ahead)
    return [Op.FORWARD] * ahead + steady + [Op.BACKWARD, Op.UPDATE] * ahead


def _dni(schedule: Schedule, above: int, stage: int, num_batches: int) -> list[Op]:
    one = [Op.FORWARD, Op.EMIT, Op.UPDATE]
    return _bounded(one, Op.FIT, schedule, above, num_batches)


def _local(schedule: Schedule, above: int, stage: int, num_batches: int) -> list[Op]:
    one = [Op.FORWARD, *([Op.TAKEN] if stage else []), Op.LOCAL, Op.UPDATE]
    return _bounded(one, Op.ROOM, schedule, above, num_batches)


def _bounded(
    one: list[Op], answer: Op, schedule: Schedule, above: int, num_batches: int
) -> list[Op]:
    """Before a batch more than `max_in_flight` goes up, wait for the answer to the oldest."""
    if not above:
        return one * num_batches
    free = min(schedule.max_in_flight, num_batches)
    return one * free + [answer, *one] * (num_batches - free) + [answer] * free


_PROGRAMS: dict[Method, Callable[[Schedule, int, int, int], list[Op]]] = {
    "gpipe": _gpipe,
    "1f1b": _1f1b,
    "zero-bubble": _zero_bubble,
    "stashing": _stashing,
    "local": _local,
    "dni": _dni,
}
