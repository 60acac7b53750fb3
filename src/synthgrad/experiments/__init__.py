"""The tables and figures of the papers, each a function from a config to what is run."""

from synthgrad.errors import ConfigError
from synthgrad.experiments import bisong2017
from synthgrad.experiments.contract import Experiment
from synthgrad.experiments.czarnecki2017 import deep
from synthgrad.experiments.jaderberg2017 import feedforward

EXPERIMENTS: dict[str, Experiment] = {
    e.name: e for e in (bisong2017.EXPERIMENT, feedforward.EXPERIMENT, deep.EXPERIMENT)
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
