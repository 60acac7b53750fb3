"""Pemberton & Costa 2024, sequential MNIST: rows of a digit come one a step, its name is told last.

Only the last chunk has a loss, so what reaches the others is the signal alone, and the number of
chunks is the number of bootstraps that it has to come through.

The preset "paper" is the configuration of the public code (neuralml/bp_lambda): one row a chunk,
50 epochs at a learning rate of 3e-4. "full" cuts that to 1.6 epochs at 1e-3 and chunks of four
rows, so that it can be run on a CPU; all arms alike.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgrad.bench.running.tasks import Task
from synthgrad.bench.seeds import derive_seed, generator
from synthgrad.data import Batches, Split, rows
from synthgrad.errors import ConfigError, DivergedError
from synthgrad.experiments.once import load_once
from synthgrad.experiments.pemberton2024.arms import ARMS, NUM_CLASSES
from synthgrad.experiments.pemberton2024.held import Loss, hold
from synthgrad.experiments.pemberton2024.seqmnist_findings import find
from synthgrad.experiments.pemberton2024.training import SequenceLearner
from synthgrad.experiments.study import Study, tasks_of_arms

_EVALUATED_AT_ONCE = 1_000


@dataclass(frozen=True, kw_only=True)
class SeqMnistConfig:
    """What can be chosen.

    Args:
        arms: Ways to train.
        horizon: Rows in a chunk.
        units: Of the LSTM.
        updates: Of each run; one for each batch of whole digits.
        num_looks: Times, evenly spread over the run, at which the weights are held, validation
            examples classified and gradients compared.
        num_probed: Training examples for which gradients are compared.
        num_evaluated: So many of the validation and of the test examples, if there are more.
        batch_size: Digits in a batch.
        learning_rate: Of Adam, for core, head and synthesizer alike.
        scale: Factor on what the core gets of the synthetic gradient.
        gamma: Discount in the synthesizer's target, a chunk.
        seeds: One run of each arm for each; 0 was for choosing sizes and rates.
        device: cpu, cuda, cuda:1, ...
        data_dir: Where to look for the data first.

    Raises:
        ConfigError: A value cannot work.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    horizon: int = 4
    units: int = 30
    updates: int = 1_750
    num_looks: int = 10
    num_probed: int = 500
    num_evaluated: int = 10_000
    batch_size: int = 50
    learning_rate: float = 1e-3
    scale: float = 0.1
    gamma: float = 0.9
    seeds: tuple[int, ...] = (1, 2, 3)
    device: str = "cpu"
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        if unknown := [name for name in self.arms if name not in ARMS]:
            raise ConfigError(f"arms={unknown} are not known; the names are {', '.join(ARMS)}")
        if not 1 <= self.num_looks <= self.updates:
            raise ConfigError(
                f"num_looks={self.num_looks} must be from 1 to the {self.updates} updates"
            )
        if (
            min(self.units, self.horizon, self.num_probed, self.num_evaluated) < 1
            or not self.learning_rate > 0
        ):
            raise ConfigError(
                f"units={self.units}, horizon={self.horizon} and num_probed={self.num_probed} must "
                f"be 1 or more, and learning_rate={self.learning_rate} above 0"
            )


PRESETS = {
    "smoke": SeqMnistConfig(
        horizon=7, units=6, updates=6, num_looks=2, num_probed=50, num_evaluated=500, seeds=(0,)
    ),
    "quick": SeqMnistConfig(updates=400, num_looks=4, seeds=(0,)),
    "full": SeqMnistConfig(),
    "paper": SeqMnistConfig(
        horizon=1,
        updates=48_000,
        num_looks=50,
        learning_rate=3e-4,
        seeds=(1, 2, 3, 4, 5),
    ),
}


def make_tasks(config: SeqMnistConfig) -> list[Task]:
    """Return a task for each arm and seed."""
    return tasks_of_arms(
        partial(measure, config),
        seeds=config.seeds,
        labels={name: ARMS[name].label for name in config.arms},
        options=lambda name: {"trace_decay": ARMS[name].trace_decay},
    )


def measure(config: SeqMnistConfig, name: str, seed: int) -> Iterator[Mapping[str, Any]]:
    """Train; yield a "look" at evenly spread updates, and a "test" at the end."""
    data = load_once("mnist", config.data_dir, config.device)
    num_steps, features = data.input_shape[1:]
    torch.manual_seed(derive_seed(seed, "weights"))
    core = nn.LSTM(features, config.units).to(config.device)
    learner = SequenceLearner(
        ARMS[name].build(
            core,
            horizon=config.horizon,
            scale=config.scale,
            gamma=config.gamma,
        ),
        NUM_CLASSES,
        learning_rate=config.learning_rate,
        synthesizer_rate=config.learning_rate,
    )
    batches = Batches(data.train, batch_size=config.batch_size, seed=derive_seed(seed, "batches"))
    order = torch.randperm(len(data.train), generator=generator(seed, "probe"))
    images, probed_labels = data.train.take(order[: config.num_probed].to(config.device))
    looks_at = {config.updates * k // config.num_looks for k in range(1, config.num_looks + 1)}
    for update in range(1, config.updates + 1):
        inputs, labels = next(batches)
        loss = learner.update(rows(inputs), _loss(learner.head, labels, num_steps), labels)
        if update in looks_at:
            if not math.isfinite(loss):
                raise DivergedError(f"loss is {loss.item()} after {update} updates")
            held = hold(
                learner.rnn,
                rows(images),
                _loss(learner.head, probed_labels, num_steps),
                scale=config.scale,
                labels=probed_labels,
            )
            yield {
                "event": "look",
                "updates": update,
                "validation_accuracy_percent": accuracy_percent(
                    learner, data.validation, config.num_evaluated
                ),
                **asdict(held),
            }
    yield {
        "event": "test",
        "accuracy_percent": accuracy_percent(learner, data.test, config.num_evaluated),
    }


def _loss(head: nn.Module, labels: Tensor, num_steps: int) -> Loss:
    """Return the loss: the cross-entropy after the last row."""

    def loss(outputs: Tensor, steps: slice) -> Tensor:
        if steps.stop < num_steps:
            return (outputs * 0).sum()
        return F.cross_entropy(head(outputs[-1]), labels)

    return loss


@torch.no_grad()
def accuracy_percent(learner: SequenceLearner, split: Split, most: int) -> float:
    """Return the share of a split's first `most` digits that are named right after their end."""
    num_right = 0
    index = torch.arange(min(most, len(split)), device=split.labels.device)
    for part in index.split(_EVALUATED_AT_ONCE):
        images, labels = split.take(part)
        logits = learner.head(learner.run(rows(images))[-1])
        num_right += int((logits.argmax(1) == labels).sum())
    return 100 * num_right / len(index)


EXPERIMENT = Study(
    name="pemberton2024/seqmnist",
    title="BP(lambda) on sequential MNIST",
    description=(
        "An LSTM reads digits row by row and names them after the last: truncated BPTT, synthetic "
        "gradients that bootstrap, BP(lambda), and BPTT over the whole sequence."
    ),
    presets=PRESETS,
    arms=tuple(ARMS),
    tasks=make_tasks,
    findings=find,
)
