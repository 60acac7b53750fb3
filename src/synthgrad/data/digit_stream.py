"""Random digits without end and counts over them on two clocks: the task of two networks.

A fast network counts over a few digits; a slow one, which sees only what the fast one tells it,
counts over many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthgrad.data.dataset import Split
from synthgrad.errors import ConfigError


@dataclass(frozen=True, kw_only=True, eq=False)
class DigitStep:
    """One step of a stream of digits: a digit a row, and the counts that are due.

    Attributes:
        images: float32 in [0, 1], shape (batch, channels, height, width).
        labels: int64, shape (batch,).
        num_odd: Odd digits among the last T, int64, shape (batch,), from 0 to T; None but at every
            T-th step.
        num_threes: Threes among the last T * T, int64, shape (batch,), from 0 to T * T; None but
            at every T * T-th step.
    """

    images: Tensor
    labels: Tensor
    num_odd: Tensor | None
    num_threes: Tensor | None


class DigitStream:
    """An endless iterator of random digits with the targets of the two-clock task.

    Every row draws its digits by itself, with replacement. The counts do not overlap: each is over
    the digits since the one before. They are classes, T + 1 for the fast network and T * T + 1
    for the slow one, and not equally common: compare a model with one that always answers with the
    commonest. The digits of T * T steps are a function of (seed, block), so a stream is resumed
    without replaying it.

    Args:
        split: Where the digits come from, such as `load("mnist").train`; its device is used.
        batch_size: Rows.
        period: T, the fast clock's steps; the slow one's are T * T.
        seed: Decides the digits; not negative.

    Attributes:
        step: Steps that have been handed out.

    Raises:
        ConfigError: A size is below 1, the seed is negative, or the split is empty.

    Example:
        >>> from itertools import islice
        >>> import torch
        >>> from synthgrad.data import DigitStream, Split
        >>> digits = Split(pixels=torch.zeros(1, 1, 2, 2, dtype=torch.uint8),
        ...                labels=torch.tensor([3]))
        >>> steps = list(islice(DigitStream(digits, batch_size=1, period=2, seed=0), 4))
        >>> [None if s.num_odd is None else s.num_odd.item() for s in steps]
        [None, 2, None, 2]
        >>> steps[3].num_threes
        tensor([4])

    Source:
        Jaderberg et al. 2017, the experiment with two networks that tick at different rates.
    """

    def __init__(self, split: Split, *, batch_size: int, period: int, seed: int) -> None:
        """Begin at step 0."""
        if batch_size < 1 or period < 1:
            raise ConfigError(
                f"batch_size is {batch_size} and period is {period}; both must be at least 1"
            )
        if seed < 0:
            raise ConfigError(f"seed is {seed}; it must not be negative")
        if len(split) == 0:
            raise ConfigError("the split is empty; digits are drawn from it, so it needs some")
        self._split = split
        self._layout = {"batch_size": batch_size, "period": period, "seed": seed}
        self._period = period
        self.step = 0
        self._index = self._draw(0)

    def __iter__(self) -> DigitStream:
        """Return the iterator itself."""
        return self

    def __next__(self) -> DigitStep:
        """Return the next step; never stops."""
        block, place = divmod(self.step, self._period**2)
        if place == 0:
            self._index = self._draw(block)
        self.step += 1
        past = self._split.labels[self._index[: place + 1]]
        images, labels = self._split.take(self._index[place])
        tick, long_tick = self.step % self._period == 0, place + 1 == self._period**2
        return DigitStep(
            images=images,
            labels=labels,
            num_odd=(past[-self._period :] % 2).sum(0) if tick else None,
            num_threes=(past == 3).sum(0) if long_tick else None,
        )

    def state_dict(self) -> dict[str, int]:
        """Return the place in the stream, for a checkpoint."""
        return {"step": self.step, **self._layout}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            ConfigError: The state is of a stream with another seed, batch size or period.
        """
        given = {name: state[name] for name in self._layout}
        if given != self._layout:
            raise ConfigError(f"the state is of a stream with {given}, this one has {self._layout}")
        self.step = state["step"]
        self._index = self._draw(self.step // self._period**2)

    def _draw(self, block: int) -> Tensor:
        """Return which digits the block's steps show, int64, shape (period * period, batch)."""
        # NumPy hashes the pair into one state, so that blocks and seeds do not share digits.
        generator = np.random.default_rng((self._layout["seed"], block))
        shape = (self._period**2, self._layout["batch_size"])
        index = torch.from_numpy(generator.integers(len(self._split), size=shape))
        return index.to(self._split.labels.device)
