"""The tables of a report, once as data, and rendered for a terminal or as Markdown.

A terminal of 100 columns cannot hold everything about an arm in one row, so there are five tables;
the JSON report has all of it in one object.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.arm_summary import DERIVED, ArmSummary, Bounds, GoalSummary
from synthgrad.bench.scoring.claims import Claim
from synthgrad.bench.scoring.formats import MISSING, count, fixed, significant
from synthgrad.bench.scoring.iterations import vary_iterations
from synthgrad.bench.scoring.summary import BASELINE

_NUM_GOALS = 2  # as many goals as fit into a row


_MID_RUN = (
    "Runs are read in mid-schedule here, which favors the arm that has come to its end by then."
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as text.

    Args:
        title: one line.
        columns: the names of the columns.
        rows: the cells, a text for each column.
        arms: the arm that each row is about; empty where rows are about something else.
        notes: lines that belong below: what an arm's row cannot hold.
        num_text_columns: how many columns, from the left, hold text and not numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    arms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    num_text_columns: int = 1

    @property
    def is_prose(self) -> bool:
        """Whether the cells are sentences, to be wrapped, and not numbers."""
        return self.num_text_columns > 2


def all_tables(summaries: Sequence[ArmSummary], records: Iterable[RunRecord]) -> list[Table]:
    """Return every table that has rows: arms, accuracy, cost, iterations varied, claims."""
    tables = [
        arms_table(summaries),
        accuracy_table(summaries),
        cost_table(summaries),
        iterations_table(records),
        claims_table(summaries),
    ]
    return [table for table in tables if table.rows]


def arms_table(summaries: Sequence[ArmSummary]) -> Table:
    """Return the main table: what each arm reached, in what time, and how that compares.

    The notes say why a run is missing.
    """
    goals = [goal.goal for goal in summaries[0].goals[:_NUM_GOALS]] if summaries else []
    rows = [
        (
            summary.label,
            str(summary.num_seeds),
            fixed(summary.test_accuracy, 2) if summary.num_seeds else _status(summary),
            fixed(summary.test_loss, 3),
            significant(summary.seconds),
            *(_time_to_goal(goal) for goal in summary.goals[:_NUM_GOALS]),
            significant(_scaled(summary.seconds_per_iteration, 1000)),
            _with_interval(summary.time_ratio, summary.time_ratio_interval, 2),
        )
        for summary in summaries
    ]
    notes = [f"{summary.label}: {_note(summary)}" for summary in summaries if summary.reason]
    if any(summary.seconds_from == DERIVED for summary in summaries):
        notes.append(f"The runs had no clock: seconds are {DERIVED}.")
    return Table(
        title="Results: medians over n seeds; (k) where only k of them reached the goal",
        columns=(
            "Arm",
            "n",
            "Test accuracy %",
            "Test loss",
            "Seconds",
            *(f"Seconds to {goal:g} %" for goal in goals),
            "ms/it.",
            f"\N{MULTIPLICATION SIGN} {BASELINE}'s time [95 %]",
        ),
        rows=tuple(rows),
        arms=_arms(summaries),
        notes=tuple(notes),
    )


def accuracy_table(summaries: Sequence[ArmSummary]) -> Table:
    """Return accuracy at equal budgets, and the examples that each goal took."""
    first = summaries[0] if summaries else None
    goals = [goal.goal for goal in first.goals[:_NUM_GOALS]] if first else []
    rows = [
        (
            summary.label,
            _with_interval(summary.test_accuracy, summary.test_accuracy_interval, 2),
            fixed(summary.val_accuracy_at_equal_iterations, 2),
            fixed(summary.val_accuracy_at_equal_seconds, 2),
            fixed(summary.val_accuracy_at_equal_stage_updates, 2),
            *(_examples_to_goal(goal) for goal in summary.goals[:_NUM_GOALS]),
        )
        for summary in summaries
    ]
    return Table(
        title="Accuracy: validation accuracy (%) at equal budgets, examples to a goal",
        columns=(
            "Arm",
            "Test accuracy % [95 %]",
            f"at {count(first and first.equal_iterations)} iterations",
            f"at {significant(first and first.equal_seconds)} seconds",
            f"at {count(first and first.equal_stage_updates)} stage updates",
            *(f"Examples to {goal:g} %" for goal in goals),
        ),
        rows=tuple(rows),
        arms=_arms(summaries),
        notes=(_MID_RUN,) if rows else (),
    )


def cost_table(summaries: Sequence[ArmSummary]) -> Table:
    """Return throughput, speed-up by both ways of counting, and what the synthesizers cost."""
    rows = [
        (
            summary.label,
            count(summary.threads),
            count(summary.examples_per_second),
            count(summary.stage_updates_per_second),
            fixed(summary.speedup_per_iteration, 2),
            fixed(summary.speedup_per_stage_update, 2),
            significant(_scaled(summary.flops_per_iteration, 1e-6)),
            count(summary.synthesizer_parameters),
            significant(_scaled(summary.memory_bytes, 2**-20)),
        )
        for summary in summaries
    ]
    rounds = max((summary.num_rounds for summary in summaries), default=0)
    source = f"{rounds} interleaved rounds" if rounds else "the runs"
    return Table(
        title=f"Cost: speed from {source}; speed-up over {BASELINE} by two ways of counting",
        columns=(
            "Arm",
            "Threads",
            "Examples/s",
            "Stage updates/s",
            "Speed-up an iteration",
            "Speed-up an update",
            "MFLOP an iteration",
            "Synthesizer parameters",
            "Memory MiB",
        ),
        rows=tuple(rows),
        arms=_arms(summaries),
    )


def iterations_table(
    records: Iterable[RunRecord], fractions: Sequence[float] = (0.25, 0.5, 1.0)
) -> Table:
    """Return seconds and validation accuracy with the number of iterations varied."""
    points = vary_iterations(records, fractions)
    by_arm = [(arm, list(group)) for arm, group in groupby(points, key=lambda point: point.arm)]
    columns = ["Arm"]
    for index, fraction in enumerate(fractions):
        # The arms share their schedule of snapshots; without any, the share itself is the name.
        reached = {group[index].iterations for _, group in by_arm} - {None}
        name = f"{reached.pop():,} iterations" if len(reached) == 1 else f"{fraction:.0%}"
        columns += [f"{name}: seconds", "validation %"]
    return Table(
        title="Number of iterations varied: seconds and validation accuracy (%)",
        columns=tuple(columns),
        rows=tuple(
            (
                group[0].label,
                *(
                    cell
                    for point in group
                    for cell in (significant(point.seconds), fixed(point.val_accuracy, 2))
                ),
            )
            for _, group in by_arm
        ),
        arms=tuple(arm for arm, _ in by_arm),
        notes=(_MID_RUN,) if by_arm else (),
    )


def claims_table(summaries: Sequence[ArmSummary]) -> Table:
    """Return what the paper says of each arm beside what was measured, with the verdicts."""
    claims = [(summary.arm, claim) for summary in summaries for claim in summary.claim]
    return list_claims([claim for _, claim in claims], [arm for arm, _ in claims])


def list_claims(claims: Iterable[Claim], arms: Sequence[str] = ()) -> Table:
    """Return claims as a table; `arms` are those that they are about, if they are about arms."""
    return Table(
        title="The paper says / we measured / verdict",
        columns=("About", "The paper says", "We measured", "Verdict", "Why"),
        rows=tuple((c.claim, c.paper, c.measured, c.verdict, c.reason) for c in claims),
        arms=tuple(arms),
        num_text_columns=5,
    )


def print_tables(tables: Iterable[Table], console: Console) -> None:
    """Print tables with their notes to a terminal.

    Numbers are never cut: where a terminal is too narrow, or a pipe of unknown width, a table of
    numbers runs over the edge.
    """
    for table in tables:
        console.print(to_rich(table), soft_wrap=not table.is_prose)
        for note in table.notes:
            console.print(Text(note), soft_wrap=True)
        console.print()


def to_rich(table: Table) -> RichTable:
    """Return a table as one of rich: numbers as narrow as they are, prose as wide as it may be."""
    rich_table = RichTable(
        title=table.title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0) if table.is_prose else 0,
        show_lines=table.is_prose,
    )
    for index, name in enumerate(table.columns):
        cells = [row[index] for row in table.rows]
        # Headings wrap between words, so that a column of numbers is as narrow as its cells.
        width = max(len(text) for text in (*name.split(), *cells))
        rich_table.add_column(
            name if table.is_prose else textwrap.fill(name, width),
            justify="left" if index < table.num_text_columns else "right",
            width=None if table.is_prose else width,
        )
    if not table.is_prose:
        widths = [column.width or 0 for column in rich_table.columns]
        rich_table.width = max(sum(widths) + len(widths) - 1, len(table.title))
    for row in table.rows:
        rich_table.add_row(*(Text(cell) for cell in row))
    return rich_table


def to_markdown(table: Table) -> str:
    """Return a table as GitHub-flavored Markdown, its notes below it."""
    rules = ["---" if i < table.num_text_columns else "---:" for i in range(len(table.columns))]
    lines = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in (table.columns, rules, *table.rows)
    ]
    return "\n".join([*lines, *(f"\n{note}" for note in table.notes)]) + "\n"


def _arms(summaries: Sequence[ArmSummary]) -> tuple[str, ...]:
    return tuple(summary.arm for summary in summaries)


def _status(summary: ArmSummary) -> str:
    return "not available" if summary.status == "unavailable" else summary.status


def _note(summary: ArmSummary) -> str:
    unavailable = summary.status == "unavailable"
    return f"not available: {summary.reason}" if unavailable else summary.reason


def _time_to_goal(goal: GoalSummary) -> str:
    num_seeds = len(goal.seconds_points)
    num_hits = sum(examples is not None for examples in goal.examples_points)
    if num_hits in (0, num_seeds):
        return significant(goal.seconds) if num_hits else "missed" if num_seeds else MISSING
    if all(seconds is None for seconds in goal.seconds_points):  # no clock
        return MISSING
    return f"{'missed' if goal.seconds is None else significant(goal.seconds)} ({num_hits})"


def _examples_to_goal(goal: GoalSummary) -> str:
    missed = goal.examples is None and goal.examples_points
    return "missed" if missed else count(goal.examples)


def _with_interval(value: float | None, interval: Bounds | None, digits: int) -> str:
    if value is None or interval is None:
        return fixed(value, digits)
    low, high = (fixed(end, digits) if end is not None else "∞" for end in interval)
    return f"{value:.{digits}f} [{'-' if interval[0] is None else ''}{low}, {high}]"


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
