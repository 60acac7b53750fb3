"""Jaderberg et al. 2017, a single DNI at each depth: the network is cut once, after layer k.

The stage below learns from the signal alone, the one above from the true loss, so this shows what
a signal is worth without the errors that add up where every layer has one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from synthgrad.bench.running.arms import Arm
from synthgrad.bench.running.job import Job
from synthgrad.bench.running.learner import Learner
from synthgrad.data import Dataset
from synthgrad.errors import ConfigError
from synthgrad.experiments.comparison import Comparison, Rates
from synthgrad.experiments.jaderberg2017.settings import MnistConfig, make_job
from synthgrad.experiments.jaderberg2017.signals import SIGNAL_LABELS, SignalName, make_signal
from synthgrad.experiments.jaderberg2017.single_findings import find
from synthgrad.experiments.networks import fcn
from synthgrad.experiments.training import make_learner

_NUM_STAGES = 2


@dataclass(frozen=True, kw_only=True)
class SingleConfig(MnistConfig):
    """What can be chosen.

    Args:
        depths: Layers of each network, the last of them linear; 6 in the paper.
        signals: What the interface hands down.
        dni_synthesizer: Of DNI without labels: auto (linear), or mlp (two hidden layers of 1024, as
            in the paper).

    Raises:
        ConfigError: A value cannot work.
    """

    depths: tuple[int, ...] = (6,)
    signals: tuple[SignalName, ...] = tuple(SIGNAL_LABELS)
    dni_synthesizer: Literal["auto", "mlp"] = "auto"

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        super().__post_init__()
        if not self.depths or min(self.depths) < 2:
            raise ConfigError(f"depths={self.depths}: at least one is needed, each 2 or more")


PRESETS = {
    "smoke": SingleConfig(
        depths=(3,),
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
    "quick": SingleConfig(
        depths=(6,), iterations=430, num_snapshots=5, seeds=(0,), rounds=5, threads=1
    ),
    "full": SingleConfig(),
    "paper": SingleConfig(
        depths=(4, 6),
        iterations=500_000,
        dni_synthesizer="mlp",
        learning_rate=3e-5,
        num_snapshots=200,
        device="cuda",
    ),
}


def make_jobs(config: SingleConfig, preset: str, rates: Rates) -> Mapping[str, Job]:
    """Return what is run for each network, by case: "mnist-fcn6", ..."""
    return {
        f"mnist-fcn{depth}": make_job(
            config,
            make_arms(config, depth, rates),
            experiment=EXPERIMENT.name,
            preset=preset,
            dataset="mnist",
            iterations=config.iterations,
            decided={
                "depth": depth,
                "width": config.width,
                "dni_synthesizer": config.dni_synthesizer,
            },
        )
        for depth in config.depths
    }


def make_arms(config: SingleConfig, depth: int, rates: Rates) -> list[Arm]:
    """Return backprop, and every signal after every layer but the last: "cdni-1", "cdni-2", ...

    Args:
        config: of the experiment.
        depth: layers of the network.
        rates: learning rates of single arms, by "case/arm".
    """
    return [
        _arm(config, depth, rates, None, 0),
        *(
            _arm(config, depth, rates, signal, after)
            for signal in config.signals
            for after in range(1, depth)
        ),
    ]


def _arm(
    config: SingleConfig, depth: int, rates: Rates, signal: SignalName | None, after: int
) -> Arm:
    name = f"{signal}-{after}" if signal else "backprop"
    rate = rates.get(f"mnist-fcn{depth}/{name}", config.learning_rate)
    return Arm(
        name=name,
        label=f"{SIGNAL_LABELS[signal]} after layer {after}" if signal else name,
        build=partial(_build, config, depth, signal, after, rate),
        options={"learning_rate": rate},
    )


def _build(
    config: SingleConfig,
    depth: int,
    signal: SignalName | None,
    after: int,
    learning_rate: float,
    seed: int,
    data: Dataset,
) -> Learner:
    learner = make_learner(
        partial(fcn, data.input_shape, data.num_classes, depth, config.width),
        make_signal(signal, data.num_classes, dni_synthesizer=config.dni_synthesizer)
        if signal
        else None,
        seed=seed,
        data=data,
        learning_rate=learning_rate,
        at=[f"layer{after}"],
    )
    learner.num_stages = _NUM_STAGES  # backprop's updates are counted in the arms' unit
    return learner


EXPERIMENT = Comparison(
    name="jaderberg2017/single",
    title="One decoupled interface, at each depth: Jaderberg et al. 2017, measured again",
    description="An FCN on MNIST cut once, after each layer in turn: no signal, DNI, cDNI.",
    presets=PRESETS,
    arms=tuple(arm.name for arm in make_arms(PRESETS["full"], max(PRESETS["full"].depths), {})),
    jobs=make_jobs,
    findings=find,
)
