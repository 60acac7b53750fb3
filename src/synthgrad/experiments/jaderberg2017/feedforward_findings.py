"""What the feed-forward table shows: ours beside the paper's, and verdicts on its claims."""

from collections.abc import Mapping, Sequence

from synthgrad.bench.figures.panels import Dot, Dots, dots_data
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.report.findings import Findings, Picture
from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.cases import summarize_cases
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.formats import MISSING
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.jaderberg2017.accuracy import (
    Cases,
    difference_cell,
    error,
    error_cell,
    errors,
    falls,
    gap_cell,
    gap_interval,
)
from synthgrad.experiments.jaderberg2017.numbers import recalled_error

_NOTE = (
    "Test error in percent, median over n seeds, [95 %]; the paper's after 500,000 iterations at "
    "3e-5 as recalled, single digits not checked. Iterations and sizes of ours stand in the "
    "records."
)


def find(records: Sequence[RunRecord]) -> Findings:
    """Return the table, the figure and the verdicts; a pure function."""
    cases = summarize_cases(records)
    pictures = [_picture(cases)] if cases else []
    return Findings(
        claims=tuple(_claims(cases)),
        tables=(_table(cases), _gap_table(cases)),
        pictures=tuple(pictures),
    )


def _table(cases: Cases) -> Table:
    rows = list[tuple[str, ...]]()
    for case, arms in cases.items():
        for name, arm in arms.items():
            paper = recalled_error(case, name)
            rows.append(
                (
                    case,
                    arm.label,
                    str(arm.num_seeds),
                    f"{arm.iterations:,}",
                    error_cell(arm),
                    MISSING if paper is None else f"{paper:.1f}",
                )
            )
    return Table(
        title="Test error (%): ours beside the paper's",
        columns=("Network", "Arm", "n", "Iterations", "Ours [95 %]", "Paper (recalled)"),
        rows=tuple(rows),
        notes=(_NOTE,),
        num_text_columns=2,
    )


def _gap_table(cases: Cases) -> Table:
    rows = list[tuple[str, ...]]()
    for case, arms in cases.items():
        backprop = arms.get("backprop")
        for name in ("dni", "cdni"):
            arm = arms.get(name)
            gap = gap_interval(arm, backprop)
            if arm is None or gap is None:
                continue
            equal = [
                difference_cell(getattr(arm, field), getattr(backprop, field))
                for field in (
                    "val_accuracy_at_equal_stage_updates",
                    "val_accuracy_at_equal_seconds",
                )
            ]
            rows.append((case, arm.label, gap_cell(gap), *equal))
    return Table(
        title="Accuracy over backprop's, in points: below zero is worse",
        columns=(
            "Network",
            "Arm",
            "Test, seed by seed [least, most]",
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


def _picture(cases: Cases) -> Picture:
    panels = [
        Dots(
            title=case,
            x_label="test error (%)",
            rows=[
                Dot(
                    label=arm.label,
                    value=error(arm),
                    points=errors(arm),
                    paper=recalled_error(case, name),
                )
                for name, arm in arms.items()
            ],
            log_x=True,
        )
        for case, arms in cases.items()
    ]
    return Picture(
        name="errors",
        title="Test error of each network with each signal, ours and the paper's",
        kind="dots",
        data=dots_data(panels),
        note="Small strokes are single seeds. The paper's numbers are recalled.",
    )


def _claims(cases: Cases) -> list[Claim]:
    claims = [claim for case in cases if (claim := _close(case, cases[case]))]
    for prefix in ("mnist-fcn", "cifar10-fcn"):
        claims += _fades(prefix, {c: a for c, a in cases.items() if c.startswith(prefix)})
    return claims


def _close(case: str, arms: Mapping[str, ArmSummary]) -> Claim | None:
    gap = gap_interval(arms.get("cdni"), arms.get("backprop"))
    paper = recalled_error(case, "cdni"), recalled_error(case, "backprop")
    if gap is None or paper[0] is None or paper[1] is None:
        return None
    median, low, high = gap
    ends_close = abs(paper[0] - paper[1]) <= 0.5
    verdict: Verdict
    if arms["cdni"].num_seeds < 3:
        verdict, reason = "not comparable", "Fewer than three seeds."
    elif ends_close == (median >= -0.5):
        verdict, reason = "reproduced", "Both gaps are on the same side of half a point."
    else:
        verdict, reason = "not reproduced", "The two gaps lie on different sides of half a point."
    return Claim(
        claim=f"cDNI against backprop on {case}",
        paper=(
            f"errors of {paper[0]:.1f} and {paper[1]:.1f} %: {paper[1] - paper[0]:+.1f} points "
            "of accuracy (recalled)"
        ),
        measured=(
            f"{median:+.2f} points [{low:+.2f}, {high:+.2f}] after "
            f"{arms['cdni'].iterations:,} iterations, n = {arms['cdni'].num_seeds}"
        ),
        verdict=verdict,
        reason=reason,
    )


def _fades(prefix: str, cases: Cases) -> list[Claim]:
    """Judge the claim that DNI without labels grows worse with depth, and cDNI does not."""
    depths = sorted(cases)
    if len(depths) < 2:
        return []
    first, last = depths[0], depths[-1]
    gaps = [gap_interval(cases[c].get("dni"), cases[c].get("backprop")) for c in (first, last)]
    paper = [
        (recalled_error(c, "dni") or 0.0) - (recalled_error(c, "backprop") or 0.0)
        for c in (first, last)
    ]
    if gaps[0] is None or gaps[1] is None:
        return []
    fades = falls(gaps[0], gaps[1])
    return [
        Claim(
            claim=f"DNI without labels and depth, {first} to {last}",
            paper=(
                f"its error exceeds backprop's by {paper[0]:+.1f} and {paper[1]:+.1f} points "
                "(recalled): it grows with depth"
            ),
            measured=f"it exceeds backprop's by {-gaps[0][0]:+.2f} and {-gaps[1][0]:+.2f} points",
            verdict="reproduced" if fades else "not reproduced",
            reason=(
                "At the larger depth every seed is worse than any at the smaller one."
                if fades
                else "The seeds of the two depths overlap, or it does not grow."
            ),
        )
    ]
