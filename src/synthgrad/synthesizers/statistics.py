"""Running statistics, kept in single precision at least."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


class Statistics(nn.Module):
    """A module whose own buffers stay float32 (or wider) where the model around it is narrower.

    In half precision a square overflows at 256, and a count stops at 2048 (in bfloat16 at 256).
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self.get_buffer(name)
            wide = torch.promote_types(new.dtype, torch.float32)
            if new.dtype != wide:
                self.register_buffer(name, old.to(device=new.device, dtype=wide))
        return self


def widened(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or as it is where it is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
