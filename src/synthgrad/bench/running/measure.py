"""What an arm costs beside time, counted and not timed: operations, parameters and memory."""

import itertools
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from synthgrad.bench.running.learner import Learner
from synthgrad.updates import draw_updates

_MAX_ENUMERATED_STAGES = 6
_NUM_SAMPLES = 64


def measure_facts(learner: Learner, inputs: Tensor, labels: Tensor) -> dict[str, Any]:
    """Count what one training iteration of a learner needs.

    It trains the learner, so do it on dummy data, after a first step (which makes the optimizer's
    state), and restore the learner afterward.

    Args:
        learner: the learner.
        inputs: one batch.
        labels: its labels.

    Returns:
        `flops_per_iteration` (matrix products and convolutions, forward and backward; where stages
        are skipped at random, the expectation over which are), `stage_parameters`,
        `synthesizer_parameters`, `num_stages`, and `memory_bytes`: parameters, buffers, gradients,
        optimizer state and saved activations at their peak, with every stage updated. On CUDA it
        is what was allocated at most. None for a compiled learner on the CPU, whose buffers cannot
        be seen.
    """
    on_cuda = inputs.device.type == "cuda"
    parameters = list(learner.net.parameters())
    flops, memory = 0.0, 0
    for share in _ways_to_update(learner):
        with FlopCounterMode(display=False) as counter:
            saved = peak_saved_bytes(partial(_differentiate, learner, inputs, labels), parameters)
        flops += share * counter.get_total_flops()
        counted = saved + _held_bytes(learner)
        learner.optimizer.step()
        learner.optimizer.zero_grad()
        memory = max(memory, _peak_allocated(learner, inputs, labels) if on_cuda else counted)
    decoupled = learner.decoupled
    synthesizers = _num_parameters(decoupled.synthesizer_parameters()) if decoupled else 0
    return {
        "flops_per_iteration": round(flops),
        "stage_parameters": _num_parameters(learner.model.parameters()),
        "synthesizer_parameters": synthesizers,
        "num_stages": learner.num_stages,
        "memory_bytes": None if learner.compiled and not on_cuda else memory,
    }


def peak_saved_bytes(run: Callable[[], Any], exclude: Iterable[Tensor] = ()) -> int:
    """Return the most bytes that autograd keeps for backward at any moment of `run()`.

    Storages that are saved several times count once, and no longer than until the graph lets go
    of them.

    Args:
        run: a forward and a backward pass.
        exclude: tensors that are there anyway, such as parameters.
    """
    excluded = {tensor.untyped_storage().data_ptr() for tensor in exclude}
    holders = Counter[int]()
    live = peak = 0

    def release(pointer: int, num_bytes: int) -> None:
        nonlocal live
        holders[pointer] -= 1
        if not holders[pointer]:
            live -= num_bytes

    def pack(tensor: Tensor) -> Callable[[], Tensor]:
        nonlocal live, peak
        storage = tensor.untyped_storage()
        pointer, num_bytes = storage.data_ptr(), storage.nbytes()
        # A detached alias: holding an output itself would keep its whole graph alive in a cycle.
        alias = tensor.detach()
        kept = lambda: alias  # noqa: E731  # a function object, which can be weakly referenced
        if pointer not in excluded:
            if not holders[pointer]:
                live += num_bytes
                peak = max(peak, live)
            holders[pointer] += 1
            weakref.finalize(kept, release, pointer, num_bytes)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept()):
        run()
    return peak


def _peak_allocated(learner: Learner, inputs: Tensor, labels: Tensor) -> int:
    """Return the most bytes that CUDA had allocated during a step, data included."""
    torch.cuda.synchronize(inputs.device)
    torch.cuda.reset_peak_memory_stats(inputs.device)
    learner.step(inputs, labels)
    torch.cuda.synchronize(inputs.device)
    return torch.cuda.max_memory_allocated(inputs.device)


def _differentiate(learner: Learner, inputs: Tensor, labels: Tensor) -> None:
    learner.eager_loss(inputs, labels).backward()


def _ways_to_update(learner: Learner) -> Iterator[float]:
    """Hold the learner to each choice of updated stages in turn, and yield its probability."""
    net = learner.decoupled
    if net is None or min(net._probabilities) == 1:
        yield 1.0
        return
    probabilities = net._probabilities
    try:
        for share, chosen in _choices(probabilities):
            # Probability 0 is refused in a config, and means never to the draw.
            net._probabilities = tuple(float(updated) for updated in chosen)
            yield share
    finally:
        net._probabilities = probabilities


def _choices(probabilities: Sequence[float]) -> Iterator[tuple[float, tuple[bool, ...]]]:
    """Yield (probability, which stages are updated), beginning with all of them.

    All choices for a few stages; for many, a sample that any later run repeats.
    """
    num_stages = len(probabilities)
    if num_stages > _MAX_ENUMERATED_STAGES:
        yield 0.0, (True,) * num_stages
        for step in range(_NUM_SAMPLES):
            yield 1 / _NUM_SAMPLES, draw_updates(probabilities, seed=0, step=step)
        return
    for chosen in itertools.product((True, False), repeat=num_stages):
        pairs = zip(probabilities, chosen, strict=True)
        yield math.prod(p if updated else 1 - p for p, updated in pairs), chosen


def _held_bytes(learner: Learner) -> int:
    """Return the bytes of parameters, buffers, gradients and optimizer state."""
    parameters = list(learner.net.parameters())
    gradients = [p.grad for p in parameters if p.grad is not None]
    states = [
        value
        for state in learner.optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]
    tensors = [*parameters, *learner.net.buffers(), *gradients, *states]
    return sum(tensor.nbytes for tensor in tensors)


def _num_parameters(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)
