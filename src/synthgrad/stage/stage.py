"""One stage: a part of a network, with the interface on top of it."""

from typing import Any

from torch import nn

from synthgrad.interface import Interface


class Stage(nn.Module):
    """The part of a network between two neighboring interfaces, with the one on top of it.

    Attributes:
        module: from the activation below (any nesting of tensors) to the activation above.
        interface: on top of this stage; None on the last one, whose signal is the loss's gradient.
        works_in_place: whether the module changes its input, so that it must be given a copy.
    """

    def __init__(
        self, module: nn.Module, interface: Interface | None, *, works_in_place: bool = False
    ) -> None:
        super().__init__()
        self.module = module
        self.interface = interface
        self.works_in_place = works_in_place

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the stage's own part of the forward pass."""
        return self.module(*args, **kwargs)

    def stage_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the stage's module."""
        return list(self.module.parameters())

    def synthesizer_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the synthesizers on top of the stage."""
        return [] if self.interface is None else list(self.interface.parameters())
