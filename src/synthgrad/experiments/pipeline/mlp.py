"""The pipeline on fully connected networks: how fast, how robust, and how soon at a goal.

A deep MLP on noise is timed: every layer is alike, so the cut is in the middle and what is compared
is the order of the work alone. The time to a goal is that of FCN-6 on MNIST, cut where
`sg.Chain.balanced` says.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

import synthgrad as sg
from synthgrad.bench.running.tasks import Task
from synthgrad.bench.seeds import derive_seed, generator
from synthgrad.data import Batches
from synthgrad.engines.pipeline import launch
from synthgrad.errors import ConfigError
from synthgrad.experiments.networks import fcn
from synthgrad.experiments.once import load_once
from synthgrad.experiments.pipeline.config import LineConfig
from synthgrad.experiments.pipeline.findings import GOAL, Targets, finder
from synthgrad.experiments.pipeline.goal import Race, merge_race, run_race
from synthgrad.experiments.pipeline.measuring import DELAYED, SLOW, THROUGHPUT, Events, timing_tasks
from synthgrad.experiments.pipeline.methods import NAMES, Name
from synthgrad.experiments.pipeline.workload import ADAM, Batch, Workload
from synthgrad.experiments.study import Study

_JUDGED_AT_ONCE = 1_000


@dataclass(frozen=True, kw_only=True)
class DeepMlp(Workload):
    """Layers of equal width on noise, the last one with the classifier on top."""

    depth: int
    width: int

    @property
    def title(self) -> str:
        """Return its depth and width."""
        return f"{self.depth}-layer MLP of {self.width} units"

    def network(self, signal_in_time: bool = True) -> nn.Sequential:
        """Make the layers."""
        layers = [
            nn.Sequential(nn.Linear(self.width, self.width), nn.ReLU()) for _ in range(self.depth)
        ]
        layers[-1].append(nn.Linear(self.width, self.num_classes))
        return nn.Sequential(*layers)

    def batches(self) -> Iterator[Batch]:
        """Return noise with random labels."""
        source = generator(self.seed, "batches")
        while True:
            x = torch.randn(self.batch_size, self.width, generator=source)
            yield x, torch.randint(self.num_classes, (self.batch_size,), generator=source)


@dataclass(frozen=True, kw_only=True)
class Mnist(Workload):
    """A fully connected network with batch norm on MNIST."""

    depth: int
    width: int
    data_dir: Path | None = None

    @property
    def title(self) -> str:
        """Return its depth and width."""
        return f"FCN-{self.depth} of {self.width} units on MNIST"

    def network(self, signal_in_time: bool = True) -> nn.Sequential:
        """Make `fcn`."""
        return fcn((1, 28, 28), self.num_classes, self.depth, self.width)

    def batches(self) -> Iterator[Batch]:
        """Return shuffled training examples."""
        data = load_once("mnist", self.data_dir)
        seed = derive_seed(self.seed, "batches")
        return Batches(data.train, batch_size=self.batch_size, seed=seed)

    def judged(self) -> list[Batch]:
        """Return the validation examples."""
        split = load_once("mnist", self.data_dir).validation
        places = torch.arange(len(split)).split(_JUDGED_AT_ONCE)
        return [split.take(index) for index in places]


@dataclass(frozen=True, kw_only=True)
class MlpConfig(LineConfig):
    """What can be chosen.

    Args:
        depth: Layers of the MLP that is timed.
        width: Their units.
        goal_depth: Layers of the network on MNIST, the last of them linear.
        goal_width: Its units.
        goal_methods: That are trained to the goal.
        goals: Validation accuracies in percent, rising; the last one ends a run.
        goal_every: Batches from one look to the next.
        goal_most: Batches after which a run ends that has not reached it.
        goal_rate: Learning rate of Adam, for stages and synthesizers.
        goal_backprop_rate: That of backprop. Both are the soonest at the goals of 2e-4, 5e-4 and
            1e-3 (for backprop 1e-4 as well), in one run on a seed that is none of these.
        goal_synthesizer: linear, or low-rank: linear through 32 numbers.
    """

    methods: tuple[Name, ...] = NAMES
    depth: int = 16
    width: int = 512
    goal_depth: int = 6
    goal_width: int = 1_000
    goal_methods: tuple[Name, ...] = ("backprop", "backprop-2", "cdni")
    goals: tuple[float, ...] = (97.0, 98.0)
    goal_every: int = 40
    goal_most: int = 1_000
    goal_rate: float = 1e-3
    goal_backprop_rate: float = 2e-4
    goal_synthesizer: Literal["linear", "low-rank"] = "low-rank"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        super().__post_init__()
        if min(self.depth, self.goal_depth) < self.ranks or min(self.width, self.goal_width) < 1:
            raise ConfigError(
                f"depth={self.depth} and goal_depth={self.goal_depth} must be ranks={self.ranks} "
                f"or more, and width={self.width} and goal_width={self.goal_width} 1 or more"
            )
        if not self.goals or list(self.goals) != sorted(self.goals) or self.goal_every < 1:
            raise ConfigError(f"goals={self.goals} must rise, and goal_every be 1 or more")
        if missing := {*self.goal_methods} - {
            "backprop",
            "backprop-2",
            "cdni",
            "cdni-free",
            "dni",
            "dgl",
        }:
            raise ConfigError(f"goal_methods={self.goal_methods}: no evaluation of {missing}")

    def workload(self, seed: int) -> DeepMlp:
        """Return the MLP that is timed."""
        return DeepMlp(
            seed=seed,
            batch_size=self.batch_size,
            num_classes=10,
            learning_rate=self.learning_rate,
            depth=self.depth,
            width=self.width,
        )


PRESETS = {
    "smoke": MlpConfig(
        methods=("backprop", "ddp", "1f1b-2", "ddg", "cdni", "cdni-low-rank"),
        delayed=("1f1b-2", "cdni"),
        rounds=2,
        steps=2,
        delay_ms=2.0,
        delayed_rounds=2,
        slow_rounds=2,
        repeats=2,
        batch_size=32,
        depth=4,
        width=32,
        goal_width=32,
        goals=(70.0, 80.0),
        goal_every=20,
        goal_most=100,
        seeds=(0,),
    ),
    "quick": MlpConfig(rounds=20, delayed_rounds=10, slow_rounds=10, goals=(97.0,), seeds=(0,)),
    "full": MlpConfig(delayed_rounds=30, slow_rounds=30),
    "paper": MlpConfig(rounds=400, delayed_rounds=200, slow_rounds=200, goal_most=6_000),
}


def make_tasks(config: MlpConfig) -> list[Task]:
    """Return the timings, and the race to the goal for each seed."""
    return [
        *timing_tasks(config),
        *(
            Task(
                name=f"{GOAL}-s{seed}",
                arm=GOAL,
                label="time to a goal on MNIST",
                seed=seed,
                measure=partial(race, config, seed),
            )
            for seed in config.seeds
        ),
    ]


def race(config: MlpConfig, seed: int) -> Events:
    """Train the methods to the goal, in an order that turns around from seed to seed."""
    workload = Mnist(
        seed=seed,
        batch_size=config.batch_size,
        num_classes=10,
        optimizer=ADAM,
        learning_rate=config.goal_rate,
        synthesizer=config.goal_synthesizer,
        depth=config.goal_depth,
        width=config.goal_width,
        data_dir=config.data_dir,
    )
    x, _ = next(workload.batches())
    cuts = sg.Chain.balanced_cuts(
        workload.build(), num_stages=config.ranks, example_inputs=x, signal=workload.cdni()
    )
    workload = replace(workload, cut_at=tuple(cuts))
    yield {"event": "cut", "at": cuts}
    methods = config.goal_methods
    run = Race(
        setting=config.setting(workload),
        rates={
            name: config.goal_backprop_rate if name.startswith("backprop") else config.goal_rate
            for name in (methods if config.seeds.index(seed) % 2 == 0 else methods[::-1])
        },
        goal_percent=config.goals[-1],
        every=config.goal_every,
        most=config.goal_most,
    )
    yield from merge_race(launch(run_race, run, num_ranks=config.ranks), run)


EXPERIMENT = Study(
    name="pipeline/mlp",
    title="The pipeline engine on fully connected networks",
    description=(
        "cDNI on two ranks against backprop, DDP, torch's schedules and late gradients: "
        "throughput, a latency on every message, a slow rank, and the time to a goal on MNIST."
    ),
    presets=PRESETS,
    arms=(THROUGHPUT, DELAYED, SLOW, GOAL),
    tasks=make_tasks,
    findings=finder(Targets(over_backprop=1.65, over_1f1b=1.4, over_ddp=1.3)),
)
