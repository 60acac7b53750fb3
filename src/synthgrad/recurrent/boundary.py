"""The cut in time: a synthetic gradient enters where a chunk ends, and is fitted where one begins.

Two autograd Functions stand around a chunk, so a user's loop stays as it is and one backward does
all: `leave` lets the signal into the chunk's last state, beside the gradient of the loss; `enter`
takes the gradient that reaches the first state, which is the target of the signal that stood in for
it one chunk before, and hands the synthesizer its regression gradient. Neither has a graph beyond
the chunk.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synthgrad.interface.once import Once
from synthgrad.recurrent.layout import Layout
from synthgrad.recurrent.traces import Past, errors_before
from synthgrad.signals import ErrorSignal, Units


@dataclass(kw_only=True, eq=False)
class Arrival:
    """What is known of a chunk's start when its gradient arrives.

    Attributes:
        layout: of the state.
        signal: whose prediction is fitted.
        units: of this batch.
        awaits: [batch] bool: rows to fit.
        past: boundaries before, of a signal with a trace decay.
        decay: of errors on their way back through them.
        on_target: is told of each target, in the units of the loss.
        beyond: what the target has to get besides the gradient that arrives, [batch, size].
    """

    layout: Layout
    signal: ErrorSignal
    units: Units
    awaits: Tensor
    past: Sequence[Past]
    decay: float
    on_target: Callable[[Tensor, Units], None]
    beyond: Tensor | None = None

    def fit(self, prediction: Tensor, gradients: Sequence[Tensor]) -> Tensor:
        """Return d(regression loss)/d(prediction), of this boundary and of those before.

        Args:
            prediction: [batch, size], of this boundary; with a trace, [boundaries * batch, size],
                newest first.
            gradients: of the state's tensors, as they arrived; zeros where nothing did.
        """
        target = self.layout.flat(gradients)
        if self.beyond is not None:
            target = target + self.beyond
        self.on_target(target, self.units)
        newest = prediction[: self.layout.batch_size]
        error = self.signal.fit_gradient(newest, target, self.units) * self.awaits[:, None]
        return torch.cat([error, *errors_before(error, self.past, self.decay)])


@dataclass(kw_only=True, eq=False)
class Departure:
    """What enters a chunk at its end.

    Attributes:
        signals: of the state's tensors, in the units of the loss.
        signal: whose prediction is fitted to zero where a sequence ends.
        units: of this batch.
        ends: [batch] bool: rows whose sequence ends in the chunk; None for no row.
    """

    signals: Sequence[Tensor]
    signal: ErrorSignal
    units: Units
    ends: Tensor | None

    def fit(self, prediction: Tensor) -> Tensor:
        """Return d(regression loss)/d(prediction), where the target is exactly zero."""
        assert self.ends is not None
        none = torch.zeros_like(prediction)
        return self.signal.fit_gradient(prediction, none, self.units) * self.ends[:, None]


class _Enter(torch.autograd.Function):
    """(prediction, *state) -> state."""

    @staticmethod
    def forward(
        ctx: Any, prediction: Tensor, arrival: Arrival, *state: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(prediction)
        ctx.arrival = arrival
        ctx.once = Once("in time")
        return tuple(s.view_as(s) for s in state)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ctx.once.spend()
        (prediction,) = ctx.saved_tensors
        fit = ctx.arrival.fit(prediction, gradients) if ctx.needs_input_grad[0] else None
        return fit, None, *gradients


class _Leave(torch.autograd.Function):
    """(outputs, own loss, prediction, *state) -> outputs."""

    @staticmethod
    def forward(
        ctx: Any,
        outputs: Tensor,
        own_loss: Tensor | None,
        prediction: Tensor | None,
        departure: Departure,
        *state: Tensor,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(prediction)
        ctx.one = None if own_loss is None else torch.ones_like(own_loss)
        ctx.departure = departure
        ctx.once = Once("in time")
        return outputs.view_as(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.once.spend()
        (prediction,) = ctx.saved_tensors
        departure: Departure = ctx.departure
        fit = departure.fit(prediction) if ctx.needs_input_grad[2] else None
        return gradients[0], ctx.one, fit, None, *departure.signals


def enter(state: Sequence[Tensor], prediction: Tensor, arrival: Arrival) -> tuple[Tensor, ...]:
    """Return a chunk's first state, whose gradient fits the prediction made for it."""
    return _Enter.apply(prediction, arrival, *state)


def leave(
    outputs: Tensor,
    state: Sequence[Tensor],
    departure: Departure,
    *,
    own_loss: Tensor | None,
    prediction: Tensor | None,
) -> Tensor:
    """Return a chunk's outputs, whose backward brings the signals to the chunk's last state.

    Args:
        outputs: of the chunk.
        state: its last.
        departure: what enters.
        own_loss: a scalar that is trained beside the loss that the outputs go into; None for none.
        prediction: with its graph, to be fitted to zero where a sequence ends; None for nowhere.
    """
    return _Leave.apply(outputs, own_loss, prediction, departure, *state)
