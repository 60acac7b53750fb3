"""Methods compared on several networks: what every such experiment has in common.

A `Case` is a network on a data set with its budget, a `Method` a way to train it. Every method goes
through every case with the same seeds, batches and schedule.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from synthgrad.bench.running.arms import Arm
from synthgrad.bench.running.job import Job
from synthgrad.bench.running.learner import Learner
from synthgrad.bench.running.plan import Plan
from synthgrad.bench.running.throughput import ThroughputPlan
from synthgrad.data import Dataset, load
from synthgrad.errors import ConfigError
from synthgrad.experiments.comparison import Rates
from synthgrad.experiments.networks import Kind, make_network
from synthgrad.experiments.training import Signals, make_learner

MakeNetwork = Callable[[tuple[int, ...], int], nn.Sequential]
"""From the shape of one example and the number of classes to a network."""

Signal = Callable[[int], Signals] | Signals
"""What the interfaces hand down, or a function of the number of classes that makes it."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to train a network; picklable, so that its runs can go to other processes.

    Args:
        name: of the arm.
        label: for people.
        signal: what the interfaces hand down; None for backprop, without interfaces.
        options: further arguments of `make_learner`: `at`, `synthesizer_rate_factor`,
            `update_probability`, ...; they stand in the record, as text where they are objects.
        rate_factor: its learning rate over that of the config.
        wrap: from the learner and the run's seed to the one that trains in its place.
    """

    name: str
    label: str
    signal: Signal | None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rate_factor: float = 1.0
    wrap: Callable[[Learner, int], Learner] | None = None

    def build(
        self, make_network: MakeNetwork, learning_rate: float, seed: int, data: Dataset
    ) -> Learner:
        """Return a fresh learner."""
        signal = self.signal
        learner = make_learner(
            partial(make_network, data.input_shape, data.num_classes),
            signal(data.num_classes) if callable(signal) else signal,
            seed=seed,
            data=data,
            learning_rate=learning_rate,
            **self.options,
        )
        return self.wrap(learner, seed) if self.wrap else learner


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network on a data set, and how long it is trained.

    Args:
        name: of the folder: "mnist-fcn4".
        dataset: the examples.
        make_network: the network; picklable.
        facts: what the records say of the network.
        iterations: length of a run.
        num_seeds: so many of the config's seeds.
        methods: what is compared.
        rounds: of the interleaved timing, if it is not the config's number.
    """

    name: str
    dataset: str
    make_network: MakeNetwork
    facts: Mapping[str, Any]
    iterations: int
    num_seeds: int
    methods: Sequence[Method]
    rounds: int | None = None


def network_case(
    dataset: str,
    kind: Kind,
    depth: int,
    width: int,
    *,
    iterations: int,
    num_seeds: int,
    methods: Sequence[Method],
    **facts: Any,
) -> Case:
    """Return the case of one network, named by data set, kind and depth: "mnist-fcn4".

    Args:
        dataset: the examples.
        kind: of network, as are depth and width; see `make_network`.
        depth: of the network.
        width: of the network.
        iterations: length of a run.
        num_seeds: so many of the config's seeds.
        methods: what is compared.
        **facts: what the records say beside the network's kind and sizes.
    """
    return Case(
        name=f"{dataset}-{kind}{depth}",
        dataset=dataset,
        make_network=partial(make_network, kind, depth, width),
        facts={"network": kind, "depth": depth, "width": width, **facts},
        iterations=iterations,
        num_seeds=num_seeds,
        methods=methods,
    )


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """What can be chosen in every experiment of several networks.

    Args:
        batch_size: Examples in a batch.
        learning_rate: Of Adam, for stages and synthesizers alike.
        decay_at: Shares of the iterations after which the learning rate is divided by ten.
        num_snapshots: Evaluations during a run.
        seeds: A network takes the first of them.
        tune_seeds: For `synthgrad tune`; none of the seeds above.
        device: cpu, cuda, cuda:1, ...
        threads: For every arm, or best: each arm's own best, by a short calibration.
        rounds: Rounds of the interleaved timing of each network; 0 leaves it out.
        block_iterations: Timed iterations of one block of it.
        data_dir: Where to look for the data first.

    Raises:
        ConfigError: A value cannot work.
    """

    batch_size: int = 256
    learning_rate: float = 1e-3
    decay_at: tuple[float, ...] = (0.6, 0.8)
    num_snapshots: int = 20
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
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


SMOKE: dict[str, Any] = {
    "batch_size": 32,
    "num_snapshots": 1,
    "tune_seeds": (1000,),
    "threads": 1,
    "rounds": 1,
    "block_iterations": 1,
}
"""What every preset called smoke has in common."""


def make_jobs(
    experiment: str,
    preset: str,
    config: GridConfig,
    cases: Sequence[Case],
    rates: Rates,
) -> dict[str, Job]:
    """Return the job of each case.

    Args:
        experiment: its name.
        preset: that the config was made from.
        config: the config.
        cases: the networks.
        rates: tuned learning rates, by "case/arm".

    Raises:
        ConfigError: there is no case, or a case has no seed.
    """
    if not cases:
        raise ConfigError("there is no network to train: every list of networks is empty")
    return {case.name: _job(experiment, preset, config, case, rates) for case in cases}


def _job(experiment: str, preset: str, config: GridConfig, case: Case, rates: Rates) -> Job:
    if case.num_seeds < 1:
        raise ConfigError(f"num_seeds={case.num_seeds} of {case.name} must be 1 or more")
    return Job(
        experiment=experiment,
        preset=preset,
        arms=tuple(_arm(method, config, case, rates) for method in case.methods),
        seeds=config.seeds[: case.num_seeds],
        plan=Plan(
            iterations=case.iterations,
            batch_size=config.batch_size,
            snapshot_every=max(1, case.iterations // config.num_snapshots),
            decay_at=tuple(round(share * case.iterations) for share in config.decay_at),
        ),
        throughput=ThroughputPlan(
            rounds=config.rounds if case.rounds is None else case.rounds,
            block_iterations=config.block_iterations,
        ),
        threads=config.threads,
        device=config.device,
        config={
            "dataset": case.dataset,
            **case.facts,
            "iterations": case.iterations,
            "batch_size": config.batch_size,
            "decay_at": config.decay_at,
        },
        load=partial(load, case.dataset, config.data_dir),
    )


def _arm(method: Method, config: GridConfig, case: Case, rates: Rates) -> Arm:
    name = f"{case.name}/{method.name}"
    rate = rates.get(name, config.learning_rate * method.rate_factor)
    recorded: dict[str, Any] = {
        key: value if isinstance(value, (str, int, float, list)) else describe(value)
        for key, value in method.options.items()
    }
    if "synthesizer_rate_factor" in recorded:  # records hold the rate that comes of it
        recorded["synthesizer_rate"] = recorded.pop("synthesizer_rate_factor") * rate
    return Arm(
        name=method.name,
        label=method.label,
        build=partial(method.build, case.make_network, rate),
        options={"learning_rate": rate, "signal": _describe(method), **recorded},
        update_probability=method.options.get("update_probability", 1.0),
        tuned=name in rates,
    )


def _describe(method: Method) -> str:
    """Return what the method's interfaces hand down, for the record."""
    if method.signal is None:
        return "none: backprop"
    return describe(method.signal(10) if callable(method.signal) else method.signal)


def describe(value: Any) -> str:
    """Return a description as text that is the same in every process and as options are added.

    Fields that have their default are left out, and functions go by their names.
    """
    if is_dataclass(value) and not isinstance(value, type):
        given = {f.name: getattr(value, f.name) for f in fields(value)}
        defaults = {f.name: f.default for f in fields(value)}
        told = [f"{k}={describe(v)}" for k, v in given.items() if v != defaults[k]]
        return f"{type(value).__name__}({', '.join(told)})"
    if isinstance(value, partial):
        told = [
            *map(describe, value.args),
            *(f"{k}={describe(v)}" for k, v in value.keywords.items()),
        ]
        return f"{value.func.__name__}({', '.join(told)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {describe(v)}" for k, v in value.items()) + "}"
    return getattr(value, "__name__", None) or repr(value)
