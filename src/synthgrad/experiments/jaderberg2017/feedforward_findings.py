"""What the feed-forward table shows: ours beside the paper's, and verdicts on its claims."""

from collections.abc import Mapping, Sequence

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.report.findings import Findings
from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.cases import summarize_cases
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.experiments.accuracy import (
    FEW_SEEDS,
    MIN_SEEDS,
    Cases,
    falls,
    gap_interval,
    gap_text,
)
from synthgrad.experiments.grid_findings import error_table, errors_picture, gap_table
from synthgrad.experiments.jaderberg2017.numbers import recalled_error

_NOTE = (
    "The paper's after 500,000 iterations at 3e-5 as recalled, single digits not checked. Our "
    "iterations and sizes stand in the records."
)


def find(records: Sequence[RunRecord]) -> Findings:
    """Return the table, the figure and the verdicts; a pure function."""
    cases = summarize_cases(records)
    return Findings(
        claims=tuple(_claims(cases)),
        tables=(error_table(cases, paper=recalled_error, note=_NOTE), gap_table(cases, records)),
        pictures=errors_picture(cases, paper=recalled_error),
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
    ends_close = abs(paper[0] - paper[1]) <= 0.5
    verdict: Verdict
    if arms["cdni"].num_seeds < MIN_SEEDS:
        verdict, reason = "not comparable", FEW_SEEDS
    elif ends_close == (gap[0] >= -0.5):
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
            f"{gap_text(gap)} points after "
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
