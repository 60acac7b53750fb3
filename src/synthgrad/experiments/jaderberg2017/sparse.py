"""Jaderberg et al. 2017, sparse and asynchronous updates of an FCN with DNI between all layers.

Each layer is updated in an iteration with probability p, independently of the others. Smaller p
means fewer updates in as many iterations, so next to the sweep at equal iterations stand runs that
go on until a layer has had as many updates as with p = 1, on a schedule stretched alike. One more
arm updates the layers of each batch one by one in random order, which must change nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from synthgrad.bench.running.arms import Arm
from synthgrad.bench.running.job import Job
from synthgrad.bench.running.learner import Learner
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Dataset
from synthgrad.errors import ConfigError
from synthgrad.experiments.comparison import Comparison, Rates
from synthgrad.experiments.jaderberg2017.any_order import AnyOrderLearner
from synthgrad.experiments.jaderberg2017.settings import MnistConfig, make_job
from synthgrad.experiments.jaderberg2017.signals import SIGNAL_LABELS, make_signal
from synthgrad.experiments.jaderberg2017.sparse_findings import ANY_ORDER, find
from synthgrad.experiments.networks import fcn
from synthgrad.experiments.training import make_learner

Predicted = Literal["dni", "cdni"]


@dataclass(frozen=True, kw_only=True)
class SparseConfig(MnistConfig):
    """What can be chosen.

    Args:
        depth: Layers of the network, the last of them linear; each is a stage.
        probabilities: With which a stage is updated in an iteration; 1 is what the others are
            compared with.
        long_probabilities: Run these once more, 1 / p times as long, so that a stage has as many
            updates as with p = 1.
        signals: What the interfaces hand down.
        dni_synthesizer: Of DNI without labels: auto (linear), or mlp (two hidden layers of 1024, as
            in the paper).

    Raises:
        ConfigError: A value cannot work.
    """

    depth: int = 4
    probabilities: tuple[float, ...] = (1.0, 0.8, 0.5, 0.2, 0.1, 0.05)
    long_probabilities: tuple[float, ...] = (0.2,)
    signals: tuple[Predicted, ...] = ("dni", "cdni")
    dni_synthesizer: Literal["auto", "mlp"] = "auto"

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        super().__post_init__()
        given = (*self.probabilities, *self.long_probabilities)
        if not self.signals or 1 not in self.probabilities or not all(0 < p <= 1 for p in given):
            raise ConfigError(
                f"signals={self.signals} must name one or more, probabilities="
                f"{self.probabilities} and long_probabilities={self.long_probabilities} lie in "
                "(0, 1], and the first hold 1, which the others are compared with"
            )


PRESETS = {
    "smoke": SparseConfig(
        probabilities=(1.0, 0.2),
        long_probabilities=(),
        width=32,
        iterations=6,
        batch_size=64,
        num_snapshots=1,
        seeds=(0,),
        tune_seeds=(1000,),
        threads=1,
        rounds=1,
        block_iterations=1,
    ),
    "quick": SparseConfig(
        probabilities=(1.0, 0.5, 0.2, 0.05),
        iterations=860,
        num_snapshots=20,
        seeds=(0,),
        threads=1,
        rounds=5,
    ),
    "full": SparseConfig(num_snapshots=60, rounds=200),
    "paper": SparseConfig(
        iterations=500_000,
        dni_synthesizer="mlp",
        learning_rate=3e-5,
        num_snapshots=200,
        device="cuda",
    ),
}


def make_jobs(config: SparseConfig, preset: str, rates: Rates) -> Mapping[str, Job]:
    """Return what is run, by case: all arms at equal iterations, then the long runs of each p."""
    case = f"mnist-fcn{config.depth}"
    jobs = {case: _job(config, preset, make_arms(config, case, rates), config.iterations)}
    for p in config.long_probabilities:
        long = f"{case}-p{p:g}-long"
        arms = [_arm(config, long, rates, signal, p) for signal in config.signals]
        jobs[long] = _job(config, preset, arms, round(config.iterations / p), rounds=0)
    return jobs


def make_arms(config: SparseConfig, case: str, rates: Rates) -> list[Arm]:
    """Return backprop, each signal at each p ("dni-p1", "cdni-p0.2", ...), and cDNI in any order.

    Args:
        config: of the experiment.
        case: the name of the case.
        rates: learning rates of single arms, by "case/arm".
    """
    return [
        _arm(config, case, rates, None, 1),
        *(
            _arm(config, case, rates, signal, p)
            for signal in config.signals
            for p in config.probabilities
        ),
        _arm(config, case, rates, "cdni", 1, any_order=True),
    ]


def _job(
    config: SparseConfig,
    preset: str,
    arms: list[Arm],
    iterations: int,
    rounds: int | None = None,
) -> Job:
    return make_job(
        config,
        arms,
        experiment=EXPERIMENT.name,
        preset=preset,
        dataset="mnist",
        iterations=iterations,
        decided={
            "depth": config.depth,
            "width": config.width,
            "dni_synthesizer": config.dni_synthesizer,
        },
        rounds=rounds,
    )


def _arm(
    config: SparseConfig,
    case: str,
    rates: Rates,
    signal: Predicted | None,
    probability: float,
    *,
    any_order: bool = False,
) -> Arm:
    name, label = "backprop", "backprop"
    if signal:
        name = f"{signal}-p{probability:g}"
        label = f"{SIGNAL_LABELS[signal]}, p = {probability:g}"
    if any_order:
        name, label = ANY_ORDER, "cDNI, p = 1, any order"
    rate = rates.get(f"{case}/{name}", config.learning_rate)
    return Arm(
        name=name,
        label=label,
        build=partial(_build, config, signal, probability, any_order, rate),
        options={"learning_rate": rate, "update_probability": probability},
        update_probability=probability,
    )


def _build(
    config: SparseConfig,
    signal: Predicted | None,
    probability: float,
    any_order: bool,
    learning_rate: float,
    seed: int,
    data: Dataset,
) -> Learner:
    network = partial(fcn, data.input_shape, data.num_classes, config.depth, config.width)
    make = partial(make_learner, network, seed=seed, data=data, learning_rate=learning_rate)
    if signal is None:
        return make(signal=None)
    learner = make(
        signal=make_signal(signal, data.num_classes, dni_synthesizer=config.dni_synthesizer),
        update_probability=probability,
    )
    if any_order:
        return AnyOrderLearner(learner, seed=derive_seed(seed, "orders"))
    return learner


EXPERIMENT = Comparison(
    name="jaderberg2017/sparse",
    title="Sparse updates, in any order: Jaderberg et al. 2017, measured again",
    description=(
        "A 4-layer FCN on MNIST with DNI between all layers, each updated with probability p."
    ),
    presets=PRESETS,
    arms=tuple(arm.name for arm in make_arms(PRESETS["full"], "", {})),
    jobs=make_jobs,
    findings=find,
)
