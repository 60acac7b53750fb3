"""What the runs of the two-clock task show: curves of both networks' errors, and verdicts."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from synthgrad.bench.figures.panels import Line, Panel, lines_data
from synthgrad.bench.findings import Findings, Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.formats import MISSING, fixed
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.verdicts import judged

LABELS = {
    "coupled": "coupled",
    "dni": "synthetic gradient",
    "cdni": "synthetic gradient, told the threes",
    "no-gradient": "A without B's gradient",
}
NETWORKS = {"a": "A: odd digits", "b": "B: threes"}
_NEAR = 3.0
_FAR = 10.0

Seeds = Mapping[str, Mapping[int, RunRecord]]
"""Of each arm, its finished runs by seed."""
Score = Callable[[RunRecord, str], float]
"""An error of one network in a run, in percent."""


def find(records: Sequence[RunRecord]) -> Findings:
    """Return a table, curves and verdicts of the runs that finished; a pure function."""
    runs: dict[str, dict[int, RunRecord]] = {arm: {} for arm in LABELS}
    for record in records:
        if record.status == "finished":
            runs[record.arm][record.seed] = record
    known = {arm: seeds for arm, seeds in runs.items() if seeds}
    return Findings(
        claims=tuple(
            judge(runs, arm) for arm in ("dni", "cdni") for judge in (_near, _faster, _better)
        ),
        tables=(_table(known),),
        pictures=(_curves(known),),
    )


def _table(runs: Seeds) -> Table:
    return Table(
        title="Test error when training ended",
        columns=("Trained", "Updates of A every", *NETWORKS.values(), "Mean over training: A", "B"),
        rows=tuple(
            (
                LABELS[arm],
                f"{_between_updates(arm, next(iter(seeds.values())))} steps",
                *(_over(_test(run, name) for run in seeds.values()) for name in NETWORKS),
                *(_over(_mean(run, name) for run in seeds.values()) for name in NETWORKS),
            )
            for arm, seeds in runs.items()
        ),
        notes=(
            "Share of wrong counts in percent: medians over "
            f"n = {max((len(seeds) for seeds in runs.values()), default=0)} seeds, with the least "
            "and the most. The means are over the looks at validation digits, at equal steps.",
        ),
        num_text_columns=2,
    )


def _curves(runs: Seeds) -> Picture:
    panels = [
        Panel(
            title=title,
            x_label="steps (digits of a stream)",
            y_label="wrong counts, %",
            lines=[_line(LABELS[arm], list(seeds.values()), name) for arm, seeds in runs.items()],
        )
        for name, title in NETWORKS.items()
    ]
    return Picture(
        name="errors",
        title="Errors of both networks against steps",
        kind="lines",
        data=lines_data(panels),
        note="Validation digits; medians over seeds, with the least and the most.",
    )


def _line(label: str, runs: Sequence[RunRecord], name: str) -> Line:
    looks = list(zip(*(run.of_kind("look") for run in runs), strict=False))
    errors = [[event[f"error_{name}_percent"] for event in look] for look in looks]
    return Line(
        label=label,
        x=[look[0]["steps"] for look in looks],
        y=[statistics.median(each) for each in errors],
        low=[min(each) for each in errors],
        high=[max(each) for each in errors],
    )


def _near(runs: Seeds, arm: str) -> Claim:
    gaps = [_gaps(runs, arm, "coupled", name, _test) for name in NETWORKS]
    return _judged(
        arm,
        claim="the decoupled networks come near the coupled ones",
        paper="near the fully coupled result",
        measured=("test error above the coupled networks', in points", gaps),
        holds=all(gap <= _NEAR for each in gaps for gap in each),
        rule=f"at most {_NEAR:g} points above for A and for B, in every seed",
    )


def _faster(runs: Seeds, arm: str) -> Claim:
    gaps = [_gaps(runs, "coupled", arm, name, _mean) for name in NETWORKS]
    return _judged(
        arm,
        claim="they learn in fewer steps, as A is updated every T steps in place of T * T",
        paper="faster than the coupled ones",
        measured=("mean error over training below the coupled networks', in points", gaps),
        holds=all(gap > 0 for each in gaps for gap in each),
        rule="below for A and for B, in every seed; steps, not seconds",
    )


def _better(runs: Seeds, arm: str) -> Claim:
    gaps = [_gaps(runs, "no-gradient", arm, name, _test) for name in NETWORKS]
    return _judged(
        arm,
        claim="a synthetic gradient is far better than none",
        paper="far better than A without B's gradient",
        measured=("test error below that without B's gradient, in points", gaps),
        holds=all(gap >= _FAR for gap in gaps[1]),
        rule=f"B at least {_FAR:g} points below, in every seed",
    )


def _judged(
    arm: str,
    *,
    claim: str,
    paper: str,
    measured: tuple[str, Sequence[Sequence[float]]],
    holds: bool,
    rule: str,
) -> Claim:
    what, gaps = measured
    of_each = [f"{title} {_over(of)}" for title, of in zip(NETWORKS.values(), gaps, strict=True)]
    told = arm == "cdni"
    verdict: Verdict = "reproduced" if holds else "not reproduced"
    return judged(
        claim=f"{claim} ({LABELS[arm]})",
        paper=f"{paper} (recalled; curves, no numbers)"
        + (", of a synthesizer that sees the message alone" if told else ""),
        measured=f"{what}: {'; '.join(of_each)}",
        num_seeds=len(gaps[0]),
        verdict=verdict,
        reason=f"{'So it is' if holds else 'It is not so'}: {rule}. Smaller networks, without "
        "batch norm, at a larger rate.",
    )


def _gaps(runs: Seeds, arm: str, other: str, name: str, of: Score) -> list[float]:
    """Return how much higher the score of one arm is, within each seed that both have."""
    both = sorted(set(runs[arm]) & set(runs[other]))
    return [of(runs[arm][seed], name) - of(runs[other][seed], name) for seed in both]


def _test(run: RunRecord, name: str) -> float:
    (event,) = run.of_kind("test")
    return event[f"error_{name}_percent"]


def _mean(run: RunRecord, name: str) -> float:
    """Return the mean over the looks: lower for what learns sooner."""
    return statistics.fmean(event[f"error_{name}_percent"] for event in run.of_kind("look"))


def _over(values: Iterable[float]) -> str:
    """Return the median of seeds, with the least and the most."""
    known = sorted(values)
    if not known:
        return MISSING
    median = fixed(statistics.median(known), 1)
    return f"{median} ({fixed(known[0], 1)} to {fixed(known[-1], 1)})"


def _between_updates(arm: str, run: RunRecord) -> int:
    period = int(run.config["period"])
    return period**2 if arm == "coupled" else period
