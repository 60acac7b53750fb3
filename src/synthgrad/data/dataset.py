"""The one in-memory form of every image data set, so that nothing downstream asks which it is.

Pixels stay bytes until a batch is made. That needs a quarter of the memory of floats, and it is
also quicker: gathering a random batch of bytes and scaling it costs less than gathering floats,
because the gathering is bound by memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUM_VALIDATION = 5_000
"""How many training examples are held out for validation: the last ones, as they lie on disk."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images and their labels, in memory, on one device.

    Attributes:
        pixels: uint8, shape (num_examples, channels, height, width).
        labels: int64, shape (num_examples,).
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.labels)

    @property
    def inputs(self) -> Tensor:
        """All inputs at once, float32 in [0, 1], shape (num_examples, channels, height, width)."""
        return self.pixels.to(torch.float32).div_(255)

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the examples at the positions in `index`, ready for a model.

        Args:
            index: int64, shape (batch,), on the split's device.

        Returns:
            Inputs, float32 in [0, 1], shape (batch, channels, height, width); labels, int64,
            shape (batch,).
        """
        inputs = self.pixels.index_select(0, index).to(torch.float32).div_(255)
        return inputs, self.labels.index_select(0, index)

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every example once, in the order on disk, for evaluation.

        Args:
            batch_size: Examples in a batch; the last batch may be smaller.

        Yields:
            Inputs and labels as `take` returns them.
        """
        for start in range(0, len(self), batch_size):
            part = slice(start, start + batch_size)
            yield self.pixels[part].to(torch.float32).div_(255), self.labels[part]

    def to(self, device: torch.device | str) -> Split:
        """Return the split on `device`; the same tensors where they already lie there."""
        return Split(pixels=self.pixels.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """An image classification data set: training, validation and test examples, in memory.

    The validation split is the last 5,000 of the training examples as they lie on disk. It does
    not depend on a random generator, so any other program can hold out the same ones.

    Attributes:
        name: What tables and records must call it, such as "CIFAR-10 (unverified copy)".
        train: The examples to train on.
        validation: The examples on which goals are met and choices are made.
        test: The examples that are read once, for the final number.
        num_classes: Labels are 0 to `num_classes` - 1.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input: (channels, height, width)."""
        return tuple(self.train.pixels.shape[1:])

    def to(self, device: torch.device | str) -> Dataset:
        """Return the data set with all its splits on `device`."""
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
        )


def build_dataset(
    name: str,
    *,
    train: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    test: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    num_classes: int,
) -> Dataset:
    """Make a data set of what a reader found, holding out the validation split.

    Args:
        name: What tables and records must call it.
        train: Pixels of shape (num_examples, channels, height, width) and labels of shape
            (num_examples,), validation examples last.
        test: The same for the test examples.
        num_classes: The number of classes.

    Returns:
        The data set, on the CPU.
    """
    pixels, labels = train
    return Dataset(
        name=name,
        train=_split(pixels[:-NUM_VALIDATION], labels[:-NUM_VALIDATION]),
        validation=_split(pixels[-NUM_VALIDATION:], labels[-NUM_VALIDATION:]),
        test=_split(*test),
        num_classes=num_classes,
    )


def _split(pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Split:
    # Both are copied: the arrays that come in are read-only views of a file's bytes.
    return Split(
        pixels=torch.from_numpy(pixels.copy()), labels=torch.from_numpy(labels.astype(np.int64))
    )
