"""The training step of one stage on one batch: forward, predict, emit, local backward, fit.

The same five steps wherever the stage runs (h, p, d, g, fit); an engine chooses when.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from synthgrad.engines.late_fit import LateFit
from synthgrad.interface import Crossing, check_reach, local_loss
from synthgrad.signals.kept_graph import kept_graph
from synthgrad.stage import Stage
from synthgrad.trees import float_tensors, replace_float_tensors
from synthgrad.validate import call


class Work:
    """One batch at one stage.

    Args:
        stage: where.
        h: what the stage below sent up (or the network's inputs).
        first: whether `h` are the network's inputs, which need no gradient.
        updated: whether the stage is updated in this batch; if not, it runs without a graph.
        gives_target: whether the interface below wants the gradient of `h`.
    """

    def __init__(
        self, stage: Stage, h: Any, *, first: bool, updated: bool, gives_target: bool
    ) -> None:
        self.stage = stage
        self.loss: Tensor | None = None
        self.input_gradients: list[Tensor | None] | None = None
        self.inputs = list[Tensor]()
        self.crossings = list[Crossing]()
        self.predictions = list[Tensor]()
        self.late: LateFit | None = None
        if not first:
            self.inputs = [t.detach() for t in float_tensors(h)]
            if updated and gives_target:
                self.inputs = [t.requires_grad_() for t in self.inputs]
            given = [t.clone() for t in self.inputs] if stage.works_in_place else self.inputs
            h = replace_float_tensors(h, given)
        with torch.set_grad_enabled(updated):
            self.output = call(stage, h) if first else stage(h)
        if updated:
            check_reach("a stage", stage.module.modules(), self.output)
        self.updated = updated

    def predict(self, *, fits: bool, late: Literal["stored", "again"] | None) -> None:
        """Evaluate the prediction once; its graph is kept where the fit follows in this batch."""
        interface = self.stage.interface
        if interface is None or not (fits or self.updated):
            return
        if interface.is_local and self.updated:
            self.loss = local_loss(interface, self.output)
        if not interface.signal.fits_target:
            return
        leaves = float_tensors(self.output)
        if late and fits:
            self.late = LateFit.of(interface, leaves, stored=late == "stored")
        self.crossings = [
            Crossing(interface, k, h, fits=fits and late is None) for k, h in enumerate(leaves)
        ]
        self.predictions = [
            crossing.predict(module, h)
            for crossing, module, h in zip(
                self.crossings, interface.synthesizers, leaves, strict=True
            )
        ]

    def backward(self, target: list[Tensor | None] | None) -> None:
        """Run the stage's backward at its signal, or at its loss where it has one."""
        if self.loss is not None:
            if self.loss.requires_grad:  # not where the whole stage is frozen
                self.loss.backward()
        else:
            outputs = float_tensors(self.output)
            emitted = self._emit(target)
            pairs = [
                (h, signal)
                for h, signal in zip(outputs, emitted, strict=True)
                if signal is not None and h.requires_grad
            ]
            missed = self._missed(emitted, target) if self.inputs else []
            if pairs:
                ups, signals = [h for h, _ in pairs], [signal for _, signal in pairs]
                with kept_graph("a trace through a stage"):
                    torch.autograd.backward(ups, signals, retain_graph=bool(missed))
            self._pass_trace(missed)
        self.input_gradients = [h.grad for h in self.inputs]

    def _missed(
        self, emitted: list[Tensor | None], target: list[Tensor | None] | None
    ) -> list[tuple[Tensor, Tensor]]:
        """Return outputs with what goes through the stage for the targets below, and only there."""
        if target is None or not any(h.requires_grad for h in self.inputs):
            return []
        return [
            (h, crossing.missed(signal, above))
            for h, crossing, signal, above in zip(
                float_tensors(self.output), self.crossings, emitted, target, strict=False
            )
            if crossing.traced and signal is not None
        ]

    def _pass_trace(self, missed: list[tuple[Tensor, Tensor]]) -> None:
        """Add that to the gradients of the stage's inputs, and to no parameter's."""
        if missed:
            ups, values = [h for h, _ in missed], [value for _, value in missed]
            torch.autograd.backward(ups, values, inputs=self.inputs)

    def _emit(self, target: list[Tensor | None] | None) -> list[Tensor | None]:
        if not self.crossings:
            return target or []
        above: list[Tensor | None] = target or [None] * len(self.crossings)
        return [
            crossing.emit(prediction.detach(), gradient)
            for crossing, prediction, gradient in zip(
                self.crossings, self.predictions, above, strict=True
            )
        ]

    def fits(self, target: list[Tensor | None] | None) -> bool:
        """Fit the synthesizers to the target; return whether there was anything to fit."""
        found = False
        for crossing, prediction, gradient in zip(
            self.crossings, self.predictions, target or [], strict=False
        ):
            if gradient is not None and prediction.requires_grad:
                prediction.backward(crossing.fit(prediction.detach(), gradient))
                found = True
        return found

    def fit_later(self, target: list[Tensor | None] | None) -> LateFit | None:
        """Return the fit that is due later, or None if no target came."""
        if self.late is None or target is None:
            return None
        self.late.targets = target
        return self.late
