"""One tensor's crossing of an interface: what is predicted, emitted, passed on and fitted.

The ordinary loop and the engines have it in common; they differ in when they call it.
"""

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from synthgrad.errors import ConditionError, InterfaceError
from synthgrad.interface.interface import Interface
from synthgrad.interface.measures import measure
from synthgrad.interface.step import Trace
from synthgrad.signals.kept_graph import kept_graph


class Crossing:
    """One tensor that went up through an interface in one step, and what will come down.

    Args:
        interface: which one.
        index: which of the tensors in the output there.
        h: the activation [batch, ...].
        fits: whether a target will come, so that the prediction needs its graph.
    """

    def __init__(self, interface: Interface, index: int, h: Tensor, *, fits: bool) -> None:
        step = interface.step
        self.interface = interface
        self.index = index
        self.fits = fits
        self.dtype = h.dtype
        self.traced = interface.signal.passes_trace and fits and h.grad_fn is not None
        self.entries = step.entries if self.traced else []
        self.exit = get_gradient_edge(h) if self.entries else None
        self.trace = Trace()
        self.num_fits = interface.num_fits
        self.units = interface.units(h)
        self.measuring = step.measuring

    def predict(self, module: nn.Module, h: Tensor) -> Tensor:
        """Evaluate the synthesizer once; without a graph if no target will come."""
        name = self.interface.name
        try:
            with torch.set_grad_enabled(self.fits):
                code = self.interface.code(h)
                prediction = self.interface.signal.predict(module, h.detach(), code)
        except ConditionError as error:
            raise ConditionError(f"at interface {name!r}: {error}") from error
        if prediction.shape != h.shape:
            raise InterfaceError(
                f"the synthesizer at interface {name!r} predicts shape {tuple(prediction.shape)} "
                f"for an activation of shape {tuple(h.shape)}; a gradient has the shape of its "
                "activation."
            )
        return prediction

    def emit(self, prediction: Tensor, target: Tensor | None) -> Tensor | None:
        """Return what goes down, in the units of the loss and the dtype of the activation."""
        signal = self.interface.signal.emit(prediction, target, self.units, self.num_fits)
        return None if signal is None else signal.to(self.dtype)

    def pass_trace(self, signal: Tensor, target: Tensor | None) -> None:
        """Add what the signal misses of its target to the targets below, through the stage between.

        The stage's own parameters do not see it, so it is a second pass, to the stage's inputs.

        Raises:
            InterfaceError: the stage has no graph that two passes can go through.
        """
        if self.exit is None:
            return
        missed = self.missed(signal, target)
        edges = [entry.edge for entry in self.entries]
        with kept_graph(type(self.interface.signal).__name__):
            found = torch.autograd.grad(
                [self.exit], edges, [missed], retain_graph=True, allow_unused=True
            )
        for entry, extra in zip(self.entries, found, strict=True):
            entry.trace.add(extra)

    def missed(self, signal: Tensor, target: Tensor | None) -> Tensor:
        """Return what the targets below get beside the signal."""
        # No target: the stage above does not use this tensor, and its gradient is zero.
        target = torch.zeros_like(signal) if target is None else target
        return self.interface.signal.missed(signal, target)

    def fit(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the regression gradient at the prediction, and note how good it was."""
        if self.index == 0:
            self.interface.num_fits += 1
        if self.measuring:
            self.interface.measures[self.index].update(measure(prediction, target, self.units))
        signal = self.interface.signal
        if signal.observes_target:
            signal.observe(self.interface.synthesizers[self.index], target, self.units)
        return signal.fit_gradient(prediction, target, self.units)
