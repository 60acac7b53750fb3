"""Two networks on two clocks: what a synthetic gradient for their messages is worth.

Network A reads a digit a step and counts the odd ones of the last T; every T steps it sends a
message to network B, which counts the threes of the last T * T. B never sees a digit, so it can
count only what A learned to tell it, and A learns that from the gradient of B's loss. A true one is
there every T * T steps; a synthetic one every T.

The arm "cdni" is ours: its synthesizer is also told how many threes a message is about, as the
conditioned signals of feed-forward networks are told the labels. Without, its best prediction is
E[dL_B/dm | m], which fades as B learns to make the most of what A tells it (`unlabeled/limit.py`).

Beside the paper's preset everything is smaller, LSTMs have no batch norm and the rate is larger.
What T was in the paper is not recalled.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from synthgrad.bench.running.tasks import Task
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Dataset, DigitStream, Split
from synthgrad.errors import ConfigError, DivergedError
from synthgrad.experiments.jaderberg2017.two_clocks_findings import LABELS, find
from synthgrad.experiments.jaderberg2017.two_networks import Digits, Sizes, TwoNetworks
from synthgrad.experiments.once import load_once
from synthgrad.experiments.study import Study, tasks_of_arms
from synthgrad.experiments.training import adam

Arm = Literal["coupled", "dni", "cdni", "no-gradient"]


@dataclass(frozen=True, kw_only=True)
class TwoClocksConfig:
    """What can be chosen.

    Args:
        arms: Ways to train the two networks.
        period: T, the steps between two messages; B's window is T * T steps.
        units: Of each LSTM, and of both layers of the network before the first.
        message_size: Numbers in a message.
        synthesizer_hidden: Units of the synthesizer's hidden layer.
        scale: Factor on the synthetic gradient whose synthesizer sees the message alone.
        told_scale: The same where it is also told the threes.
        batch_size: Streams side by side.
        learning_rate: Of Adam, for both networks.
        synthesizer_rate: The same for the synthesizer.
        num_steps: Digits of each stream that are trained on; whole windows of B.
        num_looks: Times that the errors are measured, evenly spaced; the last ends the run.
        validation_windows: Of B, that a look goes through; before them comes one that does not
            count.
        test_windows: The same for the last numbers.
        seeds: One run of each arm for each.
        device: cpu, cuda, cuda:1, ...
        data_dir: Where to look for the data first.

    Raises:
        ConfigError: A value cannot work.
    """

    arms: tuple[Arm, ...] = get_args(Arm)
    period: int = 3
    units: int = 64
    message_size: int = 64
    synthesizer_hidden: int = 256
    scale: float = 10.0
    told_scale: float = 1.0
    batch_size: int = 64
    learning_rate: float = 3e-3
    synthesizer_rate: float = 3e-3
    num_steps: int = 54_000
    num_looks: int = 20
    validation_windows: int = 5
    test_windows: int = 20
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        sizes = (self.period, self.units, self.message_size, self.synthesizer_hidden)
        if min(*sizes, self.batch_size, self.validation_windows, self.test_windows) < 1:
            raise ConfigError(f"every size in {self} must be 1 or more")
        between = self.num_steps / self.num_looks if self.num_looks > 0 else 0
        if between < 1 or between % self.period**2:
            raise ConfigError(
                f"num_steps={self.num_steps} in num_looks={self.num_looks} parts must make whole "
                f"windows of {self.period**2} steps"
            )
        if not min(self.learning_rate, self.synthesizer_rate) > 0:
            raise ConfigError(
                f"learning_rate={self.learning_rate} and synthesizer_rate={self.synthesizer_rate} "
                "must be above 0"
            )


PRESETS = {
    "smoke": TwoClocksConfig(
        period=2,
        units=16,
        message_size=8,
        synthesizer_hidden=16,
        num_steps=160,
        num_looks=2,
        validation_windows=1,
        test_windows=1,
        seeds=(0,),
    ),
    "quick": TwoClocksConfig(num_steps=9_000, num_looks=10, seeds=(0,)),
    "full": TwoClocksConfig(),
    "paper": TwoClocksConfig(
        units=256,
        message_size=256,
        batch_size=256,
        learning_rate=1e-5,
        synthesizer_rate=1e-5,
        num_steps=3_600_000,
        num_looks=50,
        seeds=(0, 1, 2, 3, 4),
    ),
}


def make_tasks(config: TwoClocksConfig) -> list[Task]:
    """Return a task for each arm and seed."""
    return tasks_of_arms(
        partial(measure, config),
        seeds=config.seeds,
        labels={arm: LABELS[arm] for arm in config.arms},
    )


def measure(config: TwoClocksConfig, arm: Arm, seed: int) -> Iterator[Mapping[str, Any]]:
    """Train two networks; yield a "look" at even spaces, and at the end "test"."""
    data = load_once("mnist", config.data_dir, config.device)
    networks = make_networks(config, arm, data).to(config.device)
    optimizer = make_optimizer(config, networks)
    stream = make_stream(config, data.train, config.batch_size, derive_seed(seed, "stream"))
    carry = None
    every = config.num_steps // config.num_looks
    for look in range(1, config.num_looks + 1):
        losses = list[Tensor]()
        for _ in range(every // networks.num_steps):
            answers, carry = networks(window(stream, networks.num_steps, config.period), carry)
            losses.append(networks.learn(answers, optimizer))
        loss = torch.stack(losses).mean().item()
        if not math.isfinite(loss):
            raise DivergedError(f"loss is {loss} after {look * every} steps")
        seen = errors(config, networks, data.validation, config.validation_windows, "validation")
        yield {"event": "look", "steps": look * every, "loss": loss, **seen}
    yield {"event": "test", **errors(config, networks, data.test, config.test_windows, "test")}


def make_networks(config: TwoClocksConfig, arm: Arm, data: Dataset) -> TwoNetworks:
    """Return untrained networks, the same for every arm with the same random state."""
    sizes = Sizes(
        period=config.period,
        pixels=math.prod(data.input_shape),
        units=config.units,
        message=config.message_size,
        synthesizer_hidden=config.synthesizer_hidden,
    )
    scale = config.told_scale if arm == "cdni" else config.scale
    return TwoNetworks(sizes, arm=arm, scale=scale)


def make_optimizer(config: TwoClocksConfig, networks: TwoNetworks) -> torch.optim.Optimizer:
    """Return Adam, of which parameters without a gradient stay as they are."""
    return adam(
        networks.own_parameters(),
        networks.synthesizer_parameters(),
        learning_rate=config.learning_rate,
        synthesizer_rate=config.synthesizer_rate,
        fused=False,
    )


def make_stream(config: TwoClocksConfig, split: Split, batch_size: int, seed: int) -> DigitStream:
    """Return a stream of digits with the counts that are asked for."""
    return DigitStream(split, batch_size=batch_size, period=config.period, seed=seed)


def window(stream: DigitStream, num_steps: int, period: int) -> Digits:
    """Return the next steps of a stream, a multiple of the period."""
    steps = list(islice(stream, num_steps))
    odd = [step.num_odd for step in steps if step.num_odd is not None]
    threes = [step.num_threes for step in steps if step.num_threes is not None]
    is_three = torch.stack([step.labels == 3 for step in steps])
    return Digits(
        images=torch.stack([step.images for step in steps]),
        num_odd=torch.stack(odd),
        num_threes=torch.stack(threes) if threes else None,
        threes_told=is_three.unflatten(0, (-1, period)).sum(1),
    )


@torch.no_grad()
def errors(
    config: TwoClocksConfig, networks: TwoNetworks, split: Split, num_windows: int, purpose: str
) -> dict[str, float]:
    """Return the share of wrong answers of both networks in percent, on the same digits each time.

    The first window of B is left out: networks that begin have no state yet.
    """
    stream = make_stream(config, split, 200, derive_seed(0, purpose))
    networks.eval()
    carry, wrong = None, {"a": list[Tensor](), "b": list[Tensor]()}
    for call in range(per_window := (num_windows + 1) * config.period**2 // networks.num_steps):
        answers, carry = networks(window(stream, networks.num_steps, config.period), carry)
        if call * (num_windows + 1) < per_window:
            continue
        for name, answer in answers.items():
            wrong[name].append(answer.wrong)
    networks.train()
    return {
        f"error_{name}_percent": 100 * torch.cat(each).float().mean().item()
        for name, each in wrong.items()
    }


EXPERIMENT = Study(
    name="jaderberg2017/two-clocks",
    title="Two networks on two clocks, and a synthetic gradient for their messages",
    description=(
        "An LSTM that reads MNIST digits and one that hears of them every T steps: errors of both "
        "where the first learns from the second by true gradients every T * T steps, by synthetic "
        "ones every T, or not at all."
    ),
    presets=PRESETS,
    arms=get_args(Arm),
    tasks=make_tasks,
    findings=find,
)
