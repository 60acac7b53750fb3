"""Jaderberg et al. 2017, the complete unlock: synthetic gradients and synthetic inputs together.

With synthetic gradients a layer need not wait for the layers above; with synthetic inputs, each
predicted from the network's input, it need not wait for those below either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import synthgrad as sg
from synthgrad.bench.running.arms import Arm
from synthgrad.bench.running.job import Job
from synthgrad.bench.running.learner import Learner
from synthgrad.data import Dataset
from synthgrad.experiments.comparison import Comparison, Rates
from synthgrad.experiments.jaderberg2017.settings import MnistConfig, make_job
from synthgrad.experiments.jaderberg2017.signals import SignalName, make_signal
from synthgrad.experiments.jaderberg2017.unlock_findings import find
from synthgrad.experiments.networks import fcn
from synthgrad.experiments.training import make_learner

ArmName = Literal["backprop", "no-signal", "dni", "cdni", "dni-inputs", "cdni-inputs"]
LABELS: dict[ArmName, str] = {
    "backprop": "backprop",
    "no-signal": "no bprop",
    "dni": "DNI",
    "cdni": "cDNI",
    "dni-inputs": "DNI + synthetic inputs",
    "cdni-inputs": "cDNI + synthetic inputs",
}
_SIGNALS: dict[ArmName, SignalName] = {
    "no-signal": "no-signal",
    "dni": "dni",
    "cdni": "cdni",
    "dni-inputs": "dni",
    "cdni-inputs": "cdni",
}
_WITH_INPUTS = ("dni-inputs", "cdni-inputs")


@dataclass(frozen=True, kw_only=True)
class UnlockConfig(MnistConfig):
    """What can be chosen.

    Args:
        depth: Layers of the network, the last of them linear; each is a stage.
        arms: What to compare.
        synthesizer: Of every gradient: mirror (one hidden layer, as in the paper), or auto
            (linear).
        input_model: Of every synthetic input: mlp (one hidden layer, as in the paper), or linear.

    Raises:
        ConfigError: A value cannot work.
    """

    depth: int = 4
    arms: tuple[ArmName, ...] = tuple(LABELS)
    synthesizer: Literal["mirror", "auto"] = "mirror"
    input_model: Literal["mlp", "linear"] = "mlp"


PRESETS = {
    "smoke": UnlockConfig(
        depth=3,
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
    "quick": UnlockConfig(iterations=860, num_snapshots=10, seeds=(0,), threads=1, rounds=5),
    "full": UnlockConfig(num_snapshots=60),
    "paper": UnlockConfig(iterations=500_000, learning_rate=3e-5, num_snapshots=200, device="cuda"),
}


def make_jobs(config: UnlockConfig, preset: str, rates: Rates) -> Mapping[str, Job]:
    """Return what is run, by case: there is one, named by its network."""
    case = f"mnist-fcn{config.depth}"
    job = make_job(
        config,
        [_arm(config, case, rates, name) for name in config.arms],
        experiment=EXPERIMENT.name,
        preset=preset,
        dataset="mnist",
        iterations=config.iterations,
        decided={
            "depth": config.depth,
            "width": config.width,
            "synthesizer": config.synthesizer,
            "input_model": config.input_model,
        },
    )
    return {case: job}


def _arm(config: UnlockConfig, case: str, rates: Rates, name: ArmName) -> Arm:
    rate = rates.get(f"{case}/{name}", config.learning_rate)
    return Arm(
        name=name,
        label=LABELS[name],
        build=partial(_build, config, name, rate),
        options={"learning_rate": rate},
    )


def _build(
    config: UnlockConfig, name: ArmName, learning_rate: float, seed: int, data: Dataset
) -> Learner:
    signal = None
    if name in _SIGNALS:
        signal = make_signal(
            _SIGNALS[name],
            data.num_classes,
            dni_synthesizer=config.synthesizer,
            cdni_synthesizer=config.synthesizer,
        )
    options: dict[str, Any] = {}
    if name in _WITH_INPUTS:
        options["synthetic_input"] = sg.SyntheticInput(model=config.input_model)
    return make_learner(
        partial(fcn, data.input_shape, data.num_classes, config.depth, config.width),
        signal,
        seed=seed,
        data=data,
        learning_rate=learning_rate,
        **options,
    )


EXPERIMENT = Comparison(
    name="jaderberg2017/unlock",
    title="The complete unlock: Jaderberg et al. 2017, measured again",
    description=(
        "A 4-layer FCN on MNIST with synthetic gradients, and with synthetic inputs as well."
    ),
    presets=PRESETS,
    arms=tuple(LABELS),
    jobs=make_jobs,
    findings=find,
)
