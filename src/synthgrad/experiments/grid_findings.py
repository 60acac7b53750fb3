"""What experiments of several networks show: test errors, and how far each method is from backprop.

Experiments add to it what their paper claims.
"""

from collections.abc import Callable, Mapping, Sequence

from synthgrad.bench.figures.panels import Dot, Dots, Line, Panel, dots_data, lines_data
from synthgrad.bench.report.findings import Picture
from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.formats import MISSING, count, fixed
from synthgrad.bench.scoring.summary import BASELINE
from synthgrad.bench.scoring.table import Table

Cases = Mapping[str, Mapping[str, ArmSummary]]
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


def gap_table(cases: Cases, *, baseline: str = BASELINE) -> Table:
    """Return how much more accurate than the baseline each arm is, on three terms."""
    rows = list[tuple[str, ...]]()
    for case, arms in cases.items():
        reference = arms.get(baseline)
        for name, arm in arms.items():
            gap = gap_interval(arm, reference)
            if name == baseline or gap is None or reference is None:
                continue
            equal = [
                _difference(getattr(arm, field), getattr(reference, field))
                for field in (
                    "val_accuracy_at_equal_stage_updates",
                    "val_accuracy_at_equal_seconds",
                )
            ]
            rows.append((case, arm.label, gap_text(gap), *equal))
    return Table(
        title=f"Accuracy over {baseline}'s, in points: below zero is worse",
        columns=(
            "Network",
            "Arm",
            "Test, within a seed [least, most]",
            "Validation at equal updates",
            "Validation at equal seconds",
        ),
        rows=tuple(rows),
        notes=(
            "The median over seeds of the difference within a seed, and its extremes. Equal "
            "seconds are iterations times the median time of one, where it was measured.",
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
            "Time is from interleaved blocks, where they were run. Memory is activations saved.",
        ),
        num_text_columns=2,
    )


def errors_picture(cases: Cases, *, paper: Paper = _nothing_recalled) -> tuple[Picture, ...]:
    """Return the picture of all test errors, a panel a case; none without a case."""
    panels = [
        Dots(
            title=case,
            x_label="test error (%)",
            rows=[
                Dot(
                    label=arm.label,
                    value=error(arm),
                    points=[100 - a for a in arm.test_accuracy_points if a is not None],
                    paper=paper(case, name),
                )
                for name, arm in arms.items()
            ],
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
            title="Test error of each network with each signal",
            kind="dots",
            data=dots_data(panels),
            note=f"Small strokes are single seeds.{recalled}",
        ),
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
    lines = [_line(cases, known, positions, name) for name in names]
    if len(known) < 2 or not lines:
        return ()
    panel = Panel(
        title="", x_label=x_label, y_label="test error (%)", lines=lines, log_x=log_x, log_y=True
    )
    return (Picture(name="errors-over", title=title, kind="lines", data=lines_data([panel])),)


def _line(cases: Cases, known: Sequence[str], positions: Mapping[str, float], name: str) -> Line:
    arms = [(positions[case], cases[case][name]) for case in known if name in cases[case]]
    seeds = [[100 - a for a in arm.test_accuracy_points if a is not None] for _, arm in arms]
    return Line(
        label=arms[0][1].label,
        x=[x for x, _ in arms],
        y=[error(arm) for _, arm in arms],
        low=[min(points, default=None) for points in seeds],
        high=[max(points, default=None) for points in seeds],
    )


def error(summary: ArmSummary | None) -> float | None:
    """Return an arm's median test error in percent."""
    if summary is None or summary.test_accuracy is None:
        return None
    return 100 - summary.test_accuracy


def gap_interval(
    arm: ArmSummary | None, backprop: ArmSummary | None
) -> tuple[float, float, float] | None:
    """Return the median, least and most difference in test accuracy within a seed, in points."""
    if arm is None or backprop is None:
        return None
    pairs = zip(arm.test_accuracy_points, backprop.test_accuracy_points, strict=False)
    gaps = sorted(a - b for a, b in pairs if a is not None and b is not None)
    if not gaps:
        return None
    middle = len(gaps) // 2
    median = gaps[middle] if len(gaps) % 2 else (gaps[middle - 1] + gaps[middle]) / 2
    return median, gaps[0], gaps[-1]


def gap_text(gap: tuple[float, float, float]) -> str:
    """Return a gap with its extremes, in points."""
    median, least, most = gap
    return f"{median:+.2f} [{least:+.2f}, {most:+.2f}]"


def error_text(arm: ArmSummary) -> str:
    """Return an arm's test error with its interval, or what became of it."""
    value, interval = error(arm), arm.test_accuracy_interval
    if value is None:
        return arm.status
    if interval is None or interval[0] is None or interval[1] is None:
        return f"{value:.2f}"
    return f"{value:.2f} [{100 - interval[1]:.2f}, {100 - interval[0]:.2f}]"


def _ratio(value: float | None, reference: ArmSummary | None, field: str) -> float | None:
    theirs = getattr(reference, field) if reference else None
    return None if value is None or not theirs else value / theirs


def _difference(ours: float | None, theirs: float | None) -> str:
    return MISSING if ours is None or theirs is None else f"{ours - theirs:+.2f}"
