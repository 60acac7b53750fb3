"""The signal is made of the output error: the stage below waits for that alone, at the anchor."""

from functools import partial

import torch
from torch import Tensor, nn

from synthgrad.interface.interface import Interface
from synthgrad.interface.output_error import KickedStage, OutputError
from synthgrad.signals import ErrorSignal
from synthgrad.trees import Tree, float_tensors


def feed_back(interface: Interface, output: Tree) -> Tree:
    """Have the output error projected onto the activation in backward.

    What goes up needs no gradient, so the stage above computes none.
    """
    if interface.updates_below:
        leaves = interface.leaves(output, interface.synthesizers)
        error = interface.step.error
        for module, h in zip(interface.synthesizers, leaves, strict=True):
            if h.requires_grad:
                start = partial(_fed_back, interface.signal, module, error, h.shape, h.dtype)
                interface.attach(h, start)
    return interface.detached(output)


def kick_back(interface: Interface, output: Tree) -> Tree:
    """Have the output error taken through the stage above, and no further, in backward."""
    if not interface.updates_below:
        return interface.detached(output)
    leaves = float_tensors(output)
    passed = [h.detach().requires_grad_() for h in leaves]
    stage = KickedStage(interface.signal, passed)
    interface.step.kicked = stage
    interface.step.error.when_there(stage.take)
    for k, h in enumerate(leaves):
        if h.requires_grad:
            interface.attach(h, partial(_kicked_back, stage, k))
    # Views, because hooks on modules (such as those that count operations) take no leaf.
    return interface.hand_up(output, [h.view_as(h) for h in passed])


def _fed_back(
    signal: ErrorSignal,
    module: nn.Module,
    error: OutputError,
    shape: torch.Size,
    dtype: torch.dtype,
) -> Tensor:
    return signal.project_error(module, error.value, shape).to(dtype)


def _kicked_back(stage: KickedStage, index: int) -> Tensor:
    return stage.gradients[index]
