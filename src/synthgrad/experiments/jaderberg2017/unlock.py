"""Jaderberg et al. 2017, the complete unlock: synthetic gradients and synthetic inputs together.

With synthetic gradients a layer need not wait for the layers above; with synthetic inputs, each
predicted from the network's input, it need not wait for those below either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import synthgrad as sg
from synthgrad.bench.running.job import Job
from synthgrad.experiments.comparison import Comparison, Rates
from synthgrad.experiments.grid import SMOKE, Case, GridConfig, Method, make_jobs
from synthgrad.experiments.jaderberg2017.unlock_findings import find
from synthgrad.experiments.methods import SIGNAL_LABELS, papers_signals
from synthgrad.experiments.networks import fcn

ArmName = Literal["backprop", "no-signal", "dni", "cdni", "dni-inputs", "cdni-inputs"]
LABELS: dict[ArmName, str] = {
    "backprop": "backprop",
    **SIGNAL_LABELS,
    "dni-inputs": "DNI + synthetic inputs",
    "cdni-inputs": "cDNI + synthetic inputs",
}


@dataclass(frozen=True, kw_only=True)
class UnlockConfig(GridConfig):
    """What can be chosen besides the options of every grid.

    Args:
        depth: Layers of the network, the last of them linear; each is a stage.
        width: Units of a hidden layer; 256 in the paper.
        iterations: Length of a run.
        num_seeds: So many of the seeds.
        arms: What to compare.
        synthesizer: Of every gradient: mirror (one hidden layer, as in the paper), or auto
            (linear).
        input_model: Of every synthetic input: mlp (one hidden layer, as in the paper), or linear.
    """

    depth: int = 4
    width: int = 256
    iterations: int = 1_000
    num_seeds: int = 3
    arms: tuple[ArmName, ...] = tuple(LABELS)
    synthesizer: Literal["mirror", "auto"] = "mirror"
    input_model: Literal["mlp", "linear"] = "mlp"


PRESETS = {
    "smoke": UnlockConfig(
        depth=3,
        width=8,
        iterations=2,
        num_seeds=1,
        **SMOKE,
    ),
    "quick": UnlockConfig(iterations=860, num_seeds=1, num_snapshots=10, threads=1, rounds=5),
    "full": UnlockConfig(),
    "paper": UnlockConfig(iterations=500_000, learning_rate=3e-5, num_snapshots=200, device="cuda"),
}


def jobs(config: UnlockConfig, preset: str, rates: Rates) -> Mapping[str, Job]:
    """Return what is run, by case: there is one, named by its network."""
    case = Case(
        name=f"mnist-fcn{config.depth}",
        dataset="mnist",
        make_network=partial(fcn, depth=config.depth, width=config.width),
        facts={
            "depth": config.depth,
            "width": config.width,
            "synthesizer": config.synthesizer,
            "input_model": config.input_model,
        },
        iterations=config.iterations,
        num_seeds=config.num_seeds,
        methods=[method for method in _methods(config) if method.name in config.arms],
    )
    return make_jobs(EXPERIMENT.name, preset, config, [case], rates)


def _methods(config: UnlockConfig) -> list[Method]:
    signals = papers_signals(dni=config.synthesizer, with_labels=config.synthesizer)
    inputs = {"synthetic_input": sg.SyntheticInput(model=config.input_model)}
    return [
        Method(name="backprop", label=LABELS["backprop"], signal=None),
        *(Method(name=name, label=LABELS[name], signal=signals[name]) for name in signals),
        Method(
            name="dni-inputs",
            label=LABELS["dni-inputs"],
            signal=signals["dni"],
            options=inputs,
        ),
        Method(
            name="cdni-inputs",
            label=LABELS["cdni-inputs"],
            signal=signals["cdni"],
            options=inputs,
        ),
    ]


EXPERIMENT = Comparison(
    name="jaderberg2017/unlock",
    title="The complete unlock: Jaderberg et al. 2017, measured again",
    description=(
        "A 4-layer FCN on MNIST with synthetic gradients, and with synthetic inputs as well."
    ),
    presets=PRESETS,
    arms=tuple(LABELS),
    jobs=jobs,
    findings=find,
)
