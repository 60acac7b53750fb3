"""Where stages meet: activations go up, and in backward a signal goes down."""

from synthgrad.interface.interface import (
    Crossing,
    Interface,
    Step,
    critics_losses,
    inside_checkpoint,
    lead_to,
    measure,
)

__all__ = [
    "Crossing",
    "Interface",
    "Step",
    "critics_losses",
    "inside_checkpoint",
    "lead_to",
    "measure",
]
