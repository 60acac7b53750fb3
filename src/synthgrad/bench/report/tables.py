"""The page's two tables of arms: everything about each, and the number of iterations varied."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.report.cells import ArmRow, ArmTable, Cell, Column, record_link, records_link
from synthgrad.bench.scoring.arm_summary import ArmSummary, Bounds, GoalSummary
from synthgrad.bench.scoring.formats import MISSING, count, fixed, significant
from synthgrad.bench.scoring.iterations import IterationPoint, vary_iterations

_FRACTIONS = (0.1, 0.25, 0.5, 1.0)


def records_anchor(index: int) -> str:
    """Return the id under which the page lists the records of the arm at `index`."""
    return f"records-{index}"


def arms_table(summaries: Sequence[ArmSummary]) -> ArmTable:
    """Return the main table: the paper's columns first, then the protocol's."""
    first = summaries[0]
    goals = [goal.goal for goal in first.goals]
    columns = [
        *_group("The paper's columns", "Time (s)", "Accuracy (%)", "Loss"),
        *_group(
            "To a goal, on validation data",
            *(
                f"{what} to\N{NO-BREAK SPACE}{goal:g}\N{NO-BREAK SPACE}%"
                for goal in goals
                for what in ("Seconds", "Examples")
            ),
        ),
        *_group("Steady speed", "ms per iteration", "Examples per s", "Stage updates per s"),
        *_group(
            "Over backprop", "Time per iteration", "Speed-up per iteration", "Speed-up per update"
        ),
        *_group(
            "Validation accuracy (%) at equal",
            f"{count(first.equal_iterations)} iterations",
            f"{significant(first.equal_seconds)} seconds",
            f"{count(first.equal_stage_updates)} stage updates",
        ),
        *_group(
            "Cost",
            "MFLOP per iteration",
            "Synthesizer parameters",
            "Memory (MiB)",
            "Cold start (s)",
            "Threads",
        ),
    ]
    rows = [
        ArmRow(
            index=index,
            label=summary.label,
            note=_arm_note(summary),
            cells=_arm_cells(summary, records_anchor(index)),
        )
        for index, summary in enumerate(summaries)
    ]
    return ArmTable(columns=columns, rows=rows)


def iterations_table(summaries: Sequence[ArmSummary], records: Iterable[RunRecord]) -> ArmTable:
    """Return seconds and validation accuracy of the arms after a share of their iterations."""
    points = vary_iterations(records, _FRACTIONS)
    by_arm = {arm: list(group) for arm, group in groupby(points, key=lambda point: point.arm)}
    # Arms share their schedule of snapshots. Short runs have few: each is shown once.
    shares: dict[int, int] = {}
    for position in range(len(_FRACTIONS)):
        iterations = max(group[position].iterations or 0 for group in by_arm.values())
        if iterations:
            shares.setdefault(iterations, position)
    rows = [
        ArmRow(
            index=index,
            label=summary.label,
            note=_arm_note(summary),
            cells=[
                cell
                for position in shares.values()
                for cell in _iteration_cells(
                    by_arm[summary.arm][position],
                    records_link(summary.records, records_anchor(index)),
                )
            ],
        )
        for index, summary in enumerate(summaries)
    ]
    columns = [
        column
        for iterations in shares
        for column in _group(f"{count(iterations)} iterations", "Seconds", "Accuracy (%)")
    ]
    return ArmTable(columns=columns, rows=rows)


def _arm_cells(arm: ArmSummary, anchor: str) -> list[Cell]:
    runs = records_link(arm.records, anchor)
    timing = record_link(arm.timing_record) if arm.timing_record else runs
    is_baseline = arm.time_ratio == 1 and arm.time_ratio_interval == (1, 1)
    return [
        _cell(arm.seconds, significant, runs),
        _cell(arm.test_accuracy, _percent, runs, _interval(arm.test_accuracy_interval, _percent)),
        _cell(arm.test_loss, significant, runs),
        *(cell for goal in arm.goals for cell in _goal_cells(goal, runs)),
        _cell(arm.seconds_per_iteration, _milliseconds, timing),
        _cell(arm.examples_per_second, count, timing),
        _cell(arm.stage_updates_per_second, count, timing),
        _cell(
            arm.time_ratio,
            _ratio,
            timing,
            "" if is_baseline else _interval(arm.time_ratio_interval, _ratio),
        ),
        _cell(arm.speedup_per_iteration, _ratio, timing),
        _cell(arm.speedup_per_stage_update, _ratio, timing),
        _cell(arm.val_accuracy_at_equal_iterations, _percent, runs),
        _cell(arm.val_accuracy_at_equal_seconds, _percent, runs),
        _cell(arm.val_accuracy_at_equal_stage_updates, _percent, runs),
        _cell(arm.flops_per_iteration, _millions, runs),
        _cell(arm.synthesizer_parameters, count, runs),
        _cell(arm.memory_bytes, _mebibytes, runs),
        _cell(arm.cold_seconds, significant, runs),
        _cell(arm.threads, count, timing),
    ]


def _goal_cells(goal: GoalSummary, href: str) -> list[Cell]:
    num_seeds = len(goal.seconds_points)
    num_hits = sum(examples is not None for examples in goal.examples_points)
    if not num_seeds:
        return [_cell(None, count, href)] * 2
    note = f"{num_hits} of {num_seeds}"
    cells = [
        Cell(text=shown(value) if value is not None else "missed", sort=value, href=href, note=note)
        for value, shown in ((goal.seconds, significant), (goal.examples, count))
    ]
    if num_hits and all(seconds is None for seconds in goal.seconds_points):  # no clock
        cells[0] = _cell(None, significant, href)
    return cells


def _iteration_cells(point: IterationPoint, href: str) -> list[Cell]:
    return [
        _cell(point.seconds, significant, href),
        _cell(point.val_accuracy, _percent, href),
    ]


def _arm_note(arm: ArmSummary) -> str:
    if arm.status == "unavailable":
        return f"not available: {arm.reason}"
    seeds = f"{arm.num_seeds} seed{'' if arm.num_seeds == 1 else 's'}"
    failed = sum(point is None for point in arm.test_accuracy_points)
    counts = {"failed": failed, "interrupted": arm.num_interrupted}
    return ", ".join([seeds, *(f"{count} {what}" for what, count in counts.items() if count)])


def _group(group: str, *titles: str) -> list[Column]:
    return [Column(title=title, group=group) for title in titles]


def _cell(
    value: float | None, shown: Callable[[float | None], str], href: str, note: str = ""
) -> Cell:
    if value is None:
        return Cell(text=MISSING)
    return Cell(text=shown(value), sort=value, href=href, note=note)


def _interval(interval: Bounds | None, shown: Callable[[float | None], str]) -> str:
    if interval is None:
        return ""
    low, high = interval
    return (
        f"{'a miss' if low is None else shown(low)} to {'a miss' if high is None else shown(high)}"
    )


def _percent(value: float | None) -> str:
    return fixed(value, 2)


def _ratio(value: float | None) -> str:
    return fixed(value, 2)


def _milliseconds(value: float | None) -> str:
    return MISSING if value is None else significant(value * 1000)


def _millions(value: float | None) -> str:
    return MISSING if value is None else significant(value / 1e6)


def _mebibytes(value: float | None) -> str:
    return MISSING if value is None else significant(value / 2**20)
