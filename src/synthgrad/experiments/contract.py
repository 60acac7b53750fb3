"""What an experiment is: presets of a config, a way to run them, and what the records then show.

Two kinds fill this in: `Comparison`, which trains arms against each other, and `Study`, which
measures something other than training runs.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.records.reading import Problem
from synthgrad.bench.running.job import Outcome
from synthgrad.bench.scoring.table import Table


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the command line asks for an experiment to be run.

    Args:
        preset: that the config was made from.
        out: the folder of the records.
        console: for the progress.
        processes: runs at once. With more than one nothing is timed beside another run: the runs
            have no clock, and speed comes from the interleaved timing that follows.
        tensorboard: whether to write curves and graphs for TensorBoard.
        rates: learning rates of single arms, from tuning, by arm, or by "case/arm".
    """

    preset: str
    out: Path
    console: Console
    processes: int = 1
    tensorboard: bool = False
    rates: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC):
    """One table or figure of a paper, to be reproduced by one command.

    Args:
        name: on the command line; may hold a slash: "jaderberg2017/unlock".
        title: of its report.
        description: a sentence, for `synthgrad list` and the report.
        presets: configs by name; frozen dataclasses of one type.
        arms: the names of all its arms.
    """

    name: str
    title: str
    description: str
    presets: Mapping[str, Any]
    arms: tuple[str, ...]

    @property
    def folder_name(self) -> str:
        """The name as that of a folder: without a slash."""
        return self.name.replace("/", "-")

    @abstractmethod
    def run(self, config: Any, options: RunOptions) -> Outcome:
        """Run a config, or go on with it where the folder holds a part of it.

        Raises:
            SynthgradError: what the user can mend.
            KeyboardInterrupt: by the user; the same call goes on.
        """

    @abstractmethod
    def tables(self, records: Sequence[RunRecord]) -> list[Table]:
        """Return what `synthgrad report` prints of some records; tables without rows left out."""

    @abstractmethod
    def to_json(self, records: Sequence[RunRecord]) -> Any:
        """Return what `synthgrad report --format json` prints of some records; no NaN in it."""

    @abstractmethod
    def write_page(
        self, folder: Path, found: tuple[Sequence[RunRecord], Sequence[Problem]]
    ) -> Path:
        """Write the report page and its figures into a folder of records.

        Args:
            folder: the folder.
            found: what `read_records(folder)` returned.

        Raises:
            RecordError: there is nothing to report, or it cannot be written.
        """
