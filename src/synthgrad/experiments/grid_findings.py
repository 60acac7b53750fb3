"""What experiments of several networks show: test errors, and how far each method is from backprop.

Experiments add to it what their paper claims.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from synthgrad.bench.figures.panels import Dot, Dots, Line, Panel, dots_data, lines_data
from synthgrad.bench.findings import Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.cases import by_case
from synthgrad.bench.scoring.formats import MISSING, count, fixed
from synthgrad.bench.scoring.summary import BASELINE, runs_by_arm
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.accuracy import (
    Cases,
    error,
    error_interval,
    error_text,
    errors,
    gap_interval,
    gap_text,
)
from synthgrad.experiments.equal_budgets import (
    equal_gap_text,
    gap_at_equal,
    network_updates,
    training_seconds,
)

Paper = Callable[[str, str], float | None]
"""From a case and an arm to the paper's test error in percent, as it is recalled."""

_ERRORS_NOTE = "Test error in percent: median over n seeds [95 %]."


def _nothing_recalled(case: str, arm: str) -> float | None:
    del case, arm


def error_table(cases: Cases, *, paper: Paper = _nothing_recalled, note: str = "") -> Table:
    """Return the test error of every arm of every case, the paper's beside it where it has one."""
    rows = [
        (
            case,
            arm.label,
            str(arm.num_seeds),
            f"{arm.iterations:,}",
            error_text(arm),
            MISSING if (recalled := paper(case, name)) is None else f"{recalled:.1f}",
        )
        for case, arms in cases.items()
        for name, arm in arms.items()
    ]
    columns = ("Network", "Arm", "n", "Iterations", "Test error % [95 %]", "Paper (recalled)")
    width = 5 if paper is _nothing_recalled else 6
    return Table(
        title="Test error" + ("" if width == 5 else ": ours beside the paper's"),
        columns=columns[:width],
        rows=tuple(row[:width] for row in rows),
        notes=(" ".join(filter(None, [_ERRORS_NOTE, note])),),
        num_text_columns=2,
    )


def gap_table(cases: Cases, records: Sequence[RunRecord], *, baseline: str = BASELINE) -> Table:
    """Return how much more accurate than the baseline each arm is, on three terms.

    Args:
        cases: the summaries.
        records: what they are of.
        baseline: the arm that all others are compared with.
    """
    rows = list[tuple[str, ...]]()
    for case, group in by_case(records).items():
        runs, arms = runs_by_arm(group), cases.get(case, {})
        for name, arm in arms.items():
            gap = gap_interval(arm, arms.get(baseline))
            if name == baseline or gap is None:
                continue
            equal = [
                equal_gap_text(gap_at_equal(spent, runs[name], runs[baseline]))
                for spent in (network_updates, training_seconds)
            ]
            rows.append((case, arm.label, str(gap.num_pairs), gap_text(gap), *equal))
    return Table(
        title=f"Accuracy over {baseline}'s, in points: below zero is worse",
        columns=(
            "Network",
            "Arm",
            "Seeds",
            "Test at the end",
            "Validation at equal updates",
            "Validation at equal seconds",
        ),
        rows=tuple(rows),
        notes=(
            "The median over seeds of the difference within a seed, [least, most]; a run that "
            "failed counts as the worst. Updates and seconds: up to what the one of the two runs "
            f"spent that spent less, at which share of the arm's own run and of {baseline}'s; a "
            "run read below 100 % had not brought its learning rate all the way down. Updates are "
            "of the whole network: stage updates over the arm's number of stages. Seconds are "
            "iterations times the median time of one, where it was measured.",
        ),
        num_text_columns=2,
    )


def cost_table(cases: Cases) -> Table:
    """Return what each arm costs beside the baseline: time, operations, memory, parameters."""
    rows = list[tuple[str, ...]]()
    for case, arms in cases.items():
        reference = arms.get(BASELINE)
        for arm in arms.values():
            rows.append(
                (
                    case,
                    arm.label,
                    fixed(arm.time_ratio, 2),
                    fixed(_ratio(arm.flops_per_iteration, reference, "flops_per_iteration"), 2),
                    fixed(_ratio(arm.memory_bytes, reference, "memory_bytes"), 2),
                    count(arm.synthesizer_parameters),
                )
            )
    return Table(
        title=f"Cost of an iteration over {BASELINE}'s",
        columns=("Network", "Arm", "Time", "Operations", "Memory", "Parameters beside the network"),
        rows=tuple(rows),
        notes=(
            "Time is from interleaved blocks, where they were run. Memory is parameters, buffers, "
            "gradients, the optimizer's state and saved activations; on CUDA the most that was "
            "allocated.",
        ),
        num_text_columns=2,
    )


def errors_picture(
    cases: Cases,
    *,
    title: str = "Test error of each network with each signal",
    paper: Paper = _nothing_recalled,
) -> tuple[Picture, ...]:
    """Return the picture of all test errors, a panel a case; none without a case."""
    panels = [
        Dots(
            title=case,
            x_label="test error (%)",
            rows=[_dot(arm, paper(case, name)) for name, arm in arms.items()],
            log_x=True,
        )
        for case, arms in cases.items()
    ]
    if not panels:
        return ()
    recalled = "" if paper is _nothing_recalled else " The paper's numbers are recalled."
    return (
        Picture(
            name="errors",
            title=title,
            kind="dots",
            data=dots_data(panels),
            note=f"Small strokes are single seeds.{recalled}",
        ),
    )


def median_cosines(runs: Iterable[RunRecord], *, share: float = 1.0) -> dict[str, float]:
    """Return, by interface, the median over runs of the cosine between signal and true gradient.

    Args:
        runs: the runs; what was not measured in one of them takes no part.
        share: of a run's measurements, in iterations, after which the next one counts; by default
            the last one.
    """
    found = dict[str, list[float]]()
    for run in runs:
        events = run.of_kind("alignment")
        late = [e for e in events if e["iteration"] >= share * events[-1]["iteration"]]
        for name, measures in late[0]["interfaces"].items() if late else ():
            if measures.get("cosine") is not None:
                found.setdefault(name, []).append(measures["cosine"])
    return {name: median(cosines) for name, cosines in found.items()}


def _dot(arm: ArmSummary, paper: float | None) -> Dot:
    low, high = error_interval(arm) or (None, None)
    return Dot(
        label=arm.label, value=error(arm), points=errors(arm), low=low, high=high, paper=paper
    )


def errors_over(
    cases: Cases, positions: Mapping[str, float], *, x_label: str, title: str, log_x: bool = False
) -> tuple[Picture, ...]:
    """Return test error over a property of the cases, a line an arm; none without two cases.

    Args:
        cases: the summaries.
        positions: where each case stands on the horizontal axis.
        x_label: what that is.
        title: of the picture.
        log_x: whether that axis is logarithmic.
    """
    known = sorted((case for case in cases if case in positions), key=positions.__getitem__)
    names = dict.fromkeys(name for case in known for name in cases[case])
    by_name = {
        name: {positions[case]: cases[case][name] for case in known if name in cases[case]}
        for name in names
    }
    lines = [error_line(next(iter(arms.values())).label, arms) for arms in by_name.values()]
    if len(known) < 2 or not lines:
        return ()
    panel = Panel(
        title="", x_label=x_label, y_label="test error (%)", lines=lines, log_x=log_x, log_y=True
    )
    return (Picture(name="errors-over", title=title, kind="lines", data=lines_data([panel])),)


def error_line(label: str, arms: Mapping[float, ArmSummary]) -> Line:
    """Return the line of median test errors with their intervals.

    Args:
        label: of the line.
        arms: by their places on the horizontal axis.
    """
    ends = [error_interval(arm) for arm in arms.values()]
    return Line(
        label=label,
        x=list(arms),
        y=[error(arm) for arm in arms.values()],
        low=[end and end[0] for end in ends] if any(ends) else (),
        high=[end and end[1] for end in ends] if any(ends) else (),
    )


def _ratio(value: float | None, reference: ArmSummary | None, field: str) -> float | None:
    theirs = getattr(reference, field) if reference else None
    return None if value is None or not theirs else value / theirs
