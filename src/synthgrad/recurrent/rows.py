"""Which examples of a batch have more to come after a chunk, and which end in it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from synthgrad.errors import InterfaceError


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The rows of a batch at the end of a chunk.

    Attributes:
        more: [batch] bool: the sequence goes on after the chunk.
        ends: [batch] bool: it ends within the chunk. None where no row does. A row that is neither
            had ended before.
        all_end: no row goes on, as far as that is known without looking at the numbers.
    """

    more: Tensor
    ends: Tensor | None
    all_end: bool

    @classmethod
    def of(cls, inputs: Tensor, mask: Tensor | None, ends: bool | Tensor, time_axis: int) -> "Rows":
        """Read them from a mask and from what the user says of the end.

        Raises:
            InterfaceError: shapes or types do not suit the inputs, or a mask goes on after a gap.
        """
        batch_size = inputs.shape[1 - time_axis]
        everything = torch.ones(batch_size, dtype=torch.bool, device=inputs.device)
        if isinstance(ends, Tensor):
            check_rows("ends", ends, batch_size)
            ended = ends.to(inputs.device)
        else:
            ended = everything if ends else None
        all_end = ends is True
        if mask is None:
            more = everything if ended is None else ~ended
            return cls(more=more, ends=ended, all_end=all_end)
        real = _checked(mask, inputs).to(inputs.device).movedim(time_axis, 0)
        _check_no_gap(real)
        stops = ~real[-1] if ended is None else ~real[-1] | ended
        begun = real[0]
        return cls(more=begun & ~stops, ends=begun & stops, all_end=all_end)

    def with_more(self, values: Tensor) -> Tensor:
        """Return [batch, size] values, exactly zero in rows that do not go on."""
        return values if self.ends is None else values.masked_fill(~self.more[:, None], 0.0)


def check_rows(name: str, rows: Tensor, batch_size: int) -> None:
    """Refuse what does not mark rows of a batch.

    Raises:
        InterfaceError: it is not bool, or not of shape [batch].
    """
    if rows.dtype != torch.bool or rows.shape != (batch_size,):
        raise InterfaceError(
            f"{name} must be bool of shape ({batch_size},), one for each example, not {rows.dtype} "
            f"of shape {tuple(rows.shape)}"
        )


def _checked(mask: Tensor, inputs: Tensor) -> Tensor:
    if mask.dtype != torch.bool or mask.shape != inputs.shape[:2]:
        raise InterfaceError(
            f"a mask is bool, of the inputs' first two axes {tuple(inputs.shape[:2])}, not "
            f"{mask.dtype} of shape {tuple(mask.shape)}"
        )
    return mask


def _check_no_gap(real: Tensor) -> None:
    # On an accelerator it would have to be waited for.
    if real.device.type == "cpu" and bool((real[1:] & ~real[:-1]).any()):
        raise InterfaceError(
            "a mask is True up to a row's last step and False after it; one here goes on after a "
            "gap. Pad at the end, or give each sequence a row of its own"
        )
