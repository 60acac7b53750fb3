"""Warm-up: run a few steps on dummy data so that compiling and allocating are done, then undo them.

What it costs is the cold time. What it must not do is train: the state before and after is compared
bit for bit.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from synthgrad.bench.clock import Stopwatch
from synthgrad.bench.running.fingerprint import fingerprint
from synthgrad.bench.running.learner import Learner
from synthgrad.bench.running.measure import measure_facts
from synthgrad.bench.running.randomness import random_state, restore_random_state
from synthgrad.data import Dataset
from synthgrad.errors import EngineError


def dummy_batch(data: Dataset, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return random inputs [batch, ...] and labels [batch] of the data's shape, always the same."""
    device = data.train.labels.device
    inputs = torch.rand(batch_size, *data.input_shape, generator=torch.Generator().manual_seed(0))
    return inputs.to(device), (torch.arange(batch_size) % data.num_classes).to(device)


def warm_up(
    learner: Learner, batch: tuple[Tensor, Tensor], watch: Stopwatch, *, num_steps: int
) -> dict[str, Any]:
    """Make a learner ready, and leave it as it was.

    Args:
        learner: a fresh learner, or one that will be given its state afterward.
        batch: dummy inputs and labels.
        watch: runs during the steps if it ran before; stands while the state is copied, measured,
            restored and compared.
        num_steps: steps on the dummy batch.

    Returns:
        What `measure_facts` counted.

    Raises:
        EngineError: the state after restoring is not what it was before.
    """
    device = batch[0].device
    with watch.paused():
        before = copy.deepcopy(learner.state_dict())
        random_before = random_state(device)
        mark = fingerprint(before, random_before)
    for _ in range(num_steps):
        learner.step(*batch)
    with watch.paused():
        facts = _facts(learner, batch)
        learner.load_state_dict(before)
        restore_random_state(random_before, device)
        after = fingerprint(learner.state_dict(), random_state(device))
        if after != mark:
            raise EngineError(
                "the warm-up left a trace: load_state_dict does not restore all that state_dict "
                "returned (parameters, buffers, extra state, optimizer), or a step drew random "
                "numbers from a generator of its own."
            )
    return facts


def _facts(learner: Learner, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
    counted = learner.counted
    if counted is not learner:
        counted.step(*batch)  # it has not trained yet, and its optimizer's state is memory too
    facts = measure_facts(counted, *batch)
    held, carried = facts["memory_bytes"], learner.carried_bytes
    facts["memory_bytes"] = None if held is None or carried is None else held + carried
    return facts
