"""What an arm is: one method of an experiment, how it is built, and why it may not run here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from synthgrad.bench.running.learner import Learner
from synthgrad.data import Dataset
from synthgrad.errors import ConfigError


def always_available() -> None:
    """Return no reason: the arm runs everywhere."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One method of an experiment.

    Args:
        name: in folders and options: "cdni-linear".
        label: for people: "cDNI (linear)".
        build: from (seed, data) to a fresh `Learner` on the data's device. The same seed gives the
            same initial weights of the stages in every arm.
        options: what the arm's record says of it beside the experiment's config.
        update_probability: with which a stage is updated in an iteration.
        tuned: whether its learning rate is from `synthgrad tune`; its record says so.
        num_seeds: run only so many of the experiment's seeds, where an arm is costly; None is all.
        missing: returns why the arm cannot run on this machine, or None.

    Raises:
        ConfigError: the name cannot be a folder's, or the probability is outside (0, 1].
    """

    name: str
    label: str
    build: Callable[[int, Dataset], Learner]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    update_probability: float = 1.0
    tuned: bool = False
    num_seeds: int | None = None
    missing: Callable[[], str | None] = always_available

    def __post_init__(self) -> None:
        """Check the name and the probability."""
        if not self.name or not set(self.name) <= _NAME_CHARACTERS:
            raise ConfigError(f"an arm's name is made of a-z, 0-9, '.' and '-', not {self.name!r}")
        if not 0 < self.update_probability <= 1:
            raise ConfigError(f"update_probability={self.update_probability} must lie in (0, 1]")


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")
