"""Stages from modules: what each hands up for the examples, and the interfaces for that."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.errors import ConfigError
from synthgrad.interface import Interface, Step
from synthgrad.signals import ErrorSignal
from synthgrad.stage.stage import Stage
from synthgrad.trees import float_tensors
from synthgrad.validate import call, restored


def make_stages(
    modules: Sequence[nn.Module],
    step: Step,
    *,
    example_inputs: Any,
    signal: ErrorSignal,
    mean: bool,
) -> list[Stage]:
    """Put an interface on top of every module but the last.

    Args:
        modules: bottom first.
        step: what the interfaces share.
        example_inputs: of the first module.
        signal: what every interface hands down.
        mean: whether the loss is a mean over the batch.

    Raises:
        ConfigError: an activation does not suit the signal.
    """
    examples, in_place = _try(modules, example_inputs)
    stages = list[Stage]()
    for index, module in enumerate(modules):
        interface = None
        if index < len(modules) - 1:
            interface = Interface(
                str(index),
                index,
                signal,
                _build(signal, index, examples[index]),
                step,
                mean=mean,
                clone=False,
                release=False,
            )
        stages.append(Stage(module, interface, works_in_place=in_place[index]))
    return stages


def _try(
    modules: Sequence[nn.Module], example_inputs: Any
) -> tuple[list[list[Tensor]], list[bool]]:
    """Return, a stage, what it hands up for the examples, and whether it changes its input."""
    examples, in_place = list[list[Tensor]](), list[bool]()
    h = example_inputs
    with restored(nn.ModuleList(modules)), torch.no_grad():
        for index, module in enumerate(modules):
            before = [(t, t._version) for t in float_tensors(h)] if index else []
            h = module(h) if index else call(module, h)
            in_place.append(any(t._version != version for t, version in before))
            examples.append([t.detach() for t in float_tensors(h)])
    return examples, in_place


def _build(signal: ErrorSignal, index: int, examples: Sequence[Tensor]) -> list[nn.Module]:
    try:
        built = [signal.build(example) for example in examples]
    except ConfigError as error:
        raise ConfigError(f"on top of stage {index}: {error}") from error
    return [module for module in built if module is not None]
