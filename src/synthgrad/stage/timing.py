"""How long each child of a model takes, and a signal on top of it, measured here and now."""

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.errors import ConfigError
from synthgrad.signals import ErrorSignal
from synthgrad.trees import float_tensors, replace_float_tensors
from synthgrad.validate import call, restored

ROUNDS = 11


def seconds_of_each(modules: Sequence[nn.Module], example_inputs: Any) -> list[float]:
    """Return the median seconds of a training pass through each module, given the one before's.

    A pass is a forward and the gradients of the parameters and of the input (of the first module:
    of the parameters alone). Rounds go over all modules in turn, so that a disturbance does not
    fall on one of them. Buffers, training flags and random state are put back; gradients that
    parameters hold are not touched.

    Args:
        modules: each is called with what the one before it returns.
        example_inputs: of the first one, of the batch size that the times are wanted for.
    """
    whole = nn.ModuleList(modules)
    rounds = list[list[float]]()
    with restored(whole), torch.enable_grad():
        whole.train()
        inputs = list[Any]()
        h = example_inputs
        for index, module in enumerate(modules):
            inputs.append(h)
            h = _detached(module(_copies(h)) if index else call(module, h))
        for _ in range(ROUNDS + 2):
            rounds.append([_seconds(m, inputs[k], k == 0) for k, m in enumerate(modules)])
    return [statistics.median(times) for times in zip(*rounds[2:], strict=True)]


def seconds_of_signal(
    modules: Sequence[nn.Module], example_inputs: Any, signal: ErrorSignal
) -> list[float]:
    """Return the median seconds that a signal would take a batch on top of each module.

    That is a prediction to emit, and the fit to a target that comes later: another prediction, and
    the gradients of the synthesizer's parameters. 0 where nothing is predicted: for signals without
    synthesizers, for those that train a stage by a loss of its own, whose heads are small, and on
    top of the last module, where nothing stands. Infinity where an activation does not suit the
    signal.

    Args:
        modules: each is called with what the one before it returns.
        example_inputs: of the first one, of the batch size that the times are wanted for.
        signal: what would stand there.
    """
    if signal.is_local or signal.fits_loss:
        return [0.0] * len(modules)
    found = list[float]()
    with restored(nn.ModuleList(modules)):
        h = example_inputs
        for index, module in enumerate(modules[:-1]):
            with torch.no_grad():
                h = module(h) if index else call(module, h)
            found.append(_seconds_on_top(signal, [t.detach() for t in float_tensors(h)]))
    return [*found, 0.0]


def _seconds_on_top(signal: ErrorSignal, activations: Sequence[Tensor]) -> float:
    try:
        built = [(t, signal.build(t)) for t in activations]
    except ConfigError:
        return math.inf
    predictions = [_Prediction(signal, m, t) for t, m in built if m is not None]
    times = [sum(p.seconds() for p in predictions) for _ in range(ROUNDS + 2)]
    return statistics.median(times[2:])


class _Prediction:
    """A synthesizer on an activation; no condition need be at hand for its time."""

    def __init__(self, signal: ErrorSignal, module: nn.Module, h: Tensor) -> None:
        self.signal = signal
        self.module = module
        self.h = h
        condition = signal.conditioned_on
        self.code = None if condition is None else h.new_zeros(h.shape[0], condition.size)

    def seconds(self) -> float:
        wanted = [p for p in self.module.parameters() if p.requires_grad]
        _wait([self.h])
        start = time.perf_counter()
        with torch.no_grad():
            self.signal.predict(self.module, self.h, self.code)
        with torch.enable_grad():
            prediction = self.signal.predict(self.module, self.h, self.code)
            if wanted:
                torch.autograd.grad(prediction, wanted, torch.ones_like(prediction))
        _wait([self.h])
        return time.perf_counter() - start


def _seconds(module: nn.Module, inputs: Any, first: bool) -> float:
    wanted = [p for p in module.parameters() if p.requires_grad]
    given = inputs
    if not first:
        leaves = [t.detach().requires_grad_() for t in float_tensors(inputs)]
        wanted += leaves
        given = _copies(replace_float_tensors(inputs, leaves))
    _wait(wanted)
    start = time.perf_counter()
    output = call(module, given) if first else module(given)
    tops = [t for t in float_tensors(output) if t.requires_grad]
    if tops and wanted:
        ones = [torch.ones_like(t) for t in tops]
        torch.autograd.grad(tops, wanted, ones, allow_unused=True)
    _wait(wanted)
    return time.perf_counter() - start


def _copies(tree: Any) -> Any:
    """Return a copy, which a module may change in place."""
    return replace_float_tensors(tree, [t.clone() for t in float_tensors(tree)])


def _detached(tree: Any) -> Any:
    return replace_float_tensors(tree, [t.detach() for t in float_tensors(tree)])


def _wait(tensors: Sequence[Tensor]) -> None:
    for device in {t.device for t in tensors if t.is_cuda}:
        torch.cuda.synchronize(device)
