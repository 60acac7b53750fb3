"""What sparse updates show: error at equal iterations and at equal updates, time by both counts."""

import math
from collections.abc import Mapping, Sequence

from synthgrad.bench.figures.panels import Line, Panel, lines_data
from synthgrad.bench.findings import Findings, Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.arm_summary import ArmSummary, Bounds, known
from synthgrad.bench.scoring.cases import by_case, summarize_cases
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.formats import MISSING, count, fixed
from synthgrad.bench.scoring.scores import accuracy_at, median_with_misses
from synthgrad.bench.scoring.summary import runs_by_arm, scored_runs
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.accuracy import (
    error,
    error_text,
    errors,
    gap_interval,
    gap_text,
    median_curve,
)
from synthgrad.experiments.grid_findings import error_line
from synthgrad.experiments.jaderberg2017.two_percent import judge_two_percent
from synthgrad.experiments.methods import SIGNAL_LABELS
from synthgrad.experiments.verdicts import judged

ANY_ORDER = "cdni-any-order"
_RECALLED_AT = 0.2

Arms = Mapping[str, ArmSummary]
Runs = Mapping[str, Sequence[RunRecord]]


def find(records: Sequence[RunRecord]) -> Findings:
    """Return tables, figures and verdicts; a pure function."""
    cases = summarize_cases(records)
    if not cases:
        return Findings()
    runs = {case: runs_by_arm(group) for case, group in by_case(records).items()}
    main = next((case for case in cases if not case.endswith("-long")), "")
    arms = cases.get(main, {})
    long = [arm for case in cases if case != main for arm in cases[case].values()]
    own_runs = runs.get(main, {})
    return Findings(
        claims=tuple(_claims(arms)),
        tables=(_accuracy_table(arms, long, own_runs), _time_table(arms)),
        pictures=(_by_probability(arms, long), _by_updates(own_runs)) if arms else (),
    )


def _probability(name: str) -> float | None:
    """Return p of an arm such as "cdni-p0.2"; None for one without."""
    _, found, number = name.partition("-p")
    return float(number) if found else None


def _accuracy_table(arms: Arms, long: Sequence[ArmSummary], runs: Runs) -> Table:
    rows = list[tuple[str, ...]]()
    for arm in (*arms.values(), *long):
        signal, _, _ = arm.arm.partition("-")
        with_all = runs.get(f"{signal}-p1", ())
        rows.append(
            (
                arm.label,
                str(arm.num_seeds),
                f"{arm.iterations:,}",
                count(arm.stage_updates),
                error_text(arm),
                MISSING if arm.val_accuracy is None else fixed(100 - arm.val_accuracy, 2),
                fixed(_error_at(with_all, arm.stage_updates), 2),
            )
        )
    return Table(
        title="Error (%) at equal iterations, and beside as many stage updates with p = 1",
        columns=(
            "Arm",
            "n",
            "Iterations",
            "Stage updates",
            "Test [95 %]",
            "Validation",
            "p = 1 after as many updates",
        ),
        rows=tuple(rows),
        notes=(
            "Medians over n seeds. The last column is the validation error of the same signal with "
            "p = 1, read at its last evaluation within the updates of this row: in mid-schedule, "
            "before its learning rate has come down, which favors the row.",
            "Rows with more iterations went on until a stage had as many updates as with p = 1, "
            "on a schedule stretched alike: there the two columns compare fairly. Backprop with "
            "more iterations had as many batches as those rows."
            if long
            else "No runs were stretched to as many updates as with p = 1.",
        ),
    )


def _error_at(runs: Sequence[RunRecord], stage_updates: float | None) -> float | None:
    """Return the median validation error after so many stage updates, in percent."""
    if stage_updates is None or not runs:
        return None
    values = (accuracy_at(run, stage_updates=stage_updates) for run in scored_runs(runs))
    return known(100 - median_with_misses(values, miss=-math.inf))


def _time_table(arms: Arms) -> Table:
    rows = [
        (
            arm.label,
            count(arm.threads),
            fixed(1000 * arm.seconds_per_iteration, 2),
            fixed(arm.seconds_per_iteration * (arm.stage_updates_per_second or 0), 2),
            _ratio(arm.time_ratio, arm.time_ratio_interval),
            fixed(
                1 / arm.speedup_per_stage_update if arm.speedup_per_stage_update else None,
                2,
            ),
        )
        for arm in arms.values()
        if arm.seconds_per_iteration is not None
    ]
    sources = {arm.timing for arm in arms.values() if arm.timing}
    return Table(
        title="Time by both ways of counting, over backprop's",
        columns=(
            "Arm",
            "Threads",
            "ms an iteration",
            "Updates an iteration",
            "Time an iteration [95 %]",
            "Time a stage update",
        ),
        rows=tuple(rows),
        notes=(
            f"From {' and '.join(sorted(sources)) or 'nothing'}, in one process on one device. An "
            "iteration that skips updates takes less time because it does less; what an update "
            "costs stands in the last column. Arms in any order run in the reference engine, which "
            "is written for clarity and not for speed.",
        ),
    )


def _ratio(ratio: float | None, interval: Bounds | None) -> str:
    if ratio is None or interval is None:
        return fixed(ratio, 2)
    return f"{ratio:.2f} [{fixed(interval[0], 2)}, {fixed(interval[1], 2)}]"


def _by_probability(arms: Arms, long: Sequence[ArmSummary]) -> Picture:
    lines = list[Line]()
    for title, among in (("", arms.values()), (" (as many updates)", long)):
        for signal, label in SIGNAL_LABELS.items():
            found = {
                p: arm
                for arm in among
                if arm.arm.startswith(f"{signal}-") and (p := _probability(arm.arm))
            }
            if found:
                lines.append(error_line(f"{label}{title}", dict(sorted(found.items()))))
    backprop = error(arms.get("backprop"))
    panel = Panel(
        title="equal iterations",
        x_label="update probability p",
        y_label="test error (%)",
        lines=lines,
        log_x=True,
        log_y=True,
        marks=() if backprop is None else (backprop,),
    )
    return Picture(
        name="error-by-probability",
        title="Test error by update probability",
        kind="lines",
        data=lines_data([panel]),
        note=(
            "Medians over seeds with their intervals; the thin line is backprop. Where a line says "
            "so, the runs went on until a stage had as many updates as with p = 1."
        ),
    )


def _by_updates(runs: Runs) -> Picture:
    panels = list[Panel]()
    for signal, label in SIGNAL_LABELS.items():
        names = [name for name in runs if name.startswith(f"{signal}-") and _probability(name)]
        curves = {_probability(name): median_curve(runs[name]) for name in names}
        if curves:
            panels.append(
                Panel(
                    title=label,
                    x_label="stage updates",
                    y_label="validation error (%)",
                    lines=[
                        Line(label=f"p = {p:g}", x=curve.stage_updates, y=curve.errors)
                        for p, curve in curves.items()
                    ],
                    log_x=True,
                    log_y=True,
                )
            )
    return Picture(
        name="error-by-updates",
        title="Validation error over stage updates: what an update is worth",
        kind="lines",
        data=lines_data(panels),
        note="Medians over seeds. Every line ends after as many iterations as the others.",
    )


def _claims(arms: Arms) -> list[Claim]:
    made = [
        judge_two_percent(
            f"{SIGNAL_LABELS[signal]}, p = {_RECALLED_AT:g}",
            "about 2 % error still, where a layer is updated in a fifth of the iterations "
            "(recalled; 500,000 iterations)",
            arms.get(f"{signal}-p{_RECALLED_AT:g}"),
        )
        for signal in ("dni", "cdni")
    ]
    made.append(_any_order(arms))
    return [claim for claim in made if claim]


def _any_order(arms: Arms) -> Claim | None:
    """Judge whether the stages of one batch can be updated in any order."""
    free, ordinary = arms.get(ANY_ORDER), arms.get("cdni-p1")
    gap = gap_interval(free, ordinary)
    if free is None or ordinary is None or gap is None:
        return None
    scatter = max(errors(ordinary)) - min(errors(ordinary))
    largest = max(abs(gap.least), abs(gap.most))
    verdict: Verdict
    if largest == 0:
        verdict, reason = "reproduced", "Every seed has the very same test accuracy."
    elif largest <= scatter:
        verdict = "reproduced"
        reason = (
            f"Not the same numbers, as where the arms ran on {free.threads} and "
            f"{ordinary.threads} threads, but no further apart than the seeds."
        )
    else:
        verdict, reason = "not reproduced", "They differ by more than the seeds do."
    return judged(
        claim="order of the updates within a batch",
        paper="layers with DNI can be updated in any order (recalled)",
        measured=(
            "the stages of each batch updated in an order drawn anew, one after the other in the "
            "reference engine, nothing at the same time: test accuracy over the ordinary loop's "
            f"{gap_text(gap)} points"
        ),
        num_seeds=gap.num_pairs,
        verdict=verdict,
        reason=reason,
    )
