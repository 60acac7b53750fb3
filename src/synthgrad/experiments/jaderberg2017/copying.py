"""Jaderberg et al. 2017, copy and repeat copy: how long a sequence can be modelled, chunk by chunk.

A pattern and its answer are further apart than the horizon T, so truncated BPTT never sees the one
from the other: it lives on what an untrained state happens to keep. A synthetic gradient at the cut
tells the core what to keep. One arm is ours: a synthesizer that is told the answers to come, as
cDNI is told the labels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from synthgrad.bench.running.tasks import Task
from synthgrad.data.curriculum import TaskName
from synthgrad.errors import ConfigError
from synthgrad.experiments.jaderberg2017.copying_findings import find
from synthgrad.experiments.jaderberg2017.copying_training import Method, Setting, train
from synthgrad.experiments.study import Study

ArmName = Literal["bptt", "dni", "dni-aux", "cdni"]
ARMS: dict[ArmName, Method] = {
    "bptt": Method(label="truncated BPTT", signal=False),
    "dni": Method(label="DNI"),
    "dni-aux": Method(label="DNI + auxiliary", auxiliary=True),
    "cdni": Method(label="cDNI, told the next answers", told=True),
}


@dataclass(frozen=True, kw_only=True)
class CopyingConfig(Setting):
    """What can be chosen besides a run's setting.

    Args:
        arms: What to compare.
        horizons: T, the steps of a chunk; each is compared within itself.
        seeds: One run of each arm and horizon for each.

    Raises:
        ConfigError: A value cannot work.
    """

    arms: tuple[ArmName, ...] = get_args(ArmName)
    horizons: tuple[int, ...] = (3,)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        super().__post_init__()
        if min(self.horizons, default=0) < 1:
            raise ConfigError(f"horizons={self.horizons} holds numbers of steps: 1 or more")


PRESETS = {
    "smoke": CopyingConfig(num_units=8, batch_size=4, num_updates=60, look_every=30, seeds=(0,)),
    "quick": CopyingConfig(num_updates=10_000, seeds=(0,)),
    "full": CopyingConfig(),
    "paper": CopyingConfig(
        horizons=(2, 3, 4, 5),
        num_bits=8,
        num_units=256,
        batch_size=256,
        learning_rate=7e-5,
        synthesizer_learning_rate=7e-5,
        hidden=(256,),
        scale=0.1,
        auxiliary_weight=1.0,
        num_updates=2_000_000,
        look_every=10_000,
        device="cuda",
    ),
}


def make_tasks(task: TaskName, config: CopyingConfig) -> list[Task]:
    """Return a task for each seed, horizon and arm, arms beside each other."""
    return [
        Task(
            name=f"{arm}-T{horizon}-s{seed}",
            arm=arm,
            label=ARMS[arm].label,
            seed=seed,
            options={"task": task, "horizon": horizon},
            measure=partial(measure, config, task, arm, horizon, seed),
        )
        for seed in config.seeds
        for horizon in config.horizons
        for arm in config.arms
    ]


def measure(
    config: CopyingConfig, task: TaskName, arm: ArmName, horizon: int, seed: int
) -> Iterator[Mapping[str, Any]]:
    """Train one arm; what it yields `train` says."""
    return train(config, task, horizon=horizon, method=ARMS[arm], seed=seed)


def _study(task: TaskName, told: str) -> Study:
    return Study(
        name=f"jaderberg2017/{task}",
        title=f"{told}: Jaderberg et al. 2017, measured again",
        description=(
            f"{told} with an LSTM in chunks of T steps: the longest sequence that truncated BPTT, "
            "DNI, DNI with the auxiliary task and cDNI model after the same number of updates."
        ),
        presets=PRESETS,
        arms=tuple(ARMS),
        tasks=partial(make_tasks, task),
        findings=find,
        place=("seeds",),
    )


COPY = _study("copy", "Copy")
REPEAT_COPY = _study("repeat-copy", "Repeat copy")
