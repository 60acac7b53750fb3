"""The papers' curriculum on copy and repeat copy: a longer sequence as soon as one is mastered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from synthgrad.data.sequence_tasks import SequenceTask, copy_task, repeat_copy_task
from synthgrad.errors import ConfigError

TaskName = Literal["copy", "repeat-copy"]

THRESHOLD_BITS = 0.15
"""The error below which the papers go on to a longer sequence, in bits."""


def modelled_length(task: TaskName, length: int, repeats: int) -> int:
    """Return what the papers' tables count of a sequence of N = `length` and R = `repeats`.

    The papers do not say what they count; the numbers in the table of Jaderberg et al. 2017 do.
    Repeat copy has 5, 7, 19, 23, 33, 39, 59 and 67 there, and all eight are values of
    (R + 1) N + 3, the steps of a whole sequence of `repeat_copy_task`, when N and R grow in turn
    from 1 and N first: 5, 7, 9, 12, 15, 19, 23, 28, 33, 39, 45, 52, 59, 67. N R has not those
    values, nor has the order with R first. The public code of Pemberton & Costa 2024 has the same
    steps and the same order. Copy has even and odd numbers, which the steps of whole
    sequences, 2N and a constant, cannot all be; so we count N there.

    Args:
        task: "copy" or "repeat-copy".
        length: N.
        repeats: R; without meaning for copy.

    Returns:
        N for copy, (R + 1) N + 3 for repeat copy.

    Example:
        >>> from synthgrad.data import modelled_length
        >>> modelled_length("copy", 7, 1), modelled_length("repeat-copy", 8, 7)
        (7, 67)
    """
    return length if task == "copy" else (repeats + 1) * length + 3


class Curriculum:
    """Which sequences to train on now, and how far training has come.

    Copy begins with N = 1, and N grows by one; repeat copy begins with N = R = 1, and N and R grow
    by one in turn, N first. They grow when `observe` is told an error below the threshold. Tell it
    the error of a whole sequence on patterns that were not trained on: a fresh batch, before the
    update that uses it, serves, as patterns are drawn anew for every batch.

    Args:
        task: "copy" or "repeat-copy".
        threshold_bits: The error to get below, in bits per output bit (see `answer_bits`).

    Attributes:
        task: As given.
        threshold_bits: As given.
        length: N of the sequences to train on now.
        repeats: R of the sequences to train on now; 1 for copy.
        modelled: The longest sequence that was mastered, as `modelled_length` counts; 0 before the
            first. (Whether the paper counts the last mastered or the one tried last it does not
            say; we count the mastered.)

    Raises:
        ConfigError: There is no such task, or the threshold is not above zero.

    Example:
        >>> import torch
        >>> from synthgrad.data import Curriculum
        >>> curriculum = Curriculum("repeat-copy")
        >>> task = curriculum.sample(8, num_bits=2, generator=torch.Generator().manual_seed(0))
        >>> task.num_steps, curriculum.observe(0.8), curriculum.observe(0.1)
        (5, False, True)
        >>> curriculum.length, curriculum.repeats, curriculum.modelled
        (2, 1, 5)
    """

    def __init__(self, task: TaskName, *, threshold_bits: float = THRESHOLD_BITS) -> None:
        """Begin with the shortest sequence."""
        if task not in ("copy", "repeat-copy"):
            raise ConfigError(f"there is no task {task!r}; the names are 'copy', 'repeat-copy'")
        if not threshold_bits > 0:
            raise ConfigError(f"threshold_bits is {threshold_bits}; it must be above 0")
        self.task: TaskName = task
        self.threshold_bits = threshold_bits
        self.length = 1
        self.repeats = 1
        self.modelled = 0

    def sample(self, batch_size: int, num_bits: int, generator: torch.Generator) -> SequenceTask:
        """Return a fresh batch of the sequences to train on now.

        Args:
            batch_size: Sequences.
            num_bits: Random bits of a pattern.
            generator: Draws the patterns; keep its state in the checkpoint, too.
        """
        if self.task == "copy":
            return copy_task(batch_size, self.length, num_bits, generator)
        return repeat_copy_task(batch_size, self.length, self.repeats, num_bits, generator)

    def observe(self, bits: float) -> bool:
        """Take note of an error of whole sequences of `length` and `repeats`.

        Args:
            bits: The error, in bits per output bit.

        Returns:
            Whether the sequences have just become longer.
        """
        if not bits < self.threshold_bits:
            return False
        self.modelled = modelled_length(self.task, self.length, self.repeats)
        if self.task == "copy" or self.length == self.repeats:
            self.length += 1
        else:
            self.repeats += 1
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return where the curriculum stands, for a checkpoint."""
        return {
            "task": self.task,
            "length": self.length,
            "repeats": self.repeats,
            "modelled": self.modelled,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            ConfigError: The state is of the other task.
        """
        if state["task"] != self.task:
            raise ConfigError(
                f"the state is of a curriculum of {state['task']!r}, this one is of {self.task!r}"
            )
        self.length = state["length"]
        self.repeats = state["repeats"]
        self.modelled = state["modelled"]
