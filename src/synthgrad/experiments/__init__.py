"""The tables and figures of the papers, each a function from a config to what is run."""

from synthgrad.errors import ConfigError
from synthgrad.experiments import bisong2017, long_chains, rivals
from synthgrad.experiments.contract import Experiment
from synthgrad.experiments.czarnecki2017 import (
    convergence,
    critical_points,
    deep,
    loss_surface,
    rdm,
    signals,
)
from synthgrad.experiments.engines import study as engines
from synthgrad.experiments.jaderberg2017 import (
    charlm,
    copying,
    feedforward,
    single,
    sparse,
    two_clocks,
    unlock,
)
from synthgrad.experiments.pemberton2024 import copy_repeat, seqmnist
from synthgrad.experiments.pipeline import cnn as pipeline_cnn
from synthgrad.experiments.pipeline import mlp as pipeline_mlp
from synthgrad.experiments.pipeline import recurrent as pipeline_recurrent
from synthgrad.experiments.plan import study as plan
from synthgrad.experiments.unlabeled import limit, options

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        *(
            module.EXPERIMENT
            for module in (
                bisong2017,
                feedforward,
                single,
                sparse,
                unlock,
                two_clocks,
                charlm,
                convergence,
                critical_points,
                rdm,
                loss_surface,
                deep,
                signals,
                rivals,
                options,
                limit,
                long_chains,
                engines,
                seqmnist,
                copy_repeat,
                plan,
                pipeline_mlp,
                pipeline_cnn,
                pipeline_recurrent,
            )
        ),
        copying.COPY,
        copying.REPEAT_COPY,
    )
}


def find_experiment(name: str) -> Experiment:
    """Return the experiment of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(
            f"there is no experiment {name!r}; the names are {', '.join(EXPERIMENTS)}"
        )
    return EXPERIMENTS[name]


__all__ = ["EXPERIMENTS", "Experiment", "find_experiment"]
