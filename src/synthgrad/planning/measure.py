"""The times of a chain's stages on this machine, as a plan starts from."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from synthgrad.engines.rules import OptimizerFactory
from synthgrad.errors import ConfigError
from synthgrad.planning.measurements import Link, Measurements
from synthgrad.planning.meter import StageMeter
from synthgrad.signals import LocalLoss
from synthgrad.stage import Chain, Stage


def measure_stages(
    chain: Chain,
    example_inputs: Tensor,
    labels: Tensor,
    *,
    loss: Callable[[Any, Tensor], Tensor],
    optimizer: OptimizerFactory,
    num_classes: int | None = None,
    rounds: int = 15,
    source: str = "",
    link: Link | None = None,
) -> Measurements:
    """Time every stage of a chain: medians of rounds that take all stages in turn.

    It trains a copy, so the chain stays as it is. Threads are those of the calling process.

    Args:
        chain: the stages, with the signals whose cost is asked for.
        example_inputs: one batch.
        labels: its labels.
        loss: from (outputs, labels) to a scalar.
        optimizer: makes an optimizer from parameters, for stages and synthesizers.
        num_classes: for the cost of a local loss on top of each stage; without it that is left out.
        rounds: how often each is timed; one more before them is not counted.
        source: where the numbers come from, one line for people.
        link: between two stages, where it is known.

    Raises:
        ConfigError: the batch has fewer than two examples, or there are no rounds.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> batch = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 1, 0])
        >>> two = [nn.Linear(4, 8), nn.Linear(8, 2)]
        >>> chain = Chain.from_modules(two, example_inputs=batch[0])
        >>> loss, optimizer = nn.functional.cross_entropy, torch.optim.Adam
        >>> times = measure_stages(chain, *batch, loss=loss, optimizer=optimizer, rounds=1)
        >>> times.stages[0].activation_bytes  # 6 examples of 8 units
        192
    """
    if len(labels) < 2 or rounds < 1:
        raise ConfigError(
            f"a batch of {len(labels)} examples and rounds={rounds}: give 2 or more and 1 or more"
        )
    chain = copy.deepcopy(chain)
    local: list[Stage | None] = [None] * len(chain)
    if num_classes is not None:
        modules = [stage.module for stage in chain]
        signal = LocalLoss(num_classes=num_classes)
        local = list(Chain.from_modules(modules, example_inputs=example_inputs, signal=signal))
    meters, h = list[StageMeter](), example_inputs
    for index, stage in enumerate(chain):
        meters.append(
            StageMeter(
                stage,
                h,
                labels,
                first=index == 0,
                loss=loss,
                optimizer=optimizer,
                local_stage=local[index],
            )
        )
        with torch.no_grad():
            h = stage(h)
    for _ in range(rounds + 1):
        for meter in meters:
            meter.go()
    return Measurements(
        stages=tuple(meter.times() for meter in meters),
        link=link or Link(),
        batch_size=len(labels),
        source=source or f"measured in one process of {torch.get_num_threads()} threads",
    )
