"""Equal linear layers of several stages as one, with the weights' gradient laid out as they are.

Under vmap the gradient comes transposed, and an optimizer that reads it against the grain costs
more than the product itself where layers are narrow.
"""

from typing import Any

import torch
from torch import Tensor


def stacked_linear(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return h @ weight^T + bias, a stage each.

    Args:
        h: [stages, batch, in].
        weight: [stages, out, in].
        bias: [stages, out], or None.
    """
    kind = h.device.type
    if torch.is_autocast_enabled(kind):  # which does not look into a Function
        dtype = torch.get_autocast_dtype(kind)
        h, weight = _narrow(h, dtype), _narrow(weight, dtype)
        bias = bias if bias is None else _narrow(bias, dtype)
    output: Any = _StackedLinear.apply(h, weight)
    return output if bias is None else output + bias.unsqueeze(1)


def _narrow(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype is torch.float64 else tensor.to(dtype)


class _StackedLinear(torch.autograd.Function):
    @staticmethod
    def forward(h: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(h, weight.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        h, weight = ctx.saved_tensors
        below = torch.bmm(gradient, weight) if ctx.needs_input_grad[0] else None
        own = torch.bmm(gradient.mT, h) if ctx.needs_input_grad[1] else None
        return below, own
