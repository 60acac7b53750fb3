"""One tick: every stage at once, each on its own batch, as one function of tensors.

A pure function but for one commit at its end: whatever can fail has then been computed. All
stages' outputs come from one joint forward, and one vector-Jacobian product of it gives every
stage's parameter gradient and every target. Nothing in it waits for the device or depends on a
number there, so that it can be compiled and recorded.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synthgrad.engines.wavefront.bundles import State, Streams
from synthgrad.engines.wavefront.optimizers import Rule
from synthgrad.engines.wavefront.plan import Carry, Counts, Masks, Outcome, Plan
from synthgrad.engines.wavefront.side_streams import side_by_side
from synthgrad.engines.wavefront.slots import lift, pick
from synthgrad.engines.wavefront.synthesis import (
    code_of,
    emit,
    fit,
    names_of,
    predict,
    pullback,
    weights_for_later,
)
from synthgrad.signals import Units

Moments = dict[str, list[Tensor]]


def tick(
    plan: Plan,
    state: State,
    moments: Moments,
    counts: Counts,
    carry: Carry,
    inputs: Tensor,
    labels: Tensor,
    masks: Masks | None,
) -> Outcome:
    """Let stage i work on batch t - i, for all i at once.

    Args:
        plan: what is fixed.
        state: parameters and buffers of stages and synthesizers, stacked; changed in place.
        moments: the optimizers' running averages by name in `state`; changed in place.
        counts: steps and learning rates; the steps are changed in place.
        carry: from the tick before, for the next one; changed in place.
        inputs: of the bottom stage's batch.
        labels: of the same.
        masks: None if every stage does everything.
    """
    all_labels = torch.cat([labels.unsqueeze(0), carry.labels[:-1]])
    units = Units.of(inputs.shape[0], mean=plan.mean)
    fits = [k for k, cut in enumerate(plan.cuts) if cut.signal.fits_target]
    local = [cut for cut in plan.cuts if cut.signal.is_local]
    heads = [name for cut in local for name in names_of(cut) if name in plan.fitted]
    trained = {name: state[name] for name in (*plan.trained, *heads)}
    kept = list[Tensor]()

    def joint(weights: State, below: Sequence[Tensor]) -> tuple[Any, Any]:
        """Run every stage forward.

        Differentiable: what goes up through the cuts with a target, and the losses. Beside it:
        what goes up through all, the top's loss, and the new buffers of stages and of heads.
        """
        given = dict(zip(fits, below, strict=True))
        entering: list[tuple[tuple[int, ...], Tensor]] = [((0,), inputs)]
        for k, cut in enumerate(plan.cuts):
            entering.append((tuple(s + 1 for s in cut.slots), given.get(k, carry.outputs[k])))
        now = state | weights
        streams, buffers = _climb(plan, now, Streams(entering), kept)
        ups = [streams.take(cut.slots) for cut in plan.cuts]
        loss = plan.loss(streams.take((plan.num_stages - 1,)), all_labels[-1])
        total, head_buffers = loss, State()
        for cut in local:
            assert cut.bundle is not None
            h = ups[plan.cuts.index(cut)]
            scores, new = cut.bundle.run(now, h)
            head_buffers.update(new)
            code = code_of(cut, all_labels, h.dtype)
            assert code is not None
            # Summed, because no stage's parameters are in another one's loss.
            of_labels = Units.of(labels.numel(), mean=plan.mean)
            total = total + cut.signal.local_loss(scores, code, of_labels)
        return ([ups[k] for k in fits], total), (ups, loss, buffers, head_buffers)

    with _autocast(plan):
        below = [carry.outputs[k] for k in fits]
        (_, total), pull, (ups, loss, buffers, head_buffers) = pullback(joint, trained, below)
        predictions = list[Tensor | None]()
        synthesizer_buffers = State()
        for cut, h in zip(plan.cuts, ups, strict=True):
            prediction, new = predict(cut, state, h, all_labels)
            predictions.append(prediction)
            synthesizer_buffers.update(new)
    signals = [emit(plan.cuts[k], ups[k], predictions[k], units, masks) for k in fits]
    gradients, targets = pull((signals, torch.ones_like(total)))
    fit_gradients = {name: gradients.pop(name) for name in heads}
    changed = _masked(plan, state, buffers, masks and masks.active)
    changed |= _masked(plan, state, head_buffers, masks and masks.updated)
    changed |= _masked(plan, state, synthesizer_buffers, masks and masks.predicted)
    for k, target in zip(fits, targets, strict=True):
        with _autocast(plan):
            found, new = fit(plan, plan.cuts[k], state | changed, carry, k, target, units)
        fit_gradients |= found
        if plan.fit_again:
            changed |= _masked(plan, state | changed, new, masks and masks.fitted)

    rates = torch.cat([counts.rate.reshape(1), carry.rates[:-1]])
    synthesizer_rates = torch.cat(
        [counts.synthesizer_rate.reshape(1), carry.synthesizer_rates[:-1]]
    )
    commit = [(state[name], value) for name, value in changed.items()]
    for rule, found, its_rates, mask, steps, corrections in (
        (
            plan.rule,
            gradients,
            rates,
            masks and masks.updated,
            counts.steps,
            counts.corrections,
        ),
        (
            plan.synthesizer_rule,
            fit_gradients,
            synthesizer_rates,
            masks and masks.fitted,
            counts.fit_steps,
            counts.fit_corrections,
        ),
    ):
        after = steps + (1 if mask is None else mask)
        commit.append((steps, after))
        if rule is not None:
            commit += _updates(plan, rule, state, found, moments, its_rates, corrections, mask)
            commit.append((corrections, rule.corrections(after + 1)))
    commit += [(carry.labels, all_labels), (carry.rates, rates)]
    commit += [(carry.synthesizer_rates, synthesizer_rates)]
    commit += zip(carry.outputs, ups, strict=True)
    for place, prediction in zip(carry.predictions, predictions, strict=True):
        if place is not None and prediction is not None:
            commit.append((place, prediction))
    for cut, places in zip(plan.cuts, carry.weights, strict=True):
        for name, value in weights_for_later(plan, cut, state).items():
            places[name].copy_(value)
    _commit(commit)
    return Outcome(
        loss.detach(),
        {} if plan.rule else gradients,
        {} if plan.synthesizer_rule else fit_gradients,
    )


def _climb(plan: Plan, state: State, streams: Streams, kept: list[Tensor]) -> tuple[Streams, State]:
    """Return the activations above the last place, and the stages' buffers afterwards.

    What passes between CUDA streams is put into `kept`: its memory must not be used anew before
    they have met again.
    """
    buffers = State()
    for place in plan.places:
        moved = list[tuple[tuple[int, ...], Tensor]]()
        given = [streams.take(bundle.slots) for bundle in place]
        with side_by_side(plan.streams[: len(place) - 1]) as beside:
            for number, (bundle, below) in enumerate(zip(place, given, strict=True)):
                with beside(number):
                    h, new = bundle.run(state, below)
                moved.append((bundle.slots, h))
                buffers.update(new)
        if plan.streams:
            kept += [*given, *(h for _, h in moved)]
        streams = streams.after(moved)
    return streams, buffers


def _autocast(plan: Plan) -> Any:
    device, dtype = plan.autocast or ("cpu", torch.bfloat16)
    # A cast that is kept would be one tick's tensor in the next one's recording.
    return torch.autocast(device, dtype, enabled=plan.autocast is not None, cache_enabled=False)


def _masked(plan: Plan, state: State, buffers: State, mask: Tensor | None) -> State:
    """Return the new buffers, with those of stages that are not concerned as they were."""
    if mask is None:
        return buffers
    return {
        name: torch.where(lift(pick(mask, plan.slots[name]), value), value, state[name])
        for name, value in buffers.items()
    }


def _updates(
    plan: Plan,
    rule: Rule,
    state: State,
    gradients: State,
    moments: Moments,
    rates: Tensor,
    corrections: Tensor,
    mask: Tensor | None,
) -> list[tuple[Tensor, Tensor]]:
    """Return parameters and moments, each with what it is after the optimizer's step."""
    found = list[tuple[Tensor, Tensor]]()
    for name, gradient in gradients.items():
        slots = plan.slots[name]
        own = [state[name], *moments[name]]
        after = rule.step(
            state[name],
            gradient,
            moments[name],
            rate=pick(rates, slots),
            corrections=(pick(corrections[0], slots), pick(corrections[1], slots)),
        )
        if mask is not None:
            chosen = pick(mask, slots)
            after = [
                torch.where(lift(chosen, was), new, was)
                for was, new in zip(own, after, strict=True)
            ]
        found += zip(own, after, strict=True)
    return found


def _commit(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Write every new value to its place; one that shares a place's memory is copied first."""
    places = {place.untyped_storage()._cdata for place, _ in pairs}
    safe = [
        value.clone() if value.untyped_storage()._cdata in places else value for _, value in pairs
    ]
    for (place, _), value in zip(pairs, safe, strict=True):
        place.copy_(value)
