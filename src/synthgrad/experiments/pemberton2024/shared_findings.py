"""What both experiments say of their records: arms against each other, and gradients compared."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from synthgrad.bench.figures.panels import Line, Panel, lines_data
from synthgrad.bench.findings import Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.claims import Claim
from synthgrad.bench.scoring.formats import MISSING, fixed
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.accuracy import gap_text, paired_gap
from synthgrad.experiments.pemberton2024.arms import N_STEP, TRACE_DECAYS, TRUNCATED, bp
from synthgrad.experiments.verdicts import judged

_RECALLED = "(recalled; no number of the paper is known to us)"

Score = Callable[[RunRecord], float]
"""Of a run that finished; more is better."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of an experiment, by arm.

    Args:
        by_arm: those that finished or failed.
        score: of a run that finished.
        unit: of the score.
    """

    by_arm: Mapping[str, Sequence[RunRecord]]
    score: Score
    unit: str

    @classmethod
    def of(cls, records: Sequence[RunRecord], score: Score, unit: str) -> "Runs":
        """Sort records by arm; those that are not over are left out."""
        by_arm = dict[str, list[RunRecord]]()
        for record in records:
            if record.status in ("finished", "failed"):
                by_arm.setdefault(record.arm, []).append(record)
        return cls(by_arm=by_arm, score=score, unit=unit)

    def finished(self, arm: str) -> list[RunRecord]:
        """Return the runs of an arm that finished."""
        return [run for run in self.by_arm.get(arm, ()) if run.status == "finished"]

    def scores(self, arm: str) -> list[float]:
        """Return the scores of an arm's runs that finished."""
        return [self.score(run) for run in self.finished(arm)]

    def by_seed(self, arm: str, score: Score | None = None) -> dict[int, float | None]:
        """Return the score for each seed, None for a run that failed."""
        of = score or self.score
        return {
            run.seed: of(run) if run.status == "finished" else None
            for run in self.by_arm.get(arm, ())
        }

    def label(self, arm: str) -> str:
        """Return an arm's name for people."""
        return self.by_arm[arm][0].label


def claims(runs: Runs) -> Iterator[Claim]:
    """Judge what the paper says of the order of the arms, and what we expect of the gradients."""
    decays = [d for d in TRACE_DECAYS if runs.scores(bp(d))]
    paper = f"BP(lambda) outperforms n-step synthetic gradients, which bootstrap {_RECALLED}"
    pairs = [
        (bp(1.0), N_STEP, paper),
        (bp(1.0), bp(0.0), f"fewer bootstraps, less bias {_RECALLED}"),
        (bp(0.0), TRUNCATED, f"Jaderberg et al.: better than truncated BPTT {_RECALLED}"),
    ]
    for arm, other, said in pairs:
        yield from better(runs, arm, other, said)
    if len(decays) > 1:
        yield _rises(runs, decays)
    yield from better(
        runs,
        bp(1.0),
        bp(0.0),
        "no paper: expected of targets that do not bootstrap",
        score=core_cosine,
        what="cosine of the core's gradient with whole-sequence BPTT's, mean over the looks: ",
    )


def better(
    runs: Runs, arm: str, other: str, paper: str, score: Score | None = None, what: str = ""
) -> Iterator[Claim]:
    """Judge that an arm is above another in every seed; nothing where no seed has both.

    Args:
        runs: all of them.
        arm: the better one.
        other: the other one.
        paper: what a paper says of it.
        score: in place of the runs' own.
        what: names that score.
    """
    gap = paired_gap(runs.by_seed(arm, score), runs.by_seed(other, score))
    if gap is None:
        return
    better = gap.least > 0
    yield judged(
        claim=f"{what}{runs.label(arm)} above {runs.label(other)}",
        paper=paper,
        measured=f"{gap_text(gap)}{'' if score else ' ' + runs.unit} within a seed",
        num_seeds=gap.num_pairs,
        verdict="reproduced" if better else "not reproduced",
        reason=f"It is {'' if better else 'not '}above in every seed.",
    )


def _rises(runs: Runs, decays: Sequence[float]) -> Claim:
    medians = [statistics.median(runs.scores(bp(d))) for d in decays]
    rises = all(a < b for a, b in pairwise(medians))
    return judged(
        claim="the larger lambda, the better",
        paper=f"larger lambda helps over long horizons {_RECALLED}",
        measured="medians, in "
        f"{runs.unit}: "
        + ", ".join(f"{m:.2f} (lambda {d:g})" for m, d in zip(medians, decays, strict=True)),
        num_seeds=min(len(runs.scores(bp(d))) for d in decays),
        verdict="reproduced" if rises else "not reproduced",
        reason=f"The medians {'rise' if rises else 'do not rise'} with lambda throughout.",
    )


def core_cosine(run: RunRecord) -> float:
    """Return the mean over a run's looks of how well its core's gradient points."""
    return statistics.mean(look["core_cosine"] for look in run.of_kind("look"))


def boundary_cosines(run: RunRecord) -> list[float]:
    """Return the cosine at each boundary, a mean over the looks; none without a synthesizer.

    Only looks at sequences as long as the last look's count.
    """
    looks = [look["cosines"] for look in run.of_kind("look")]
    last = len(looks[-1])
    return [statistics.mean(cs) for cs in zip(*(c for c in looks if len(c) == last), strict=True)]


def table(runs: Runs, title: str) -> Table:
    """Return a row for each arm: scores, and how well its gradients point."""
    return Table(
        title=title,
        columns=(
            "Arm",
            "Runs",
            f"Median, {runs.unit}",
            "Least",
            "Most",
            "Core's cosine",
            "Signal's cosine, first cut",
            "last cut",
        ),
        rows=tuple(_row(runs, arm) for arm in runs.by_arm),
        arms=tuple(runs.by_arm),
        notes=(
            "Cosines with the gradients of BPTT over the whole sequence, weights held, means over "
            "a run's looks and medians over seeds: of the core's gradient, and of the synthetic "
            "gradient at the first and the last cut of a sequence. A synthesizer sees the state "
            "alone, and what the state does not tell of the answer no lambda can predict.",
        ),
    )


def _row(runs: Runs, arm: str) -> tuple[str, ...]:
    finished, scores = runs.finished(arm), runs.scores(arm)
    label = runs.label(arm)
    if not finished:
        return (label, "0", "failed", *([MISSING] * 5))
    cuts = [cosines for run in finished if (cosines := boundary_cosines(run))]
    ends = [statistics.median(c[k] for c in cuts) if cuts else None for k in (0, -1)]
    return (
        label,
        str(len(finished)),
        *(fixed(f(scores), 2) for f in (statistics.median, min, max)),
        fixed(statistics.median(map(core_cosine, finished)), 2),
        *(fixed(end, 2) for end in ends),
    )


def curve(runs: Runs, key: str, title: str, y_label: str) -> Picture:
    """Return a value of the looks over the updates, beside how well the core's gradient points."""
    panels = [
        Panel(
            title=heading,
            x_label="updates",
            y_label=label,
            lines=[_line(runs, arm, of) for arm in runs.by_arm if runs.finished(arm)],
        )
        for heading, label, of in (
            (title, y_label, key),
            ("Core's gradient and that of whole-sequence BPTT", "cosine", "core_cosine"),
        )
    ]
    return Picture(
        name="curves",
        title=f"{title} as training goes on",
        kind="lines",
        data=lines_data(panels),
        note="Medians over seeds, with the least and the most.",
    )


def _line(runs: Runs, arm: str, key: str) -> Line:
    looks = list(zip(*(run.of_kind("look") for run in runs.finished(arm)), strict=False))
    values = [[event[key] for event in look] for look in looks]
    return Line(
        label=runs.label(arm),
        x=[look[0]["updates"] for look in looks],
        y=[statistics.median(v) for v in values],
        low=[min(v) for v in values],
        high=[max(v) for v in values],
    )


def cuts(runs: Runs, note: str) -> list[Picture]:
    """Return the cosine at each cut, or nothing where no run has one."""
    lines = list[Line]()
    for arm in runs.by_arm:
        seeds = [cosines for run in runs.finished(arm) if (cosines := boundary_cosines(run))]
        if seeds:
            at_cuts = list(zip(*seeds, strict=False))
            lines.append(
                Line(
                    label=runs.label(arm),
                    x=[float(k) for k in range(1, len(at_cuts) + 1)],
                    y=[statistics.median(c) for c in at_cuts],
                )
            )
    if not lines:
        return []
    panel = Panel(
        title="", x_label="cut, from the start of the sequence", y_label="cosine", lines=lines
    )
    return [
        Picture(
            name="cuts",
            title="Synthetic and true gradient, cut by cut",
            kind="lines",
            data=lines_data([panel]),
            note=f"{note} Means over a run's looks, medians over seeds.",
        )
    ]
