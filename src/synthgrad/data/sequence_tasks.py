"""Copy and repeat copy: generated sequences whose answers lie far behind their questions.

How far is a number that we choose, so these tasks measure how much time a learning method spans.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from synthgrad.errors import ConfigError

REPEAT_SCALE = 0.1
"""Times the number of repeats is what its channel shows: 10 repeats, the most in Graves et al.
2014, are shown as 1, and a number means the same throughout a curriculum."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceTask:
    """One batch of sequences, all of the same length, and what a model should answer.

    Attributes:
        inputs: float32, shape (time, batch, num_inputs).
        targets: float32 zeros and ones, shape (time, batch, num_outputs); zero where no answer is
            asked for.
        mask: bool, shape (time,): the steps whose outputs count.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor

    @property
    def num_steps(self) -> int:
        """Steps of a sequence, question and answer together."""
        return len(self.mask)

    @property
    def num_counted(self) -> int:
        """Steps whose outputs count."""
        return int(self.mask.sum())

    def ahead(self, start: int, number: int) -> Tensor:
        """Return what is asked in some steps to come, a row of features for each example.

        A condition for a synthesizer; the model itself must not see it.

        Args:
            start: The first of the steps; may lie beyond the end.
            number: Steps; those beyond the end ask nothing.

        Returns:
            Shape (batch, number * (num_outputs + 1)): step by step the answers as -1 and 1, or
            zeros where none is asked for, and whether one is.
        """
        asked = self.mask[start : start + number].to(self.targets)[:, None, None]
        signs = (2 * self.targets[start : start + number] - 1) * asked
        told = torch.cat([signs, asked.expand(-1, signs.shape[1], -1)], dim=-1)
        return F.pad(told, (0, 0, 0, 0, 0, number - len(told))).transpose(0, 1).flatten(1)

    def to(self, device: torch.device | str) -> SequenceTask:
        """Return the batch on `device`."""
        return SequenceTask(
            inputs=self.inputs.to(device),
            targets=self.targets.to(device),
            mask=self.mask.to(device),
        )


def copy_task(
    batch_size: int, length: int, num_bits: int, generator: torch.Generator
) -> SequenceTask:
    """Make a batch of the copy task: read N random patterns, then write them in the same order.

    Math:
        Steps 0 .. N-1 show the patterns in channels 0 .. num_bits-1; step N shows a one in channel
        num_bits, the delimiter; steps N+1 .. 2N show nothing, and there the outputs should be the
        patterns. Those last N steps count, in all num_bits outputs. The time from a pattern to its
        answer is N + 1 steps for every pattern.

    Args:
        batch_size: Sequences.
        length: N, the patterns of a sequence.
        num_bits: Random bits of a pattern.
        generator: Draws the patterns, and decides the device.

    Returns:
        Inputs of shape (2N + 1, batch, num_bits + 1), targets of shape (2N + 1, batch, num_bits).

    Raises:
        ConfigError: A number is below 1.

    Example:
        >>> import torch
        >>> from synthgrad.data import copy_task
        >>> task = copy_task(4, length=2, num_bits=3, generator=torch.Generator().manual_seed(0))
        >>> task.inputs.shape, task.mask.tolist()
        (torch.Size([5, 4, 4]), [False, False, False, True, True])
        >>> torch.equal(task.targets[3:], task.inputs[:2, :, :3])
        True

    Source:
        Graves et al. 2014, "Neural Turing Machines", section 4.1; used by Jaderberg et al. 2017.
    """
    _check_sizes(batch_size=batch_size, length=length, num_bits=num_bits)
    patterns = _draw(length, batch_size, num_bits, generator)
    inputs = patterns.new_zeros(2 * length + 1, batch_size, num_bits + 1)
    inputs[:length, :, :num_bits] = patterns
    inputs[length, :, num_bits] = 1
    targets = patterns.new_zeros(2 * length + 1, batch_size, num_bits)
    targets[length + 1 :] = patterns
    return SequenceTask(inputs=inputs, targets=targets, mask=_last(length, inputs))


def repeat_copy_task(
    batch_size: int, length: int, repeats: int, num_bits: int, generator: torch.Generator
) -> SequenceTask:
    """Make a batch of repeat copy: read N patterns and a number R, write the patterns R times, end.

    Math:
        Step 0 shows a one in channel num_bits, the start; steps 1 .. N show the patterns in
        channels 0 .. num_bits-1; step N+1 shows `REPEAT_SCALE` * R in channel num_bits + 1; the
        N*R + 1 steps after that show nothing. There the outputs should be the patterns, R times,
        and in the very last step a one in output num_bits, the end marker, with all other outputs
        zero. Those N*R + 1 steps count, in all num_bits + 1 outputs: a model must also stay off
        the end marker until it is due.

    Args:
        batch_size: Sequences.
        length: N, the patterns of a sequence.
        repeats: R, how often they are to be written.
        num_bits: Random bits of a pattern.
        generator: Draws the patterns, and decides the device.

    Returns:
        Inputs of shape ((R + 1) N + 3, batch, num_bits + 2), targets of shape ((R + 1) N + 3,
        batch, num_bits + 1).

    Raises:
        ConfigError: A number is below 1.

    Example:
        >>> import torch
        >>> from synthgrad.data import repeat_copy_task
        >>> generator = torch.Generator().manual_seed(0)
        >>> task = repeat_copy_task(4, length=2, repeats=3, num_bits=5, generator=generator)
        >>> task.inputs.shape, task.targets.shape, task.num_counted
        (torch.Size([11, 4, 7]), torch.Size([11, 4, 6]), 7)

    Source:
        Graves et al. 2014, section 4.2. They normalize R over its range of 1 to 10; a curriculum
        has no such range, so R is scaled by a constant. The steps are laid out as in the public
        code of Pemberton & Costa 2024.
    """
    _check_sizes(batch_size=batch_size, length=length, repeats=repeats, num_bits=num_bits)
    patterns = _draw(length, batch_size, num_bits, generator)
    num_steps = (repeats + 1) * length + 3
    inputs = patterns.new_zeros(num_steps, batch_size, num_bits + 2)
    inputs[0, :, num_bits] = 1
    inputs[1 : length + 1, :, :num_bits] = patterns
    inputs[length + 1, :, num_bits + 1] = REPEAT_SCALE * repeats
    targets = patterns.new_zeros(num_steps, batch_size, num_bits + 1)
    targets[length + 2 : -1, :, :num_bits] = patterns.repeat(repeats, 1, 1)
    targets[-1, :, num_bits] = 1
    mask = _last(length * repeats + 1, inputs)
    return SequenceTask(inputs=inputs, targets=targets, mask=mask)


def answer_bits(
    logits: Tensor, targets: Tensor, mask: Tensor, *, num_counted: int | None = None
) -> Tensor:
    """Return the error of the answers in bits, per output bit: the loss, and the curriculum's test.

    A model that knows nothing has 1 bit, a perfect one 0. With `num_counted` of the whole sequence,
    the errors of its chunks add up to the error of the sequence, and a chunk without an answer
    has zero, still part of the graph.

    Math:
        1 / (S B O) * sum over the counted steps, the batch and the outputs of
        -log2 p(target), with p the sigmoid of the logit, S = `num_counted`, B the batch size and
        O the number of outputs.

    Args:
        logits: Outputs before the sigmoid, shape (time, batch, num_outputs).
        targets: Zeros and ones of the same shape.
        mask: bool, shape (time,): the steps that count.
        num_counted: Counted steps to average over; those of `mask` by default.

    Returns:
        The error in bits, a scalar. Times ln 2 it is the mean binary cross entropy in nats.

    Raises:
        ConfigError: The shapes do not belong together.

    Example:
        >>> import torch
        >>> from synthgrad.data import answer_bits, copy_task
        >>> task = copy_task(4, length=2, num_bits=3, generator=torch.Generator().manual_seed(0))
        >>> bits = answer_bits(torch.zeros_like(task.targets), task.targets, task.mask)
        >>> f"{bits.item():.3f}"
        '1.000'

    Source:
        Jaderberg et al. 2017 advance a curriculum when the error is below 0.15 bits, without
        saying over what it is averaged. We read: over the bits of the answer, the end marker's
        among them, as the public code of Pemberton & Costa 2024 (neuralml/bp_lambda) does.
    """
    if logits.shape != targets.shape or mask.shape != targets.shape[:1]:
        raise ConfigError(
            f"logits have the shape {tuple(logits.shape)}, targets {tuple(targets.shape)} and the "
            f"mask {tuple(mask.shape)}; they must be (time, batch, num_outputs), twice, and (time,)"
        )
    counted = logits[mask]
    nats = F.binary_cross_entropy_with_logits(counted, targets[mask], reduction="sum")
    num_steps = len(counted) if num_counted is None else num_counted
    num_bits = max(num_steps, 1) * math.prod(targets.shape[1:])
    return nats / (num_bits * math.log(2))


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{name} is {size}; it must be at least 1")


def _draw(length: int, batch_size: int, num_bits: int, generator: torch.Generator) -> Tensor:
    shape = (length, batch_size, num_bits)
    return torch.randint(2, shape, generator=generator, device=generator.device).float()


def _last(number: int, inputs: Tensor) -> Tensor:
    steps = torch.arange(len(inputs), device=inputs.device)
    return steps >= len(inputs) - number
