"""Pemberton & Costa 2024, copy-repeat: write patterns several times, longer and longer ones.

The sequences of a batch are as long as the curriculum has come, so an arm's score is how far its
signal still carries.

The preset "paper" is the configuration of the public code (neuralml/bp_lambda) with one step a
chunk: 8 bits, LSTM 100, 15,000 epochs of 10 batches. "full" cuts it to patterns of one bit, 30
units, chunks of three steps, and other learning rates, so that truncated BPTT learns anything at
all within minutes on a CPU; all arms alike.
"""

import math
import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.bench.running.tasks import Task
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Curriculum, SequenceTask, answer_bits
from synthgrad.errors import ConfigError, DivergedError
from synthgrad.experiments.pemberton2024.arms import ARMS, WITHOUT_LABELS
from synthgrad.experiments.pemberton2024.copy_repeat_findings import find
from synthgrad.experiments.pemberton2024.held import Loss, hold
from synthgrad.experiments.pemberton2024.training import SequenceLearner
from synthgrad.experiments.study import Study, tasks_of_arms


@dataclass(frozen=True, kw_only=True)
class CopyRepeatConfig:
    """What can be chosen.

    Args:
        arms: Ways to train; there are no labels that a synthesizer could see.
        horizon: Steps in a chunk.
        units: Of the LSTM; a trace holds 4 units^2 numbers for each example and cut.
        num_bits: Random bits of a pattern.
        updates: Of each run; one for each batch of whole sequences.
        num_looks: Times, evenly spread over the run, at which the weights are held and gradients
            compared.
        num_probed: Sequences for which gradients are compared, as long as those trained on then.
        batch_size: Sequences in a batch.
        window: Batches whose mean error moves the curriculum on; a small batch alone is easy by
            chance.
        learning_rate: Of Adam, for core and head.
        synthesizer_rate: Of Adam, for the synthesizer.
        scale: Factor on what the core gets of the synthetic gradient.
        gamma: Discount in the synthesizer's target, a chunk.
        seeds: One run of each arm for each; 0 was for choosing sizes and rates.
        device: cpu, cuda, cuda:1, ...

    Raises:
        ConfigError: A value cannot work.
    """

    arms: tuple[str, ...] = WITHOUT_LABELS
    horizon: int = 3
    units: int = 30
    num_bits: int = 1
    updates: int = 6_000
    num_looks: int = 10
    num_probed: int = 200
    batch_size: int = 50
    window: int = 8
    learning_rate: float = 2e-3
    synthesizer_rate: float = 5e-4
    scale: float = 1.0
    gamma: float = 0.9
    seeds: tuple[int, ...] = (1, 2, 3)
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        if unknown := [name for name in self.arms if name not in WITHOUT_LABELS]:
            raise ConfigError(
                f"arms={unknown} are not known here; the names are {', '.join(WITHOUT_LABELS)}"
            )
        if not 1 <= self.num_looks <= self.updates:
            raise ConfigError(
                f"num_looks={self.num_looks} must be from 1 to the {self.updates} updates"
            )
        for name in ("units", "horizon", "num_probed", "batch_size", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be 1 or more")
        if not min(self.learning_rate, self.synthesizer_rate) > 0:
            raise ConfigError(
                f"learning_rate={self.learning_rate} and synthesizer_rate={self.synthesizer_rate} "
                "must be above 0"
            )


PRESETS = {
    "smoke": CopyRepeatConfig(
        units=6, updates=6, num_looks=2, num_probed=20, batch_size=10, seeds=(0,)
    ),
    "quick": CopyRepeatConfig(updates=500, num_looks=5, seeds=(0,)),
    "full": CopyRepeatConfig(),
    "paper": CopyRepeatConfig(
        horizon=1,
        units=100,
        num_bits=8,
        updates=150_000,
        num_looks=50,
        batch_size=100,
        window=1,
        learning_rate=1e-3,
        synthesizer_rate=1e-5,
        seeds=(1, 2, 3, 4, 5),
        device="cuda",
    ),
}


def make_tasks(config: CopyRepeatConfig) -> list[Task]:
    """Return a task for each arm and seed."""
    return tasks_of_arms(
        partial(measure, config),
        seeds=config.seeds,
        labels={name: ARMS[name].label for name in config.arms},
        options=lambda name: {"trace_decay": ARMS[name].trace_decay},
    )


def measure(config: CopyRepeatConfig, name: str, seed: int) -> Iterator[Mapping[str, Any]]:
    """Train through the curriculum; yield a "look" at evenly spread updates."""
    torch.manual_seed(derive_seed(seed, "weights"))
    core = nn.LSTM(config.num_bits + 2, config.units).to(config.device)
    learner = SequenceLearner(
        ARMS[name].build(core, horizon=config.horizon, scale=config.scale, gamma=config.gamma),
        config.num_bits + 1,
        learning_rate=config.learning_rate,
        synthesizer_rate=config.synthesizer_rate,
    )
    curriculum = Curriculum("repeat-copy")
    errors = deque[float](maxlen=config.window)
    draw, draw_probe = (
        torch.Generator(config.device).manual_seed(derive_seed(seed, purpose))
        for purpose in ("patterns", "probe")
    )
    looks_at = {config.updates * k // config.num_looks for k in range(1, config.num_looks + 1)}
    for update in range(1, config.updates + 1):
        task = curriculum.sample(config.batch_size, config.num_bits, draw)
        bits = learner.update(task.inputs, _loss(learner.head, task)).item()
        if not math.isfinite(bits):
            raise DivergedError(f"error is {bits} bits after {update} updates")
        if update in looks_at:
            probed = curriculum.sample(config.num_probed, config.num_bits, draw_probe)
            held = hold(learner.rnn, probed.inputs, _loss(learner.head, probed), scale=config.scale)
            yield {
                "event": "look",
                "updates": update,
                "bits": bits,
                "modelled": curriculum.modelled,
                **asdict(held),
            }
        errors.append(bits)
        if len(errors) == config.window and curriculum.observe(statistics.mean(errors)):
            errors.clear()
    yield {"event": "reached", "modelled": curriculum.modelled}


def _loss(head: nn.Module, task: SequenceTask) -> Loss:
    """Return the loss: bits of the answer, which add up over the chunks."""

    def loss(outputs: Tensor, steps: slice) -> Tensor:
        return answer_bits(
            head(outputs), task.targets[steps], task.mask[steps], num_counted=task.num_counted
        )

    return loss


EXPERIMENT = Study(
    name="pemberton2024/copy-repeat",
    title="BP(lambda) on copy-repeat",
    description=(
        "The longest sequence that an LSTM learns to copy repeatedly: truncated BPTT, synthetic "
        "gradients that bootstrap, BP(lambda), and BPTT over the whole sequence."
    ),
    presets=PRESETS,
    arms=WITHOUT_LABELS,
    tasks=make_tasks,
    findings=find,
    place=("seeds",),
)
