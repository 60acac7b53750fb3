"""Linear layers of several stages as one, whose weights' gradient lies in memory as the weights do.

Under vmap it would come transposed, and an optimizer that reads it against the grain costs as much
as the product itself where layers are narrow.
"""

from typing import Any

import torch
from torch import Tensor, nn


def for_stacking(template: nn.Module) -> nn.Module:
    """Let a copied layer's linear layers, itself included, run as stacked ones under vmap."""
    for layer in template.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = _Linear
    return template


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return _product(input, self.weight, self.bias)


def _product(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    kind = h.device.type
    if torch.is_autocast_enabled(kind):  # which does not look into a Function
        dtype = torch.get_autocast_dtype(kind)
        h, weight = _narrow(h, dtype), _narrow(weight, dtype)
        bias = bias if bias is None else _narrow(bias, dtype)
    output: Any = _Product.apply(h.reshape(-1, h.shape[-1]), weight)
    if bias is not None:
        output = output + bias
    return output.reshape(*h.shape[:-1], weight.shape[0])


def _narrow(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype is torch.float64 else tensor.to(dtype)


class _Product(torch.autograd.Function):
    """h @ weight^T, of h [..., batch, in] and weight [..., out, in]."""

    @staticmethod
    def forward(h: Tensor, weight: Tensor) -> Tensor:
        return h @ weight.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        h, weight = ctx.saved_tensors
        below = gradient @ weight if ctx.needs_input_grad[0] else None
        own = gradient.mT @ h if ctx.needs_input_grad[1] else None
        return below, own

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], *tensors: Tensor) -> Any:
        stacks = [
            t.unsqueeze(0).expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip(tensors, in_dims, strict=True)
        ]
        return _Product.apply(*stacks), 0
