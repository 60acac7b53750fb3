"""The stage above runs on a synthetic input in place of the activation that came up."""

from typing import Any

import torch
from torch import Tensor

from synthgrad.errors import InterfaceError
from synthgrad.interface.interface import Interface
from synthgrad.interface.measures import measure
from synthgrad.signals import Units
from synthgrad.signals.units import squared_distance
from synthgrad.trees import Tree, float_tensors, replace_float_tensors


class _Exchange(torch.autograd.Function):
    """(activation, prediction) -> prediction; backward hands its gradient to the activation.

    So an interface's signal is fitted to the gradient at the synthetic input, unchanged.
    """

    @staticmethod
    def forward(ctx: Any, activation: Tensor, prediction: Tensor, copy: bool) -> Tensor:
        return prediction.clone() if copy else prediction.view_as(prediction)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return gradients[0], None, None


def exchange(interface: Interface, came: Tree, output: Tree) -> Tree:
    """Hand up what the synthetic inputs predict, and fit them to what came from below.

    Args:
        interface: with a synthetic input for each floating-point tensor.
        came: what the stage below gave.
        output: what would go up without them.
    """
    x = interface.step.network_input
    assert x is not None
    passed = list[Tensor]()
    leaves, crossed = interface.leaves(came, interface.synthetic_inputs), float_tensors(output)
    for k, (module, h, up) in enumerate(
        zip(interface.synthetic_inputs, leaves, crossed, strict=True)
    ):
        guess: Tensor = module(x.detach())
        if guess.shape != h.shape:
            raise InterfaceError(
                f"the synthetic input at interface {interface.name!r} has shape "
                f"{tuple(guess.shape)} where the activation has {tuple(h.shape)}; it was built "
                "for the shapes of the example inputs."
            )
        if interface.updates_above:
            interface.learn(squared_distance(guess, h.to(guess.device), interface.units(h)))
            if interface.step.measuring:
                found = measure(guess.to(h.device), h, Units.of(h.shape[0], mean=False))
                for name in ("regression_loss", "relative_error"):
                    interface.measures[k][f"input_{name}"] = found[name]
        passed.append(_Exchange.apply(up, guess.detach().to(h), interface.clone))
    return replace_float_tensors(output, passed)
