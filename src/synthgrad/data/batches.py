"""Random mini-batches without end, whose order follows from a seed alone and can be resumed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthgrad.data.dataset import Split
from synthgrad.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """A place in a stream of batches; two integers, so that a checkpoint can hold it.

    Attributes:
        epoch: Passes over the data that are finished.
        position: Examples of the running pass that have been handed out.
    """

    epoch: int = 0
    position: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.epoch < 0 or self.position < 0:
            raise ConfigError(f"epoch and position must not be negative: {self}")


class Batches:
    """An endless iterator of shuffled mini-batches of a split.

    Every epoch is a permutation of its own, a function of `(seed, epoch)` alone: so a stream that
    is resumed at a cursor hands out exactly the batches that the uninterrupted one would have,
    without replaying what came before. All batches are of the same size; the examples that do not
    fill a last batch are left out of that epoch, others in each.

    Args:
        split: Where the examples come from; batches are made on its device.
        batch_size: Examples in a batch.
        seed: Decides the order; not negative.
        cursor: Where to begin.

    Raises:
        ConfigError: The batch is empty or larger than the split, the seed is negative, or the
            cursor lies outside the split.

    Example:
        >>> import torch
        >>> from synthgrad.data import Batches, Split
        >>> pixels = torch.zeros(6, 1, 2, 2, dtype=torch.uint8)
        >>> batches = Batches(Split(pixels=pixels, labels=torch.arange(6)), batch_size=2, seed=0)
        >>> inputs, labels = next(batches)
        >>> inputs.shape, batches.cursor
        (torch.Size([2, 1, 2, 2]), Cursor(epoch=0, position=2))
    """

    def __init__(
        self, split: Split, *, batch_size: int, seed: int, cursor: Cursor | None = None
    ) -> None:
        """Shuffle the epoch that the cursor lies in."""
        if not 1 <= batch_size <= len(split):
            raise ConfigError(
                f"batch_size is {batch_size}; it must be from 1 to the {len(split)} examples there"
            )
        if seed < 0:
            raise ConfigError(f"seed is {seed}; it must not be negative")
        cursor = cursor or Cursor()
        if cursor.position > len(split):
            raise ConfigError(f"{cursor} lies beyond the {len(split)} examples of the split")
        self._split = split
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = cursor.epoch
        self._position = cursor.position
        self._order = self._shuffle()

    @property
    def cursor(self) -> Cursor:
        """Where the next batch begins; give it to a new `Batches` to go on from here."""
        return Cursor(epoch=self._epoch, position=self._position)

    def __iter__(self) -> Batches:
        """Return the iterator itself."""
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        """Return the next inputs and labels, as `Split.take` does; never stops."""
        if self._position + self._batch_size > len(self._split):
            self._epoch += 1
            self._position = 0
            self._order = self._shuffle()
        stop = self._position + self._batch_size
        index = self._order[self._position : stop]
        self._position = stop
        return self._split.take(index)

    def _shuffle(self) -> Tensor:
        # NumPy hashes the pair into one state, so that epochs and seeds do not share an order.
        generator = np.random.default_rng((self._seed, self._epoch))
        order = torch.from_numpy(generator.permutation(len(self._split)))
        return order.to(self._split.labels.device)
