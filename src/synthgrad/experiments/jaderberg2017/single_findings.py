"""What a single interface shows: error by the layer that it stands after, and verdicts."""

from collections.abc import Mapping, Sequence

from synthgrad.bench.figures.panels import Line, Panel, lines_data
from synthgrad.bench.findings import Findings, Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.cases import by_case, summarize_cases
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.formats import fixed
from synthgrad.bench.scoring.summary import runs_by_arm
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.accuracy import (
    Cases,
    error,
    error_text,
    falls,
    gap_interval,
    gap_text,
)
from synthgrad.experiments.grid_findings import error_line, median_cosines
from synthgrad.experiments.methods import SIGNAL_LABELS
from synthgrad.experiments.verdicts import judged

_CLOSE = 0.5
_IN_ITS_TABLE = (
    "with an interface after every layer, on MNIST (recalled); its numbers for a single interface "
    "are not known to us"
)

Arms = Mapping[str, ArmSummary]


def find(records: Sequence[RunRecord]) -> Findings:
    """Return tables, figure and verdicts; a pure function."""
    cases = summarize_cases(records)
    grouped = by_case(records)
    cosines = {case: _cosines(grouped[case]) for case in cases}
    return Findings(
        claims=tuple(claim for case, arms in cases.items() for claim in _claims(case, arms)),
        tables=(_table(cases), _gap_table(cases, cosines)),
        pictures=(_picture(cases),) if cases else (),
    )


def _places(arms: Arms) -> list[int]:
    """Return after which layers an interface was set, from the bottom."""
    return sorted({int(name.rsplit("-", 1)[1]) for name in arms if name != "backprop"})


def _table(cases: Cases) -> Table:
    rows = [
        (
            f"{case}, layer {after}",
            error_text(arms.get("backprop")),
            *(error_text(arms.get(f"{signal}-{after}")) for signal in SIGNAL_LABELS),
        )
        for case, arms in cases.items()
        for after in _places(arms)
    ]
    every = [arm for arms in cases.values() for arm in arms.values()]
    seeds = max((arm.num_seeds for arm in every), default=0)
    iterations = max((arm.iterations for arm in every), default=0)
    return Table(
        title="Test error (%), by the layer that the one interface stands after",
        columns=("Interface after", "backprop", *SIGNAL_LABELS.values()),
        rows=tuple(rows),
        notes=(
            f"Median over n = {seeds} seeds, [95 %], after {iterations:,} iterations. Backprop has "
            "no interface, so it is the same in every row of a network.",
        ),
    )


def _gap_table(cases: Cases, cosines: Mapping[str, Mapping[str, float]]) -> Table:
    rows = [
        (
            f"{case}, {arm.label}",
            gap_text(gap),
            fixed(cosines[case].get(name), 2),
        )
        for case, arms in cases.items()
        for name, arm in arms.items()
        if name != "backprop" and (gap := gap_interval(arm, arms.get("backprop")))
    ]
    return Table(
        title="Test accuracy over backprop's, in points, and how the signal points at the end",
        columns=("Arm", "Seed by seed [least, most]", "Cosine to the true gradient"),
        rows=tuple(rows),
        notes=("Below zero is worse. The cosine is the median over seeds, on one fixed batch.",),
    )


def _cosines(records: Sequence[RunRecord]) -> dict[str, float]:
    """Return, by arm, the median cosine at the one interface when its runs ended."""
    runs_of = runs_by_arm(records).items()
    return {arm: cosine for arm, runs in runs_of for cosine in median_cosines(runs).values()}


def _picture(cases: Cases) -> Picture:
    panels = list[Panel]()
    for case, arms in cases.items():
        lines = list[Line]()
        for signal, label in SIGNAL_LABELS.items():
            names = {after: f"{signal}-{after}" for after in _places(arms)}
            at: dict[float, ArmSummary] = {
                after: arms[name] for after, name in names.items() if name in arms
            }
            lines.append(error_line(label, at))
        backprop = error(arms.get("backprop"))
        panels.append(
            Panel(
                title=case,
                x_label="the interface stands after layer",
                y_label="test error (%)",
                lines=lines,
                log_y=True,
                marks=() if backprop is None else (backprop,),
            )
        )
    return Picture(
        name="error-by-place",
        title="Test error by the layer that the one interface stands after",
        kind="lines",
        data=lines_data(panels),
        note="Medians over seeds with their intervals; the thin line is backprop.",
    )


def _claims(case: str, arms: Arms) -> list[Claim]:
    places = _places(arms)
    if len(places) < 2:
        return []
    made = (
        _rises(case, arms, places),
        _needs_signal(case, arms, places),
        _labels(case, arms, places),
    )
    return [claim for claim in made if claim]


def _rises(case: str, arms: Arms, places: Sequence[int]) -> Claim | None:
    """Judge the claim that DNI grows worse as its interface goes up."""
    ends = arms.get(f"dni-{places[0]}"), arms.get(f"dni-{places[-1]}")
    gaps = [gap_interval(arm, arms.get("backprop")) for arm in ends]
    if gaps[0] is None or gaps[1] is None:
        return None
    verdict: Verdict = "reproduced" if falls(gaps[0], gaps[1]) else "not reproduced"
    reason = (
        "At the highest place every seed is worse than any at the lowest."
        if verdict == "reproduced"
        else "The seeds at the two places overlap, or it is not worse at the higher one."
    )
    return judged(
        claim=f"DNI and its place on {case}",
        paper=f"DNI grows worse as more interfaces are stacked: so it is {_IN_ITS_TABLE}",
        measured=(
            f"{error_text(ends[0])} % after layer {places[0]}, {error_text(ends[1])} % after layer "
            f"{places[-1]}, backprop {error_text(arms.get('backprop'))} %"
        ),
        num_seeds=min(gaps[0].num_pairs, gaps[1].num_pairs),
        verdict=verdict,
        reason=reason,
    )


def _needs_signal(case: str, arms: Arms, places: Sequence[int]) -> Claim | None:
    """Judge the claim that without a signal the same cut does worse."""
    gaps = [gap_interval(arms.get(f"dni-{k}"), arms.get(f"no-signal-{k}")) for k in places]
    measured = [(gap, k) for gap, k in zip(gaps, places, strict=True) if gap]
    if not measured:
        return None
    least, at = min(measured)
    verdict: Verdict = "reproduced" if all(gap[1] > 0 for gap, _ in measured) else "not reproduced"
    reason = (
        "At every place DNI is better with every seed."
        if verdict == "reproduced"
        else f"After layer {at} it is not better with every seed."
    )
    return judged(
        claim=f"DNI against no signal on {case}",
        paper=f"DNI is better than no signal: so it is {_IN_ITS_TABLE}",
        measured=f"DNI is better by {gap_text(least)} points where that is least, after layer {at}",
        num_seeds=min(gap.num_pairs for gap, _ in measured),
        verdict=verdict,
        reason=reason,
    )


def _labels(case: str, arms: Arms, places: Sequence[int]) -> Claim | None:
    """Judge the claim that cDNI stays near backprop where DNI does not."""
    backprop = arms.get("backprop")
    lost = [gap for k in places if (gap := gap_interval(arms.get(f"dni-{k}"), backprop))]
    kept = [gap for k in places if (gap := gap_interval(arms.get(f"cdni-{k}"), backprop))]
    if not lost or not kept:
        return None
    verdict: Verdict
    if min(lost)[0] >= -_CLOSE:
        verdict = "not comparable"
        reason = f"DNI without labels loses less than {_CLOSE} points everywhere."
    elif min(kept)[0] >= -_CLOSE:
        verdict, reason = "reproduced", f"cDNI loses less than {_CLOSE} points everywhere."
    else:
        verdict, reason = "not reproduced", f"cDNI loses {_CLOSE} points or more somewhere."
    return judged(
        claim=f"cDNI on {case}",
        paper=f"cDNI stays near backprop: so it does {_IN_ITS_TABLE}",
        measured=(
            f"accuracy over backprop's where it is least: DNI {gap_text(min(lost))}, "
            f"cDNI {gap_text(min(kept))} points"
        ),
        num_seeds=min(gap.num_pairs for gap in (*lost, *kept)),
        verdict=verdict,
        reason=reason,
    )
