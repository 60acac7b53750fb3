"""BP(lambda): an error of prediction found now also corrects the predictions made before it.

What a synthesizer missed at a boundary, it had missed at all boundaries before, as far as the
states there led to the state here. So the error goes back along the Jacobians of the chunks between
them, which are kept; no chunk's graph is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synthgrad.recurrent.layout import Layout


@dataclass(frozen=True, kw_only=True, eq=False)
class Past:
    """A boundary that was passed, and how the state there led to the one at the next boundary.

    Attributes:
        flat: the state [batch, size].
        code: the encoded condition [batch, C], or None.
        awaits: [batch] bool: rows that had a prediction there.
        jacobian: d(next boundary's state)/d(state here) [batch, size, size].
    """

    flat: Tensor
    code: Tensor | None
    awaits: Tensor
    jacobian: Tensor

    def state_dict(self) -> dict[str, Any]:
        """Return its tensors."""
        return {
            "flat": self.flat,
            "code": self.code,
            "awaits": self.awaits,
            "jacobian": self.jacobian,
        }


def jacobian(layout: Layout, after: Tensor, before: Sequence[Tensor]) -> Tensor:
    """Return d(state after a chunk)/d(state before it), [batch, size, size].

    It takes as many passes through the chunk as one example's state has numbers, in one batched
    call where the core's operations can be batched.

    Args:
        layout: of the state.
        after: flat, [batch, size], with the chunk's graph, which is kept.
        before: the state's tensors that the chunk began with.
    """
    batch_size, size = after.shape
    unit = torch.eye(size, dtype=after.dtype, device=after.device)
    basis = unit[:, None, :].expand(size, batch_size, size)
    options = {"retain_graph": True, "materialize_grads": True}
    try:
        rows = torch.autograd.grad(after, before, basis, is_grads_batched=True, **options)
    except RuntimeError:  # an operation that cannot be batched
        each = [torch.autograd.grad(after, before, one, **options) for one in basis]
        rows = [torch.stack(found) for found in zip(*each, strict=True)]
    # Of a tensor that nothing depends on, the batched call returns one zero gradient, not many.
    rows = [r.expand(size, *b.shape) for r, b in zip(rows, before, strict=True)]
    parts = [r.movedim(1 + layout.batch_axis, 0).flatten(2) for r in rows]
    return torch.cat([part.to(after.dtype) for part in parts], dim=2)


def errors_before(error: Tensor, past: Sequence[Past], decay: float) -> list[Tensor]:
    """Lead an error of prediction back to the boundaries before, newest first.

    Math: w_k = decay * J_k' w_k+1, zero for rows that had no prediction at boundary k.

    Args:
        error: at the boundary after the newest [batch, size].
        past: newest first.
        decay: the discount times the trace decay.
    """
    errors = list[Tensor]()
    for boundary in past:
        led_back = torch.einsum("bo,boi->bi", error, boundary.jacobian.to(error.dtype))
        error = led_back * (decay * boundary.awaits)[:, None]
        errors.append(error)
    return errors
