"""A fit that waits for its target: everything it needs when the target delay is over."""

from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.interface import Crossing, Interface


class LateFit:
    """All that a fit needs once its target delay is over; plain tensors, so that it can be saved.

    It evaluates the synthesizers again: with the weights of the time of emission that gives exactly
    the prediction that was emitted, and without them one by today's weights.

    Args:
        activations: at the interface, detached.
        condition: of that batch.
        weights: parameters and buffers of the synthesizers as they were, or None.
        targets: a gradient an activation; None where none came.
    """

    def __init__(
        self,
        activations: list[Tensor],
        condition: Tensor | None,
        weights: dict[str, Tensor] | None,
        targets: list[Tensor | None],
    ) -> None:
        self.activations = activations
        self.condition = condition
        self.weights = weights
        self.targets = targets

    @classmethod
    def of(cls, interface: Interface, leaves: list[Tensor], *, stored: bool) -> "LateFit":
        """Keep what the fit to this batch's target will need; `stored` keeps today's weights."""
        weights = None
        if stored:
            state = [
                *interface.synthesizers.named_parameters(),
                *interface.synthesizers.named_buffers(),
            ]
            weights = {name: tensor.detach().clone() for name, tensor in state}
        return cls([h.detach() for h in leaves], interface.step.condition, weights, [])

    def state(self) -> dict[str, Any]:
        """Return the arguments that make an equal one."""
        return dict(vars(self))

    def fit(self, interface: Interface) -> None:
        """Add the regression gradients to the synthesizers' parameters."""
        step = interface.step
        before, step.condition = step.condition, self.condition
        step.codes.clear()
        try:
            for k, (h, target) in enumerate(zip(self.activations, self.targets, strict=True)):
                if target is not None:
                    self._fit_one(interface, k, h, target)
        finally:
            step.condition = before
            step.codes.clear()

    def _fit_one(self, interface: Interface, k: int, h: Tensor, target: Tensor) -> None:
        crossing = Crossing(interface, k, h, fits=True)
        module = interface.synthesizers[k]
        parameters = dict(module.named_parameters())
        used = parameters
        if self.weights is None:
            prediction = crossing.predict(module, h)
        else:
            own = {
                name.removeprefix(f"{k}."): tensor
                for name, tensor in self.weights.items()
                if name.startswith(f"{k}.")
            }
            used = {name: own[name].requires_grad_() for name in parameters}
            prediction = crossing.predict(_Frozen(module, own), h)
        gradient = crossing.fit(prediction.detach(), target)
        gradients = torch.autograd.grad(
            prediction, list(used.values()), gradient, allow_unused=True
        )
        for parameter, new in zip(parameters.values(), list[Tensor | None](gradients), strict=True):
            if new is not None:
                parameter.grad = new if parameter.grad is None else parameter.grad + new


class _Frozen(nn.Module):
    """A module evaluated with other weights than its own."""

    def __init__(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.module = module
        self.state = state

    def forward(self, *args: Any) -> Any:
        return torch.func.functional_call(self.module, self.state, args)
