"""What the configs of this paper's experiments share: the training, the measuring, their checks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from synthgrad.bench.running.arms import Arm
from synthgrad.bench.running.job import Job
from synthgrad.bench.running.plan import Plan
from synthgrad.bench.running.throughput import ThroughputPlan
from synthgrad.data import load
from synthgrad.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What can be chosen in every experiment.

    Args:
        batch_size: Examples in a batch.
        learning_rate: Of Adam, for stages and synthesizers alike.
        decay_at: Shares of the iterations after which the learning rate is divided by ten.
        num_snapshots: Evaluations during a run.
        seeds: One run of each arm for each.
        tune_seeds: For `synthgrad tune`; none of the seeds above.
        device: cpu, cuda, cuda:1, ...
        threads: For every arm, or best: each arm's own best, by a short calibration.
        rounds: Rounds of the interleaved timing of each case.
        block_iterations: Timed iterations of one block of it.
        data_dir: Where to look for the data first.

    Raises:
        ConfigError: A value cannot work.
    """

    batch_size: int = 256
    learning_rate: float = 1e-3
    decay_at: tuple[float, ...] = (0.6, 0.8)
    num_snapshots: int = 20
    seeds: tuple[int, ...] = (0, 1, 2)
    tune_seeds: tuple[int, ...] = (1000, 1001)
    device: str = "cpu"
    threads: int | Literal["best"] = "best"
    rounds: int = 30
    block_iterations: int = 3
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        if not all(0 < share < 1 for share in self.decay_at):
            raise ConfigError(f"decay_at={self.decay_at} holds shares of the run, between 0 and 1")
        if not self.learning_rate > 0 or self.num_snapshots < 1:
            raise ConfigError(
                f"learning_rate={self.learning_rate} must be above 0 and "
                f"num_snapshots={self.num_snapshots} 1 or more"
            )
        if both := set(self.seeds) & set(self.tune_seeds):
            raise ConfigError(
                f"tune_seeds and seeds share {sorted(both)}; tune on seeds of its own"
            )


@dataclass(frozen=True, kw_only=True)
class MnistConfig(TrainingConfig):
    """What can be chosen where fully connected networks are trained on MNIST.

    Args:
        width: Units of a hidden layer; 256 in the paper.
        iterations: Length of a run.
    """

    width: int = 256
    iterations: int = 3_000


def make_job(
    config: TrainingConfig,
    arms: Sequence[Arm],
    *,
    experiment: str,
    preset: str,
    dataset: str,
    iterations: int,
    decided: Mapping[str, Any],
    num_seeds: int | None = None,
    rounds: int | None = None,
) -> Job:
    """Return what is run for one case.

    Args:
        config: of the experiment.
        arms: in the order of the report.
        experiment: its name.
        preset: that the config was made from.
        dataset: the data's name.
        iterations: length of a run.
        decided: what else decides the numbers, for the records.
        num_seeds: so many of the config's seeds; None is all.
        rounds: of the interleaved timing, if it is not the config's number.
    """
    return Job(
        experiment=experiment,
        preset=preset,
        arms=tuple(arms),
        seeds=config.seeds[:num_seeds],
        plan=Plan(
            iterations=iterations,
            batch_size=config.batch_size,
            snapshot_every=max(1, iterations // config.num_snapshots),
            decay_at=tuple(round(share * iterations) for share in config.decay_at),
        ),
        throughput=ThroughputPlan(
            rounds=config.rounds if rounds is None else rounds,
            block_iterations=config.block_iterations,
        ),
        threads=config.threads,
        device=config.device,
        config={
            "dataset": dataset,
            **decided,
            "iterations": iterations,
            "batch_size": config.batch_size,
            "decay_at": config.decay_at,
        },
        load=partial(load, dataset, config.data_dir),
    )
