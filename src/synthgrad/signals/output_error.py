"""What signals made of the output error have in common: they wait for the loss, and for no more."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synthgrad.errors import ConfigError, InterfaceError
from synthgrad.signals.contract import ErrorSignal, Lock, Place
from synthgrad.signals.units import Units


@dataclass(frozen=True, kw_only=True)
class OutputErrorSignal(ErrorSignal):
    """Hand every stage something made of dL/d(output), by `project_error`."""

    @property
    def opens(self) -> frozenset[Lock]:
        """The backward lock: nobody waits for another stage's backward, all for the loss."""
        return frozenset({Lock.BACKWARD})

    def build_at(self, example: Tensor, place: Place) -> nn.Module | None:
        """Check the place; there is nothing to make.

        Raises:
            ConfigError: the network's output is not one tensor with the activation's batch axis.
        """
        output = place.output
        if output is None or not output.dim() or not example.dim() or len(output) != len(example):
            given = "not one floating-point tensor" if output is None else f"{tuple(output.shape)}"
            raise ConfigError(
                f"{self} is made of the output error, example by example, and the model's output "
                f"is {given} where the activation is {tuple(example.shape)}: return one "
                "floating-point tensor [batch, ...], or use a signal that needs no output error."
            )
        return None

    def emit(
        self, prediction: Tensor | None, target: Tensor | None, units: Units, num_fits: int
    ) -> Tensor | None:
        """Return None: the signal is made of the output error, by `project_error`."""
        return None


def errors_by_example(error: Tensor, shape: torch.Size) -> Tensor:
    """Return the output error as [batch, outputs], for an activation of that shape.

    Raises:
        InterfaceError: their numbers of examples differ.
    """
    if len(error) != shape[0]:
        raise InterfaceError(
            f"the output has shape {tuple(error.shape)} and an activation {tuple(shape)}: the "
            "output error is used example by example, so both need the batch as first axis."
        )
    return error.flatten(1) if error.dim() > 1 else error[:, None]
