"""A long sequence, cut into chunks of the horizon's length."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from synthgrad.errors import InterfaceError


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """One piece of a sequence.

    Attributes:
        inputs: of its steps; time is on the axis where the whole sequence had it.
        steps: which steps of the whole: `targets[chunk.steps]` where time is the first axis.
        mask: bool, shaped like the first two axes of `inputs`: the steps that belong to a
            sequence. None if all do.
        ends: the sequence ends within the chunk: for all examples at once, or [batch] bool.
    """

    inputs: Tensor
    steps: slice
    mask: Tensor | None
    ends: bool | Tensor


def cut(
    inputs: Tensor, horizon: int, lengths: Tensor | None = None, *, time_axis: int = 0
) -> Iterator[Chunk]:
    """Yield a batch of whole sequences in chunks.

    Args:
        inputs: [time, batch, ...], or batch first.
        horizon: steps of a chunk; the last may have fewer.
        lengths: of the sequences [batch], where they are padded to one length.
        time_axis: of the inputs, 0 or 1.

    Raises:
        InterfaceError: the lengths do not suit the inputs, or there is no step at all.
    """
    num_steps, batch_size = inputs.shape[time_axis], inputs.shape[1 - time_axis]
    if not num_steps:
        raise InterfaceError(f"inputs of shape {tuple(inputs.shape)} have no step to go through")
    if lengths is not None:
        if lengths.shape != (batch_size,) or lengths.is_floating_point():
            raise InterfaceError(
                f"lengths are whole numbers of shape ({batch_size},), one a sequence, not "
                f"{lengths.dtype} of shape {tuple(lengths.shape)}"
            )
        if int(lengths.min()) < 1 or int(lengths.max()) > num_steps:
            raise InterfaceError(
                f"lengths go from {int(lengths.min())} to {int(lengths.max())}; the inputs have "
                f"{num_steps} steps, and a sequence has at least one"
            )
        lengths = lengths.to(inputs.device)
    for start in range(0, num_steps, horizon):
        stop = min(start + horizon, num_steps)
        part = inputs.narrow(time_axis, start, stop - start)
        if lengths is None:
            yield Chunk(inputs=part, steps=slice(start, stop), mask=None, ends=stop == num_steps)
            continue
        mask = torch.arange(start, stop, device=inputs.device)[:, None] < lengths
        ends = (lengths > start) & (lengths <= stop)
        yield Chunk(
            inputs=part,
            steps=slice(start, stop),
            mask=mask.movedim(0, time_axis),
            ends=ends,
        )
