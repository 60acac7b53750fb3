"""Experiments that measure something other than training runs: distances, surfaces, pictures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from synthgrad.bench.findings import FindingsFunction
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.records.reading import Problem
from synthgrad.bench.running.job import Outcome
from synthgrad.bench.running.tasks import Task, run_tasks
from synthgrad.bench.scoring.table import Table
from synthgrad.errors import ConfigError, RecordError
from synthgrad.experiments.contract import Experiment, RunOptions


@dataclass(frozen=True, kw_only=True)
class Study(Experiment):
    """Tasks that each leave one record, and what the records together show.

    Args:
        tasks: from a config to the tasks; nothing of it is computed yet.
        findings: what the records show.
        place: fields of the config that say where and not what: they are not compared when a
            folder is gone on with.
    """

    tasks: Callable[[Any], Sequence[Task]]
    findings: FindingsFunction
    place: tuple[str, ...] = ("seeds", "data_dir")

    def run(self, config: Any, options: RunOptions) -> Outcome:
        """Run the tasks that the folder does not hold yet."""
        if options.tensorboard or options.rates:
            raise ConfigError(
                f"{self.name} trains no arms against each other: it takes neither --tensorboard "
                "nor --tuned"
            )
        decided = {key: v for key, v in asdict(config).items() if key not in self.place}
        return run_tasks(
            self.name,
            options.preset,
            decided,
            self.tasks(config),
            options.out,
            console=options.console,
            processes=options.processes,
        )

    def tables(self, records: Sequence[RunRecord]) -> list[Table]:
        """Return the findings' tables."""
        return self.findings(records).all_tables() if records else []

    def to_json(self, records: Sequence[RunRecord]) -> dict[str, Any]:
        """Return the findings as one object."""
        return self.findings(records).to_json()

    def write_page(
        self, folder: Path, found: tuple[Sequence[RunRecord], Sequence[Problem]]
    ) -> Path:
        """Write the page of the findings."""
        # Late, because the plotting libraries take a while to import.
        from synthgrad.bench.report.findings_page import write_findings

        if not found[0]:
            damages = "".join(f"\n  {problem}" for problem in found[1])
            raise RecordError(f"{folder} holds no record that can be reported{damages}")
        return write_findings(
            folder,
            self.findings(found[0]),
            title=self.title,
            description=self.description,
            found=found,
        )


Name = TypeVar("Name", bound=str)


def tasks_of_arms(
    measure: Callable[[Name, int], Iterator[Mapping[str, Any]]],
    *,
    seeds: Sequence[int],
    labels: Mapping[Name, str],
    options: Callable[[Name], Mapping[str, Any]] = lambda _: {},
) -> list[Task]:
    """Return a task for each arm and seed, seed by seed.

    Args:
        measure: of an arm's name and a seed; a function on module level, or a partial of one.
        seeds: one run of each arm for each.
        labels: of the arms, by name, in order.
        options: what a task's record says of its arm beside the study's config.
    """
    return [
        Task(
            name=f"{arm}-s{seed}",
            arm=arm,
            label=label,
            seed=seed,
            options=options(arm),
            measure=partial(measure, arm, seed),
        )
        for seed in seeds
        for arm, label in labels.items()
    ]
