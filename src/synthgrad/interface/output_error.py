"""The output error dL/d(output) of one training pass, and those who wait for it.

It exists when backward starts, before any stage's backward has run. Direct feedback reads it when
its stage's turn comes; Kickback needs it at once, while the graph of the stage above is whole.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from synthgrad.signals import ErrorSignal
from synthgrad.signals.kept_graph import kept_graph


class OutputError:
    """dL/d(output) of one pass, in the units of the (scaled) loss."""

    def __init__(self) -> None:
        self._value: Tensor | None = None
        self._waiting: list[Callable[[Tensor], None]] = []

    @property
    def value(self) -> Tensor:
        """The error; only in backward."""
        assert self._value is not None, "the model's output stands above every interface"
        return self._value

    def when_there(self, act: Callable[[Tensor], None]) -> None:
        """Have something called with the error as soon as it exists."""
        self._waiting.append(act)

    def arrive(self, value: Tensor) -> None:
        """Take the error, and call those who wait."""
        self._value = value
        waiting, self._waiting = self._waiting, []
        for act in waiting:
            act(value)


class KickedStage:
    """The stage above a Kickback interface in one pass: the error is taken through it.

    Args:
        signal: of the interface.
        inputs: the activations that went up into the stage, as leaves.
    """

    def __init__(self, signal: ErrorSignal, inputs: list[Tensor]) -> None:
        self.signal = signal
        self.inputs = inputs
        self.outputs: list[Tensor] = []
        self.gradients: tuple[Tensor, ...] = ()

    def take(self, error: Tensor) -> None:
        """Take the error through the stage; its graph stays for the stage's own backward.

        Raises:
            InterfaceError: the stage has no graph that two passes can go through.
        """
        outputs = [h for h in self.outputs if h.requires_grad]
        assigned = [self.signal.project_error(None, error, h.shape).to(h.dtype) for h in outputs]
        with kept_graph(type(self.signal).__name__):
            self.gradients = torch.autograd.grad(
                outputs,
                self.inputs,
                assigned,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        self.outputs = []
