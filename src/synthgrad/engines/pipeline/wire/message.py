"""One batch as one flat message: a header, then every tensor, each where the layout says.

One message instead of one a tensor, and of a size that both ends know, so that receives can be
posted ahead. The layout travels once; a batch smaller than it leaves a part of the message unused.
Nothing is ever unpickled: the layout is JSON, the rest is bytes of tensors.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from synthgrad.errors import EngineError
from synthgrad.trees import Tree

# A tensor that starts elsewhere than in one process may be summed in another order.
_ALIGNMENT = 64
_MAX_DIMS = 8
_SLOT = 1 + 2 * _MAX_DIMS  # number of dimensions (-1: no tensor), sizes, strides
_FIXED = 2  # kind, number of the batch
_DTYPES = {
    str(d): d
    for d in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
}


class Kind(IntEnum):
    """What a message is."""

    BATCH = 0
    NEW_LAYOUT = 1
    END = 2


def take_apart(tree: Tree) -> tuple[Any, list[Tensor]]:
    """Return the shape of a tree in terms of JSON, and its tensors in order.

    Raises:
        EngineError: something in it is no tensor, number, text, None, or list, tuple or dict of
            them.
    """
    tensors = list[Tensor]()
    return _spec(tree, tensors), tensors


def _spec(node: Any, tensors: list[Tensor]) -> Any:
    if isinstance(node, Tensor):
        tensors.append(node)
        return {"tensor": len(tensors) - 1}
    if node is None or isinstance(node, (bool, int, float, str)):
        return {"plain": node}
    if type(node) in (list, tuple):
        return {type(node).__name__: [_spec(each, tensors) for each in node]}
    if isinstance(node, dict) and all(isinstance(key, (int, str)) for key in node):
        return {"dict": [[key, _spec(value, tensors)] for key, value in node.items()]}
    raise EngineError(
        f"a {type(node).__name__} cannot be sent to another rank: an activation is made of "
        "tensors, numbers, texts and None, in lists, tuples and dicts."
    )


def put_together(spec: Any, tensors: Sequence[Tensor | None]) -> Tree:
    """Return the tree that `take_apart` took apart."""
    ((kind, value),) = spec.items()
    match kind:
        case "tensor":
            return tensors[value]
        case "list":
            return [put_together(each, tensors) for each in value]
        case "tuple":
            return tuple(put_together(each, tensors) for each in value)
        case "dict":
            return {key: put_together(each, tensors) for key, each in value}
        case _:
            return value


@dataclass(frozen=True)
class Slot:
    """The place of one tensor: of which dtype, and how many bytes at most."""

    dtype: str
    size_bytes: int


@dataclass(frozen=True)
class Layout:
    """Where everything lies in the messages of one lane.

    Attributes:
        spec: of the tree, without its tensors.
        slots: one a tensor.
    """

    spec: Any
    slots: tuple[Slot, ...]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each tensor begins, and where the last one ends; in bytes."""
        place, starts = 8 * (_FIXED + _SLOT * len(self.slots)), list[int]()
        for slot in self.slots:
            place = -(-place // _ALIGNMENT) * _ALIGNMENT
            starts.append(place)
            place += slot.size_bytes
        return (*starts, place)

    @property
    def size_bytes(self) -> int:
        """Of every message."""
        return self.starts[-1]

    @classmethod
    def of(
        cls, spec: Any, tensors: Sequence[Tensor | None], before: "Layout | None" = None
    ) -> "Layout":
        """Return one that fits the tensors, and what fitted the one before if it can be."""
        old = before.slots if before is not None and before.spec == spec else ()
        slots = list[Slot]()
        for tensor, other in itertools.zip_longest(tensors, old):
            if tensor is None:
                slots.append(other or Slot(str(torch.uint8), 0))
                continue
            if tensor.dim() > _MAX_DIMS or str(tensor.dtype) not in _DTYPES:
                raise EngineError(
                    f"a tensor of shape {tuple(tensor.shape)} and {tensor.dtype} cannot be sent to "
                    f"another rank: at most {_MAX_DIMS} dimensions, and one of the dtypes "
                    f"{', '.join(_DTYPES)}."
                )
            size = tensor.numel() * tensor.element_size()
            if other is not None and other.dtype == str(tensor.dtype):
                size = max(size, other.size_bytes)
            slots.append(Slot(str(tensor.dtype), size))
        return cls(spec, tuple(slots))

    def fits(self, spec: Any, tensors: Sequence[Tensor | None]) -> bool:
        """Return whether these can be sent in it."""
        return spec == self.spec and all(
            t is None or (str(t.dtype) == s.dtype and t.numel() * t.element_size() <= s.size_bytes)
            for t, s in zip(tensors, self.slots, strict=True)
        )

    def notice(self, kind: Kind, device: torch.device) -> Tensor:
        """Return a message without a batch in it."""
        message = torch.zeros(self.size_bytes, dtype=torch.uint8, device=device)
        message[: 8 * _FIXED].view(torch.int64)[0] = int(kind)
        return message

    def pack(self, batch: int, tensors: Sequence[Tensor | None], device: torch.device) -> Tensor:
        """Return the message of a batch: a copy, so that its tensors may change afterwards."""
        message = torch.empty(self.size_bytes, dtype=torch.uint8, device=device)
        header = [int(Kind.BATCH), batch]
        for index, tensor in enumerate(tensors):
            if tensor is None:
                header += [-1, *[0] * (_SLOT - 1)]
                continue
            sizes, strides = tuple(tensor.shape), _dense_strides(tensor)
            rest = [0] * (_MAX_DIMS - len(sizes))
            header += [len(sizes), *sizes, *rest, *strides, *rest]
            self._place(message, index, sizes, strides).copy_(tensor.detach())
        message[: 8 * len(header)].view(torch.int64).copy_(torch.tensor(header))
        return message

    def unpack(self, message: Tensor) -> tuple[Kind, int, list[Tensor | None]]:
        """Return what a message is, the number of its batch, and its tensors: views of it."""
        kind, batch = message[: 8 * _FIXED].view(torch.int64).tolist()
        tensors = list[Tensor | None]()
        if kind == Kind.BATCH:
            end = 8 * (_FIXED + _SLOT * len(self.slots))
            header = message[8 * _FIXED : end].view(torch.int64).tolist()
            for index in range(len(self.slots)):
                dims, *numbers = header[index * _SLOT : (index + 1) * _SLOT]
                sizes, strides = numbers[:dims], numbers[_MAX_DIMS : _MAX_DIMS + dims]
                tensors.append(None if dims < 0 else self._place(message, index, sizes, strides))
        return Kind(kind), batch, tensors

    def _place(
        self, message: Tensor, index: int, sizes: Sequence[int], strides: Sequence[int]
    ) -> Tensor:
        start = self.starts[index]
        slot = self.slots[index]
        flat = message[start : start + slot.size_bytes].view(_DTYPES[slot.dtype])
        return flat.as_strided(sizes, strides)

    def to_bytes(self) -> Tensor:
        """Return it as a message."""
        slots = [[s.dtype, s.size_bytes] for s in self.slots]
        text = json.dumps({"spec": self.spec, "slots": slots})
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)

    @classmethod
    def from_bytes(cls, message: Tensor) -> "Layout":
        """Read it from a message."""
        read = json.loads(bytes(message.tolist()))
        return cls(read["spec"], tuple(Slot(dtype, size) for dtype, size in read["slots"]))


def _dense_strides(tensor: Tensor) -> tuple[int, ...]:
    """Return the tensor's own strides where it fills its memory, else those of a compact copy.

    A kernel may add in another order for another order of axes, so that is kept.
    """
    if tensor.is_contiguous():
        return tuple(tensor.stride())
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != expected:
            return tuple(torch.empty(tensor.shape, device="meta").stride())
        expected *= size
    return tuple(tensor.stride())
