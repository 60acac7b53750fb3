"""A recurrent state as one matrix: what a synthesizer sees of nested tensors, and back."""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from synthgrad.errors import RecurrentStateError
from synthgrad.trees import Tree, float_tensors


@dataclass(frozen=True)
class Layout:
    """How a state is nested, and the shapes of its tensors without their batch axis.

    Attributes:
        skeleton: of nested types and shapes; two states fit each other if it is the same.
        batch_axis: of every tensor in the state.
        batch_size: number of examples.
        shapes: of the floating-point tensors, without the batch axis.
    """

    skeleton: Any
    batch_axis: int
    batch_size: int
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, state: Tree, batch_axis: int) -> "Layout":
        """Read a state's layout.

        Raises:
            RecurrentStateError: it holds no floating-point tensor, one has no batch axis, or they
                disagree about the batch size.
        """
        tensors = float_tensors(state)
        if not tensors:
            raise RecurrentStateError(
                f"a state holds floating-point tensors, in tuples, lists or dicts; this one is "
                f"{skeleton(state)!r}"
            )
        sizes = {t.shape[batch_axis] if t.dim() > batch_axis else None for t in tensors}
        if len(sizes) > 1 or None in sizes:
            raise RecurrentStateError(
                f"every tensor in a state has the batch on axis {batch_axis}; the shapes are "
                + ", ".join(str(tuple(t.shape)) for t in tensors)
            )
        shapes = tuple(t.movedim(batch_axis, 0).shape[1:] for t in tensors)
        return cls(skeleton(state), batch_axis, tensors[0].shape[batch_axis], shapes)

    @property
    def size(self) -> int:
        """Numbers in the state of one example."""
        return sum(shape.numel() for shape in self.shapes)

    def check(self, other: "Layout") -> None:
        """Refuse a state that is nested otherwise, or has other shapes.

        Raises:
            RecurrentStateError: it does.
        """
        if other.skeleton != self.skeleton or other.batch_size != self.batch_size:
            raise RecurrentStateError(
                f"the state changed from {self} to {other}: a core returns a state nested like the "
                "one that it was given, of the same shapes and types, and the batch stays the same "
                "from chunk to chunk"
            )

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """Join the floating-point tensors of a state into one matrix [batch, size]."""
        rows = [t.movedim(self.batch_axis, 0).reshape(self.batch_size, -1) for t in tensors]
        wide = reduce(torch.promote_types, (t.dtype for t in rows))
        return torch.cat([t.to(wide) for t in rows], dim=1)

    def split(self, flat: Tensor) -> list[Tensor]:
        """Undo `flat`, for a matrix [..., batch, size]: tensors [..., and a state's shapes]."""
        lead = flat.dim() - 2
        parts = flat.split([shape.numel() for shape in self.shapes], dim=-1)
        return [
            part.reshape(*flat.shape[:-1], *shape).movedim(lead, lead + self.batch_axis)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def choose(self, rows: Tensor, ours: Tree, theirs: Tree) -> list[Tensor]:
        """Take the marked rows [batch] of one state's tensors, and the others of another's."""
        return [
            torch.where(self.along(rows, a), a, b.to(a))
            for a, b in zip(float_tensors(ours), float_tensors(theirs), strict=True)
        ]

    def along(self, rows: Tensor, tensor: Tensor) -> Tensor:
        """Shape [batch] values so that they broadcast along a state tensor's batch axis."""
        shape = [1] * tensor.dim()
        shape[self.batch_axis] = -1
        return rows.view(shape)

    def __str__(self) -> str:
        return f"{self.skeleton} for {self.batch_size} examples"


def skeleton(tree: Tree) -> Any:
    """Return how a state is nested: names of types, keys, shapes without the batch; no tensors."""
    if isinstance(tree, Tensor):
        return f"{str(tree.dtype).removeprefix('torch.')}{list(tree.shape)}"
    if isinstance(tree, MutableMapping):
        return {key: skeleton(value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        parts = [skeleton(value) for value in tree]
        return tuple(parts) if isinstance(tree, tuple) else parts
    return type(tree).__name__
