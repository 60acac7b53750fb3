"""Where a long command tells how far it is: a bar on a terminal, a line a run anywhere else."""

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Listener(Protocol):
    """Who is told how far the work is: a `RunProgress`, or a process on its way to one."""

    def describe(self, text: str, /) -> None:
        """Take what is running now."""
        ...

    def advance(self, count: int, /) -> None:
        """Take that so much was done."""
        ...

    def note(self, line: str, /) -> None:
        """Take a line that stays."""
        ...


class RunProgress:
    """The progress of a command over all its runs; a context manager.

    Args:
        total: iterations of all runs together.
        console: where to show it; a bar if it is a terminal, else only the lines of `note`.
        unit: what is counted.
    """

    def __init__(self, total: int, console: Console, unit: str = "it") -> None:
        """Show nothing yet."""
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _Rate(unit),
            TextColumn("ran"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total)

    def describe(self, text: str) -> None:
        """Say what is running now."""
        self._bar.update(self._task, description=text)

    def advance(self, count: int) -> None:
        """Say that so many iterations were done."""
        self._bar.advance(self._task, count)

    def note(self, line: str) -> None:
        """Print a line that stays: a run has ended."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._bar.stop()


class _Rate(ProgressColumn):
    """How many a second, of late."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Return the rate, or nothing before there is one."""
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.0f} {self._unit}/s" if rate else "")
