"""The two signals that bound all others: the true gradient, and none at all."""

from dataclasses import dataclass

from torch import Tensor

from synthgrad.signals.contract import ErrorSignal, Lock, Need
from synthgrad.signals.units import Units


@dataclass(frozen=True, kw_only=True)
class Backprop(ErrorSignal):
    """Hand down the true gradient: the interface is there, and does nothing.

    Use it as the control of a comparison, under the same wrapper and the same code path.
    """

    @property
    def needs(self) -> Need:
        """The gradient from above."""
        return Need.GRADIENT_FROM_ABOVE

    @property
    def opens(self) -> frozenset[Lock]:
        """No lock."""
        return frozenset()

    def emit(
        self, prediction: Tensor | None, target: Tensor | None, units: Units, num_fits: int
    ) -> Tensor | None:
        """Return the gradient from above as it is."""
        return target


@dataclass(frozen=True, kw_only=True)
class NoSignal(ErrorSignal):
    """Hand down nothing: the stage below keeps its initial weights ("no bprop" in the papers).

    The floor of every comparison: what the stages above the topmost such interface reach on
    random features. The stage below runs without a graph, so it costs a forward pass and nothing
    else.
    """

    @property
    def needs(self) -> Need:
        """Nothing."""
        return Need.NOTHING

    @property
    def opens(self) -> frozenset[Lock]:
        """Update and backward lock, at the price of not training."""
        return frozenset({Lock.UPDATE, Lock.BACKWARD})

    @property
    def trains_below(self) -> bool:
        """No."""
        return False

    def emit(
        self, prediction: Tensor | None, target: Tensor | None, units: Units, num_fits: int
    ) -> Tensor | None:
        """Return None."""
        return None
