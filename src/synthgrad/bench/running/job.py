"""What is to be run into one folder, and in which order."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from synthgrad.bench.records.machine import describe_git, describe_machine, describe_packages
from synthgrad.bench.running.arms import Arm
from synthgrad.bench.running.plan import Plan
from synthgrad.bench.running.throughput import ThroughputPlan
from synthgrad.data import Dataset
from synthgrad.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that is to be run into one folder.

    Args:
        experiment: its name.
        preset: the preset that the config was made from.
        arms: its arms, in the order of the report.
        seeds: of the runs.
        plan: of every run.
        throughput: of the interleaved timing.
        threads: for every arm, or "best": each arm's own best, found by a short calibration.
        device: "cpu", "cuda", "cuda:1", ...
        config: everything else that decides the numbers, for the records.
        load: loads the data.

    Raises:
        ConfigError: there are no arms or no seeds, or one twice.
    """

    experiment: str
    preset: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    plan: Plan
    throughput: ThroughputPlan
    threads: int | Literal["best"]
    device: str
    config: Mapping[str, Any]
    load: Callable[[], Dataset]

    def __post_init__(self) -> None:
        """Check arms, seeds and threads."""
        names = [arm.name for arm in self.arms]
        for what, values in (("arms", names), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"{what} are {list(values)}: at least one is needed, none twice")
        if self.threads != "best" and self.threads < 1:
            raise ConfigError(f"threads={self.threads} must be 1 or more, or 'best'")

    def runs(self) -> list[tuple[Arm, int]]:
        """Return every arm with each of its seeds, in the order of running."""
        return [
            (arm, seed)
            for arm, seed in interleave(self.arms, self.seeds)
            if seed in self.seeds[: arm.num_seeds]
        ]

    def describe(self, kind: str) -> dict[str, Any]:
        """Return what run.json holds in every record of this job."""
        return {
            "kind": kind,
            "experiment": self.experiment,
            "preset": self.preset,
            "config": {**self.config, "device": self.device, "threads": self.threads},
            "machine": describe_machine(self.device),
            "git": describe_git(Path(__file__).parent),
            "packages": describe_packages(),
        }


@dataclass
class Outcome:
    """How the runs of a command ended, counted by status.

    "failed" is a loss that was not finite; "crashed" is any other error.
    """

    runs: Counter[str] = field(default_factory=Counter[str])

    @property
    def succeeded(self) -> bool:
        """Whether nothing crashed, and not everything that ran failed."""
        return not self.runs["crashed"] and (not self.runs["failed"] or self.runs["finished"] > 0)


def interleave(items: Sequence[T], seeds: Sequence[int]) -> Iterator[tuple[T, int]]:
    """Yield every item with every seed, seeds outermost, every second row of items backward.

    So a machine that grows slower over the hour slows no arm more than another.

    Example:
        >>> list(interleave("AB", [0, 1]))
        [('A', 0), ('B', 0), ('B', 1), ('A', 1)]
    """
    for row, seed in enumerate(seeds):
        for item in items if row % 2 == 0 else items[::-1]:
            yield item, seed
