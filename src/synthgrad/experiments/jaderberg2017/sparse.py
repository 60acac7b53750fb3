"""Jaderberg et al. 2017, sparse and asynchronous updates of an FCN with DNI between all layers.

Each layer is updated in an iteration with probability p, independently of the others. One more arm
updates the layers of each batch one by one in random order, which must change nothing. Smaller p
means fewer updates in as many iterations, so beside the sweep at equal iterations
`long_probabilities` can set runs that go on until a layer has had as many updates as with p = 1, on
a schedule stretched alike; only the preset `paper` has the time for one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from synthgrad.bench.running.job import Job
from synthgrad.errors import ConfigError
from synthgrad.experiments.comparison import Comparison, Rates
from synthgrad.experiments.grid import SMOKE, Case, GridConfig, Method, make_jobs
from synthgrad.experiments.jaderberg2017.any_order import AnyOrderLearner
from synthgrad.experiments.jaderberg2017.sparse_findings import ANY_ORDER, find
from synthgrad.experiments.methods import SIGNAL_LABELS, papers_signals
from synthgrad.experiments.networks import fcn

Predicted = Literal["dni", "cdni"]
_BACKPROP = Method(name="backprop", label="backprop", signal=None)


@dataclass(frozen=True, kw_only=True)
class SparseConfig(GridConfig):
    """What can be chosen besides the options of every grid.

    Args:
        depth: Layers of the network, the last of them linear; each is a stage.
        width: Units of a hidden layer; 256 in the paper.
        iterations: Length of a run.
        num_seeds: So many of the seeds.
        probabilities: With which a stage is updated in an iteration; 1 is what the others are
            compared with.
        long_probabilities: Run these once more, 1 / p times as long, so that a stage has as many
            updates as with p = 1; and backprop beside them.
        long_signals: With which of the signals.
        signals: What the interfaces hand down.
        dni_synthesizer: Of DNI without labels: auto (linear), or mlp (two hidden layers of 1024, as
            in the paper).

    Raises:
        ConfigError: A value cannot work.
    """

    depth: int = 4
    width: int = 256
    iterations: int = 1_000
    num_seeds: int = 3
    probabilities: tuple[float, ...] = (1.0, 0.5, 0.2, 0.1)
    long_probabilities: tuple[float, ...] = ()
    long_signals: tuple[Predicted, ...] = ("cdni",)
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
        depth=3,
        width=8,
        iterations=2,
        num_seeds=1,
        **SMOKE,
    ),
    "quick": SparseConfig(iterations=860, num_seeds=1, threads=1, rounds=5),
    "full": SparseConfig(),
    "paper": SparseConfig(
        probabilities=(1.0, 0.8, 0.5, 0.2, 0.1, 0.05),
        long_probabilities=(0.2,),
        long_signals=("dni", "cdni"),
        iterations=500_000,
        dni_synthesizer="mlp",
        learning_rate=3e-5,
        num_snapshots=200,
        device="cuda",
    ),
}


def jobs(config: SparseConfig, preset: str, rates: Rates) -> Mapping[str, Job]:
    """Return what is run, by case: all arms at equal iterations, then the long runs of each p."""
    main = Case(
        name=f"mnist-fcn{config.depth}",
        dataset="mnist",
        make_network=partial(fcn, depth=config.depth, width=config.width),
        facts={
            "depth": config.depth,
            "width": config.width,
            "dni_synthesizer": config.dni_synthesizer,
        },
        iterations=config.iterations,
        num_seeds=config.num_seeds,
        methods=_methods(config),
    )
    long = [
        replace(
            main,
            name=f"{main.name}-p{p:g}-long",
            iterations=round(config.iterations / p),
            methods=[_BACKPROP, *(_sparse(config, signal, p) for signal in config.long_signals)],
            rounds=0,
        )
        for p in config.long_probabilities
    ]
    return make_jobs(EXPERIMENT.name, preset, config, [main, *long], rates)


def _methods(config: SparseConfig) -> list[Method]:
    """Return backprop, each signal at each p ("dni-p1", "cdni-p0.2"), and cDNI in any order."""
    return [
        _BACKPROP,
        *(_sparse(config, signal, p) for signal in config.signals for p in config.probabilities),
        replace(
            _sparse(config, "cdni", 1.0),
            name=ANY_ORDER,
            label="cDNI, p = 1, any order",
            wrap=AnyOrderLearner,
        ),
    ]


def _sparse(config: SparseConfig, signal: Predicted, probability: float) -> Method:
    return Method(
        name=f"{signal}-p{probability:g}",
        label=f"{SIGNAL_LABELS[signal]}, p = {probability:g}",
        signal=papers_signals(dni=config.dni_synthesizer)[signal],
        options={"update_probability": probability},
    )


EXPERIMENT = Comparison(
    name="jaderberg2017/sparse",
    title="Sparse updates, in any order: Jaderberg et al. 2017, measured again",
    description=(
        "A 4-layer FCN on MNIST with DNI between all layers, each updated with probability p."
    ),
    presets=PRESETS,
    arms=tuple(method.name for method in _methods(PRESETS["full"])),
    jobs=jobs,
    findings=find,
)
