"""Jaderberg et al. 2017, a single DNI at each depth: the network is cut once, after layer k.

The stage below learns from the signal alone, the one above from the true loss, so this shows what
a signal is worth without the errors that add up where every layer has one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from synthgrad.bench.running.job import Job
from synthgrad.errors import ConfigError
from synthgrad.experiments.comparison import Comparison, Rates
from synthgrad.experiments.grid import SMOKE, Case, GridConfig, Method, make_jobs
from synthgrad.experiments.jaderberg2017.single_findings import find
from synthgrad.experiments.methods import SIGNAL_LABELS, SignalName, papers_signals
from synthgrad.experiments.networks import fcn


@dataclass(frozen=True, kw_only=True)
class SingleConfig(GridConfig):
    """What can be chosen besides the options of every grid.

    Args:
        depths: Layers of each network, the last of them linear; 6 in the paper.
        width: Units of a hidden layer; 256 in the paper.
        iterations: Length of a run.
        num_seeds: So many of the seeds; verdicts need 3.
        signals: What the interface hands down.
        dni_synthesizer: Of DNI without labels: auto (linear), or mlp (two hidden layers of 1024, as
            in the paper).

    Raises:
        ConfigError: A value cannot work.
    """

    depths: tuple[int, ...] = (4,)
    width: int = 256
    iterations: int = 1_000
    num_seeds: int = 3
    signals: tuple[SignalName, ...] = tuple(SIGNAL_LABELS)
    dni_synthesizer: Literal["auto", "mlp"] = "auto"

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        super().__post_init__()
        if not self.depths or min(self.depths) < 2:
            raise ConfigError(f"depths={self.depths}: at least one is needed, each 2 or more")


PRESETS = {
    "smoke": SingleConfig(
        width=8,
        iterations=2,
        num_seeds=1,
        **SMOKE,
    ),
    "quick": SingleConfig(iterations=430, num_seeds=1, num_snapshots=5, rounds=5, threads=1),
    "full": SingleConfig(),
    "paper": SingleConfig(
        depths=(4, 6),
        iterations=500_000,
        num_seeds=3,
        dni_synthesizer="mlp",
        learning_rate=3e-5,
        num_snapshots=200,
        device="cuda",
    ),
}


def jobs(config: SingleConfig, preset: str, rates: Rates) -> Mapping[str, Job]:
    """Return what is run for each network, by case: "mnist-fcn6", ..."""
    cases = [
        Case(
            name=f"mnist-fcn{depth}",
            dataset="mnist",
            make_network=partial(fcn, depth=depth, width=config.width),
            facts={
                "depth": depth,
                "width": config.width,
                "dni_synthesizer": config.dni_synthesizer,
            },
            iterations=config.iterations,
            num_seeds=config.num_seeds,
            methods=_methods(config, depth),
        )
        for depth in config.depths
    ]
    return make_jobs(EXPERIMENT.name, preset, config, cases, rates)


def _methods(config: SingleConfig, depth: int) -> list[Method]:
    """Return backprop, and every signal after every layer but the last: "cdni-1", "cdni-2", ..."""
    signals = papers_signals(dni=config.dni_synthesizer)
    return [
        # Backprop's updates are counted in the other arms' unit.
        Method(name="backprop", label="backprop", signal=None, options={"num_stages": 2}),
        *(
            Method(
                name=f"{name}-{after}",
                label=f"{SIGNAL_LABELS[name]} after layer {after}",
                signal=signals[name],
                options={"at": [f"layer{after}"]},
            )
            for name in config.signals
            for after in range(1, depth)
        ),
    ]


EXPERIMENT = Comparison(
    name="jaderberg2017/single",
    title="One decoupled interface, at each depth: Jaderberg et al. 2017, measured again",
    description="An FCN on MNIST cut once, after each layer in turn: no signal, DNI, cDNI.",
    presets=PRESETS,
    arms=tuple(method.name for method in _methods(PRESETS["full"], max(PRESETS["full"].depths))),
    jobs=jobs,
    findings=find,
)
