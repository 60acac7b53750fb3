"""What the complete unlock shows: error and pace with every lock opened, and verdicts."""

from collections.abc import Mapping, Sequence

from synthgrad.bench.figures.panels import Line, Panel, lines_data
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.report.findings import Findings, Picture
from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.cases import by_case, summarize_cases
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.formats import count, fixed
from synthgrad.bench.scoring.summary import runs_by_arm
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.accuracy import (
    FEW_SEEDS,
    MIN_SEEDS,
    Cases,
    error_text,
    gap_interval,
    gap_text,
    median_curve,
)
from synthgrad.experiments.grid_findings import errors_picture
from synthgrad.experiments.jaderberg2017.two_percent import judge_two_percent

UNLOCKED = "cdni-inputs"
_RECALLED_ERROR = 2.0


def find(records: Sequence[RunRecord]) -> Findings:
    """Return table, figures and verdicts; a pure function."""
    cases = summarize_cases(records)
    runs = {case: runs_by_arm(group) for case, group in by_case(records).items()}
    return Findings(
        claims=tuple(claim for case, arms in cases.items() for claim in _claims(case, arms)),
        tables=(_table(cases),),
        pictures=(
            *errors_picture(
                cases, title="Test error with more and more locks opened", paper=_recalled
            ),
            *((_curves(cases, runs),) if cases else ()),
        ),
    )


def _table(cases: Cases) -> Table:
    every = [arm for arms in cases.values() for arm in arms.values() if arm.goals]
    goal = f"{every[0].goals[0].goal:g} %" if every else "the goal"
    return Table(
        title="Test error (%) with more and more locks opened",
        columns=(
            "Arm",
            "n",
            "Iterations",
            "Test [95 %]",
            "Points over backprop [least, most]",
            f"Examples to {goal}",
            "Time an iteration over backprop's",
        ),
        rows=tuple(
            (
                f"{case}, {arm.label}",
                str(arm.num_seeds),
                f"{arm.iterations:,}",
                error_text(arm),
                gap_text(gap_interval(arm, arms.get("backprop"))),
                "missed" if arm.examples_to_goal is None else count(arm.examples_to_goal),
                fixed(arm.time_ratio, 2),
            )
            for case, arms in cases.items()
            for arm in arms.values()
        ),
        notes=(
            "Medians over n seeds. Goals are of validation accuracy. DNI opens the update lock and "
            "the backward lock; synthetic inputs open the forward lock too.",
            "The time is that of one "
            "process on one device, which runs nothing at the same time: open locks are not used "
            "there, and what opens them comes on top.",
        ),
    )


def _recalled(case: str, arm: str) -> float | None:
    del case
    return _RECALLED_ERROR if arm == UNLOCKED else None


def _curves(cases: Cases, runs: Mapping[str, Mapping[str, Sequence[RunRecord]]]) -> Picture:
    panels = list[Panel]()
    for case, arms in cases.items():
        lines = list[Line]()
        for name, arm in arms.items():
            curve = median_curve(runs[case][name])
            lines.append(Line(label=arm.label, x=curve.iterations, y=curve.errors))
        panels.append(
            Panel(
                title=case,
                x_label="iterations",
                y_label="validation error (%)",
                lines=lines,
                log_y=True,
            )
        )
    return Picture(
        name="error-over-iterations",
        title="Validation error over iterations",
        kind="lines",
        data=lines_data(panels),
        note="Medians over the seeds that finished.",
    )


def _claims(case: str, arms: Mapping[str, ArmSummary]) -> list[Claim]:
    made = [
        judge_two_percent(
            f"complete unlock on {case}",
            "about 2 % error is reached with cDNI and synthetic inputs (recalled; 500,000 "
            "iterations)",
            arms.get(UNLOCKED),
        ),
        _slower(case, arms.get(UNLOCKED), arms.get("cdni")),
    ]
    return [claim for claim in made if claim]


def _slower(case: str, unlocked: ArmSummary | None, cdni: ArmSummary | None) -> Claim | None:
    """Judge the claim that the complete unlock converges more slowly; the first goal decides."""
    if unlocked is None or cdni is None:
        return None
    ours, theirs = unlocked.examples_to_goal, cdni.examples_to_goal
    goal = f"{cdni.goals[0].goal:g} %"
    verdict: Verdict
    if min(unlocked.num_seeds, cdni.num_seeds) < MIN_SEEDS:
        verdict, reason = "not comparable", FEW_SEEDS
    elif theirs is None:
        verdict, reason = "not comparable", f"cDNI without synthetic inputs missed {goal}."
    elif ours is None:
        verdict, reason = "reproduced", f"With synthetic inputs {goal} was missed."
    elif ours > theirs:
        verdict, reason = "reproduced", f"It takes {ours / theirs:.1f} times the examples."
    else:
        verdict, reason = "not reproduced", "It takes no more examples."
    return Claim(
        claim=f"pace of the complete unlock on {case}",
        paper="it converges more slowly than with synthetic gradients alone (recalled)",
        measured=(
            f"to {goal} validation accuracy: {_examples(ours)} with synthetic inputs, "
            f"{_examples(theirs)} without; n = {unlocked.num_seeds} and {cdni.num_seeds}"
        ),
        verdict=verdict,
        reason=reason,
    )


def _examples(number: float | None) -> str:
    return "missed" if number is None else f"{number:,.0f} examples"
