"""One tick: every stage at once, each on its own batch, as one function of tensors.

A pure function apart from the parameters, buffers and moments that it updates in place, so that it
can be compiled into one graph. All stages' outputs come from one joint forward, and one
vector-Jacobian product of it gives every stage's parameter gradient and every target.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vjp

from synthgrad.engines.wavefront.bundles import Bundle, State, Streams
from synthgrad.engines.wavefront.optimizers import Rule
from synthgrad.signals import ErrorSignal, Units


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
        autocast: dtype of the forward passes, or None.
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


class Carry(NamedTuple):
    """What one tick leaves to the next: activations and labels on their way up the line.

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
    """What a tick returns beside what it changed in place."""

    carry: Carry
    loss: Tensor
    gradients: State
    fit_gradients: State


def tick(
    plan: Plan,
    state: State,
    moments: dict[str, list[Tensor]],
    steps: Tensor,
    fit_steps: Tensor,
    carry: Carry,
    inputs: Tensor,
    labels: Tensor,
    rate: Tensor,
    synthesizer_rate: Tensor,
    masks: Masks | None,
) -> Outcome:
    """Let stage i work on batch t - i, for all i at once.

    Args:
        plan: what is fixed.
        state: parameters and buffers of stages and synthesizers, stacked; changed in place.
        moments: the optimizers' running averages by name in `state`; changed in place.
        steps: [stages], how many updates each stage will have had after this tick.
        fit_steps: [stages], the same for the synthesizer on top of it.
        carry: from the tick before.
        inputs: of the bottom stage's batch.
        labels: of the same.
        rate: the stages' learning rate for this batch, 0-dim.
        synthesizer_rate: the synthesizers'.
        masks: None if every stage does everything.
    """
    top = plan.num_stages - 1
    all_labels = torch.cat([labels.unsqueeze(0), carry.labels[:-1]])
    rates = torch.cat([rate.reshape(1), carry.rates[:-1]])
    synthesizer_rates = torch.cat([synthesizer_rate.reshape(1), carry.synthesizer_rates[:-1]])
    units = Units.of(inputs.shape[0], mean=plan.mean)
    fits = [k for k, cut in enumerate(plan.cuts) if cut.signal.fits_target]
    locals_ = [cut for cut in plan.cuts if cut.signal.is_local]
    heads = [name for cut in locals_ for name in _names(cut) if name in plan.fitted]
    trained = {name: state[name] for name in (*plan.trained, *heads)}

    def joint(weights: State, below: Sequence[Tensor]) -> tuple[Any, Any]:
        """Run every stage forward.

        Differentiable: what goes up through the cuts with a target, and the losses. Beside it:
        what goes up through all, the top's loss, and the new buffers of stages and of heads.
        """
        now = state | weights
        given = dict(zip(fits, below, strict=True))
        streams = Streams([((0,), inputs)])
        for k, cut in enumerate(plan.cuts):
            h = given.get(k, carry.outputs[k])
            streams.parts.append((tuple(s + 1 for s in cut.slots), h))
        buffers = State()
        for place in plan.places:
            moved = list[tuple[tuple[int, ...], Tensor]]()
            for bundle in place:
                h, new = bundle.run(now, streams.take(bundle.slots))
                moved.append((bundle.slots, h))
                buffers.update(new)
            done = {s for slots, _ in moved for s in slots}
            for slots, h in streams.parts:
                if not done.issuperset(slots):
                    moved.append((slots, h))
            streams = Streams(moved)
        ups = [streams.take(cut.slots) for cut in plan.cuts]
        loss = plan.loss(streams.take((top,)), all_labels[top])
        total, head_buffers = loss, State()
        for cut in locals_:
            assert cut.bundle is not None
            h = ups[plan.cuts.index(cut)]
            scores, new = cut.bundle.run(now, h)
            head_buffers.update(new)
            code = _code(cut, all_labels, h.dtype)
            assert code is not None
            # Summed, because no stage's parameters are in another one's loss.
            of_labels = Units.of(labels.numel(), mean=plan.mean)
            total = total + cut.signal.local_loss(scores, code, of_labels)
        return ([ups[k] for k in fits], total), (ups, loss, buffers, head_buffers)

    with _autocast(plan):
        below = [carry.outputs[k] for k in fits]
        (_, total), pull, (ups, loss, buffers, head_buffers) = _vjp(joint, trained, below)
        predictions = list[Tensor | None]()
        synthesizer_buffers = State()
        for cut, h in zip(plan.cuts, ups, strict=True):
            prediction, new = _predict(cut, state, h, all_labels)
            predictions.append(prediction)
            synthesizer_buffers.update(new)
    signals = [_emit(plan.cuts[k], ups[k], predictions[k], units, masks) for k in fits]
    gradients, targets = pull((signals, torch.ones_like(total)))
    fit_gradients = {name: gradients.pop(name) for name in heads}
    changed = _masked(plan, state, buffers, masks and masks.active)
    changed |= _masked(plan, state, head_buffers, masks and masks.updated)
    changed |= _masked(plan, state, synthesizer_buffers, masks and masks.predicted)
    for k, target in zip(fits, targets, strict=True):
        with _autocast(plan):
            found, new = _fit(plan, plan.cuts[k], state | changed, carry, k, target, units)
        fit_gradients |= found
        if plan.fit_again:
            changed |= _masked(plan, state | changed, new, masks and masks.fitted)

    later = [weights_for_later(plan, cut, state) for cut in plan.cuts]
    for name, value in changed.items():
        state[name].copy_(value)
    if plan.rule is not None:
        _update(plan, plan.rule, state, gradients, moments, rates, steps, masks and masks.updated)
    if plan.synthesizer_rule is not None:
        rule, mask = plan.synthesizer_rule, masks and masks.fitted
        _update(plan, rule, state, fit_gradients, moments, synthesizer_rates, fit_steps, mask)
    return Outcome(
        Carry(
            # A compiled graph wants its inputs laid out alike in every tick.
            [h.contiguous() for h in ups],
            [None if p is None else p.contiguous() for p in predictions],
            later,
            all_labels,
            rates,
            synthesizer_rates,
        ),
        loss.detach(),
        {} if plan.rule else gradients,
        {} if plan.synthesizer_rule else fit_gradients,
    )


def _autocast(plan: Plan) -> Any:
    device, dtype = plan.autocast or ("cpu", torch.bfloat16)
    return torch.autocast(device, dtype, enabled=plan.autocast is not None)


def _vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any], Any]:
    """Return a function's output, its vector-Jacobian product, and what it returns beside."""
    found: Any = vjp(function, *primals, has_aux=True)
    return found


def _code(cut: Cut, all_labels: Tensor, dtype: torch.dtype) -> Tensor | None:
    encoder = cut.signal.conditioned_on
    if encoder is None:
        return None
    labels = _pick(all_labels, cut.slots)
    classes = torch.arange(encoder.size, device=labels.device)
    return (labels.unsqueeze(-1) == classes).to(dtype)


def _predict(cut: Cut, state: State, h: Tensor, all_labels: Tensor) -> tuple[Tensor | None, State]:
    if cut.bundle is None or not cut.signal.fits_target:
        return None, {}
    return cut.bundle.run(state, h, _code(cut, all_labels, h.dtype))


def _names(cut: Cut) -> list[str]:
    """Return the names in the state of what stands on the stages below a cut."""
    return [] if cut.bundle is None else [cut.bundle.key + name for name in cut.bundle.names]


def _emit(
    cut: Cut, h: Tensor, prediction: Tensor | None, units: Units, masks: Masks | None
) -> Tensor:
    # Whether `fit_first` is over differs between stages, so it is a matter of the mask.
    signal = cut.signal.emit(prediction, None, units, sys.maxsize)
    assert signal is not None
    if masks is not None:
        signal = signal * _lift(_pick(masks.emits, cut.slots), signal)
    return signal.to(h.dtype)


def _fit(
    plan: Plan,
    cut: Cut,
    state: State,
    carry: Carry,
    index: int,
    target: Tensor,
    units: Units,
) -> tuple[State, State]:
    """Return the regression gradients of the prediction that was made one tick ago."""
    bundle, emitted = cut.bundle, carry.predictions[index]
    assert bundle is not None
    assert emitted is not None
    h = carry.outputs[index]
    code = _code(cut, carry.labels, h.dtype)
    then = state | carry.weights[index]
    weights = {name: then[name] for name in _names(cut) if name in plan.fitted}

    def predict(given: State) -> tuple[Tensor, State]:
        return bundle.run(then | given, h, code)

    again, pull, buffers = _vjp(predict, weights)
    prediction = again if plan.fit_again else emitted
    (found,) = pull(cut.signal.fit_gradient(prediction, target, units).to(again.dtype))
    return found, buffers


def weights_for_later(plan: Plan, cut: Cut, state: State) -> State:
    """Return copies of the synthesizers' numbers, where a late fit needs those of today."""
    if not cut.signal.fits_target or cut.is_linear or plan.fit_again:
        return {}
    return {name: state[name].clone() for name in _names(cut)}


def _masked(plan: Plan, state: State, buffers: State, mask: Tensor | None) -> State:
    """Return the new buffers, with those of stages that are not concerned as they were."""
    if mask is None:
        return buffers
    return {
        name: torch.where(_lift(_pick(mask, plan.slots[name]), value), value, state[name])
        for name, value in buffers.items()
    }


def _update(
    plan: Plan,
    rule: Rule,
    state: State,
    gradients: State,
    moments: dict[str, list[Tensor]],
    rates: Tensor,
    steps: Tensor,
    mask: Tensor | None,
) -> None:
    for name, gradient in gradients.items():
        slots = plan.slots[name]
        rule.update(
            state[name],
            gradient,
            moments[name],
            rate=_pick(rates, slots),
            steps=_pick(steps, slots),
            mask=None if mask is None else _pick(mask, slots),
        )


def _pick(values: Tensor, slots: tuple[int, ...]) -> Tensor:
    """Return the stages' rows, as a view where they are neighbors; without the axis for one."""
    if len(slots) == 1:
        return values[slots[0]]
    if slots == tuple(range(slots[0], slots[-1] + 1)):
        return values[slots[0] : slots[-1] + 1]
    return torch.stack([values[s] for s in slots])


def _lift(values: Tensor, like: Tensor) -> Tensor:
    """Give a vector over stages the axes that it needs to be broadcast."""
    return values.reshape(values.shape + (1,) * (like.dim() - values.dim()))
