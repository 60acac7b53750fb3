"""What is fixed about a tick, and the tensors that one tick leaves to the next."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from synthgrad.engines.wavefront.bundles import Bundle, State
from synthgrad.engines.wavefront.optimizers import Rule
from synthgrad.signals import ErrorSignal


@dataclass(frozen=True)
class Cut:
    """Interfaces with the same signal, synthesizer structure and activation shape, as one.

    Attributes:
        slots: the stages below them.
        signal: what they hand down.
        bundle: their synthesizers, or a local loss's heads; None where there is neither.
        is_linear: whether a prediction is linear in the weights, so that a late fit needs none of
            the weights of the time of emission.
    """

    slots: tuple[int, ...]
    signal: ErrorSignal
    bundle: Bundle | None
    is_linear: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is fixed about a tick.

    Attributes:
        places: the bundles at each place, bottom first.
        cuts: the interfaces.
        num_stages: how many there are.
        loss: from (outputs, labels) to a scalar.
        mean: whether that is a mean over the batch.
        rule: of the stages' optimizer; None if the caller updates the parameters itself.
        synthesizer_rule: of the synthesizers' optimizer.
        fit_again: whether a late fit predicts anew instead of using the stored prediction.
        trained: names of the stages' entries in the state that have gradients.
        fitted: names of the synthesizers' entries that have gradients.
        slots: by name in the state, the stages that it belongs to.
        autocast: device type and dtype of the forward passes, or None.
        streams: for the second, third, ... bundle at a place, to run beside the first.
    """

    places: tuple[tuple[Bundle, ...], ...]
    cuts: tuple[Cut, ...]
    num_stages: int
    loss: Callable[[Tensor, Tensor], Tensor]
    mean: bool
    rule: Rule | None
    synthesizer_rule: Rule | None
    fit_again: bool
    trained: tuple[str, ...]
    fitted: tuple[str, ...]
    slots: dict[str, tuple[int, ...]]
    autocast: tuple[str, torch.dtype] | None = None
    streams: tuple[torch.cuda.Stream, ...] = ()


class Counts(NamedTuple):
    """How far training is, on the device; a tick adds to the steps.

    Attributes:
        steps: [stages], how many updates each stage has had.
        fit_steps: [stages], the same for the synthesizer on top of it.
        corrections: [2, stages], what `Rule.corrections` says of the next step. Kept, because a
            compiler would compute the powers in it anew for every few parameters.
        fit_corrections: the same for the synthesizers.
        rate: the stages' learning rate for the batch that comes in, 0-dim.
        synthesizer_rate: the synthesizers'.
    """

    steps: Tensor
    fit_steps: Tensor
    corrections: Tensor
    fit_corrections: Tensor
    rate: Tensor
    synthesizer_rate: Tensor

    @classmethod
    def zeros(cls, num_stages: int, device: torch.device) -> "Counts":
        """Return those of an engine that has not begun."""
        row, rows = (num_stages,), (2, num_stages)
        shapes: list[tuple[int, ...]] = [row, row, rows, rows, (), ()]
        return cls(*(torch.zeros(s, dtype=torch.float64, device=device) for s in shapes))

    def correct(self, plan: Plan) -> None:
        """Set the corrections that belong to the steps."""
        for rule, steps, corrections in (
            (plan.rule, self.steps, self.corrections),
            (plan.synthesizer_rule, self.fit_steps, self.fit_corrections),
        ):
            if rule is not None:
                corrections.copy_(rule.corrections(steps + 1))


class Carry(NamedTuple):
    """What one tick leaves to the next: activations and labels on their way up the line.

    The tensors stay the same ones, so that a recorded tick finds them; their contents move.

    Attributes:
        outputs: a cut each, the activations that went up through it.
        predictions: a cut each, what was predicted for them (nothing where nothing is).
        weights: a cut each, the synthesizers' state at that time, where a late fit needs it.
        labels: [stages, batch, ...], of the batch that each stage has worked on.
        rates: [stages], the learning rate that came with it.
        synthesizer_rates: the same.
    """

    outputs: list[Tensor]
    predictions: list[Tensor | None]
    weights: list[State]
    labels: Tensor
    rates: Tensor
    synthesizer_rates: Tensor


class Masks(NamedTuple):
    """Who does what in this tick; only there while the line fills or drains, or with skipping.

    Attributes:
        active: [stages], has a batch (so its buffers move).
        updated: [stages], and updates its parameters.
        fitted: [stages], has a target for the synthesizer on top (or trains the head there).
        predicted: [stages], evaluates that synthesizer at all.
        emits: [stages], uses its prediction (`fit_first` is over).
    """

    active: Tensor
    updated: Tensor
    fitted: Tensor
    predicted: Tensor
    emits: Tensor


class Outcome(NamedTuple):
    """What a tick returns beside what it changed in place.

    Attributes:
        loss: of the batch at the last stage, 0-dim.
        gradients: by name in the state, where torch's own optimizers update the stages.
        fit_gradients: the same of the synthesizers.
    """

    loss: Tensor
    gradients: State
    fit_gradients: State
