"""Time to a goal: each method in its turn trains from the start, with looks at fixed points.

The clock of a rank runs while it trains, stands still while all evaluate, and of each stretch
between two looks the slowest rank's seconds count. Building is part of the first stretch.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist

from synthgrad.engines.pipeline import Transport, connect
from synthgrad.experiments.pipeline.methods import Name, Setting
from synthgrad.experiments.pipeline.runner import Runner
from synthgrad.experiments.pipeline.workload import Batch


@dataclass(frozen=True, kw_only=True)
class Race:
    """Runs of some methods, one after the other in one launch.

    Args:
        setting: how they are made.
        rates: learning rate of each method, in this order.
        goal_percent: at which a run ends.
        every: steps from one look to the next.
        most: steps, at which a run ends that has not reached the goal.
    """

    setting: Setting
    rates: Mapping[Name, float]
    goal_percent: float
    every: int
    most: int


def run_race(race: Race) -> list[list[dict[str, Any]]]:
    """Run every method and return the looks at each; called on every rank."""
    torch.set_num_threads(1)
    with connect() as transport:
        return [_run(race, name, k, transport) for k, name in enumerate(race.rates)]


def _run(race: Race, name: Name, lanes: int, transport: Transport) -> list[dict[str, Any]]:
    dist.barrier()
    start = time.perf_counter()
    workload = replace(race.setting.workload, learning_rate=race.rates[name])
    setting = replace(race.setting, workload=workload)
    runner = setting.make(name, transport, lanes=lanes)
    stretch = time.perf_counter() - start
    batches, judged = workload.batches(), workload.judged()
    looks = list[dict[str, Any]]()
    for done in range(race.every, race.most + 1, race.every):
        stretch += runner.run(list(islice(batches, race.every)))
        looks.append({"iteration": done, "stretch_s": stretch, **_look(runner, judged)})
        stretch = 0.0
        if not looks[-1]["val_accuracy"] < race.goal_percent:
            break
    runner.flush()
    dist.barrier()
    return looks


def _look(runner: Runner, judged: Sequence[Batch]) -> dict[str, float]:
    """Evaluate where the network is, and tell all ranks, so that all stop at the same place."""
    dist.barrier()
    found = runner.evaluate(judged)
    told = torch.zeros(2, dtype=torch.float64)
    if found is not None:
        told[0] = float("nan") if found.accuracy is None else found.accuracy
        told[1] = found.loss
    dist.broadcast(told, 0)
    return {"val_accuracy": told[0].item(), "val_loss": told[1].item()}


def merge_race(ranks: Sequence[Sequence[Any]], race: Race) -> Iterator[Mapping[str, Any]]:
    """Yield a "look" event for each look, with the clock up to it."""
    for name, *runs in zip(race.rates, *ranks, strict=True):
        seconds = 0.0
        for looks in zip(*runs, strict=True):
            seconds += max(look["stretch_s"] for look in looks)
            yield {
                "event": "look",
                "method": name,
                "iteration": looks[0]["iteration"],
                "examples": looks[0]["iteration"] * race.setting.workload.batch_size,
                "seconds": seconds,
                "val_accuracy": looks[0]["val_accuracy"],
                "val_loss": looks[0]["val_loss"],
            }
