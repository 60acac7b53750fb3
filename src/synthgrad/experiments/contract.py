"""What an experiment is: a config, its presets, and functions that make a job and judge it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from synthgrad.bench.running.job import Job
from synthgrad.bench.scoring.summary import ClaimsFunction


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One table or figure of a paper, to be reproduced by one command.

    Args:
        name: on the command line.
        title: of its report.
        description: a sentence, for `synthgrad list` and the report.
        presets: configs by name; frozen dataclasses of one type, which has at least `seeds`,
            `tune_seeds` and `learning_rate`.
        arms: the names of all its arms.
        job: from (config, preset, learning rates by arm) to what is run; an arm without a rate
            of its own takes the config's.
        claims: judges what was measured against the paper.
    """

    name: str
    title: str
    description: str
    presets: Mapping[str, Any]
    arms: tuple[str, ...]
    job: Callable[[Any, str, Mapping[str, float]], Job]
    claims: ClaimsFunction
