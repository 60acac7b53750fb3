"""The synthesizers' part of a tick: predict, emit, and fit to the target one tick later."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp

from synthgrad.engines.wavefront.bundles import State
from synthgrad.engines.wavefront.plan import Carry, Cut, Masks, Plan
from synthgrad.engines.wavefront.slots import lift, pick
from synthgrad.signals import Units
from synthgrad.synthesizers import OneHot


def names_of(cut: Cut) -> list[str]:
    """Return the names in the state of what stands on the stages below a cut."""
    return [] if cut.bundle is None else [cut.bundle.key + name for name in cut.bundle.names]


def code_of(cut: Cut, all_labels: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return the encoded condition of the stages below a cut; None if it takes none.

    Args:
        cut: the interfaces.
        all_labels: [stages, batch, ...], of the batch that each stage works on.
        dtype: of the code.
    """
    encoder = cut.signal.conditioned_on
    if encoder is None:
        return None
    labels = pick(all_labels, cut.slots)
    if isinstance(encoder, OneHot):  # whose own `encode` looks at the numbers, which waits for them
        classes = torch.arange(encoder.size, device=labels.device)
        return (labels.unsqueeze(-1) == classes).to(dtype)
    if len(cut.slots) == 1:
        return encoder.encode(labels, dtype)
    return torch.stack([encoder.encode(own, dtype) for own in labels])


def predict(cut: Cut, state: State, h: Tensor, all_labels: Tensor) -> tuple[Tensor | None, State]:
    """Return the predictions for activations, and the synthesizers' buffers afterwards."""
    if cut.bundle is None or not cut.signal.fits_target:
        return None, {}
    return cut.bundle.run(state, h, code_of(cut, all_labels, h.dtype))


def emit(
    cut: Cut, h: Tensor, prediction: Tensor | None, units: Units, masks: Masks | None
) -> Tensor:
    """Return what is handed down through a cut, in the dtype of the activations `h`."""
    # Whether `fit_first` is over differs between stages, so it is a matter of the mask.
    signal = cut.signal.emit(prediction, None, units, sys.maxsize)
    assert signal is not None
    if masks is not None:
        signal = signal * lift(pick(masks.emits, cut.slots), signal)
    return signal.to(h.dtype)


def fit(
    plan: Plan,
    cut: Cut,
    state: State,
    carry: Carry,
    index: int,
    target: Tensor,
    units: Units,
) -> tuple[State, State]:
    """Return the regression gradients of the prediction that was made one tick ago.

    Beside them: the synthesizers' buffers, had they predicted anew.
    """
    bundle, emitted = cut.bundle, carry.predictions[index]
    assert bundle is not None
    assert emitted is not None
    h = carry.outputs[index]
    code = code_of(cut, carry.labels, h.dtype)
    then = state | carry.weights[index]
    weights = {name: then[name] for name in names_of(cut) if name in plan.fitted}

    def again(given: State) -> tuple[Tensor, State]:
        return bundle.run(then | given, h, code)

    predicted, pull, buffers = pullback(again, weights)
    prediction = predicted if plan.fit_again else emitted
    (found,) = pull(cut.signal.fit_gradient(prediction, target, units).to(predicted.dtype))
    return found, buffers


def weights_for_later(plan: Plan, cut: Cut, state: State) -> State:
    """Return the synthesizers' numbers, where a late fit needs those of today."""
    if not cut.signal.fits_target or cut.is_linear or plan.fit_again:
        return {}
    return {name: state[name] for name in names_of(cut)}


def pullback(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any], Any]:
    """Return a function's output, its vector-Jacobian product, and what it returns beside."""
    found: Any = vjp(function, *primals, has_aux=True)
    return found
