"""What the complete unlock shows: error and pace with every lock opened, and verdicts."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from synthgrad.bench.figures.panels import Line, Panel, lines_data
from synthgrad.bench.findings import Findings, Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.cases import by_case, summarize_cases
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.formats import count, fixed
from synthgrad.bench.scoring.scores import examples_to_goal
from synthgrad.bench.scoring.summary import runs_by_arm, scored_runs
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.accuracy import (
    Cases,
    error_text,
    gap_interval,
    gap_text,
    median_curve,
)
from synthgrad.experiments.grid_findings import errors_picture
from synthgrad.experiments.jaderberg2017.two_percent import judge_two_percent
from synthgrad.experiments.verdicts import judged

UNLOCKED = "cdni-inputs"
_RECALLED_ERROR = 2.0

Runs = Mapping[str, Sequence[RunRecord]]


def find(records: Sequence[RunRecord]) -> Findings:
    """Return table, figures and verdicts; a pure function."""
    cases = summarize_cases(records)
    runs = {case: runs_by_arm(group) for case, group in by_case(records).items()}
    return Findings(
        claims=tuple(
            claim for case, arms in cases.items() for claim in _claims(case, arms, runs[case])
        ),
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


def _curves(cases: Cases, runs: Mapping[str, Runs]) -> Picture:
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


def _claims(case: str, arms: Mapping[str, ArmSummary], runs: Runs) -> list[Claim]:
    made = [
        judge_two_percent(
            f"complete unlock on {case}",
            "about 2 % error is reached with cDNI and synthetic inputs (recalled; 500,000 "
            "iterations)",
            arms.get(UNLOCKED),
        ),
        _slower(case, arms, runs),
    ]
    return [claim for claim in made if claim]


def _slower(case: str, arms: Mapping[str, ArmSummary], runs: Runs) -> Claim | None:
    """Judge, seed by seed, the claim that the complete unlock converges more slowly.

    The first goal decides. Runs are looked at only now and then, so a difference of one snapshot
    may be next to none.
    """
    if UNLOCKED not in arms or "cdni" not in arms:
        return None
    goal = arms["cdni"].goals[0].goal
    ours, theirs = (_examples_by_seed(runs[name], goal) for name in (UNLOCKED, "cdni"))
    later = [ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()]
    every = _snapshot_interval([*runs[UNLOCKED], *runs["cdni"]])
    # Where both missed the goal the difference is NaN, which is on no side.
    slower, faster = sum(d > every for d in later), sum(d < -every for d in later)
    verdict: Verdict
    if faster:
        verdict, reason = "not reproduced", f"It is the faster one in {faster} seeds."
    elif slower and slower == len(later):
        verdict, reason = "reproduced", "It is the slower one in every seed."
    else:
        verdict = "not comparable"
        reason = (
            f"In {len(later) - slower} seeds the two are within one snapshot of each other, or "
            "both missed the goal."
        )
    return judged(
        claim=f"pace of the complete unlock on {case}",
        paper="it converges more slowly than with synthetic gradients alone (recalled)",
        measured=(
            f"to {goal:g} % validation accuracy: {_examples(arms[UNLOCKED].examples_to_goal)} with "
            f"synthetic inputs, {_examples(arms['cdni'].examples_to_goal)} without, looked at "
            f"every {every:,.0f}"
        ),
        num_seeds=len(later),
        verdict=verdict,
        reason=reason,
    )


def _examples_by_seed(runs: Sequence[RunRecord], goal: float) -> dict[int, float]:
    return {run.seed: examples_to_goal(run, goal) for run in scored_runs(runs)}


def _snapshot_interval(runs: Sequence[RunRecord]) -> int:
    """Return the most examples between two looks at a run."""
    return max(
        (b.examples - a.examples for run in runs for a, b in pairwise(run.snapshots)), default=0
    )


def _examples(number: float | None) -> str:
    return "missed" if number is None else f"{number:,.0f} examples"
