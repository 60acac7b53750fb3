"""What the character models show: bits a character at equal data, and verdicts on their order."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synthgrad.bench.figures.panels import Line, Panel, lines_data
from synthgrad.bench.findings import Findings, Picture
from synthgrad.bench.records.events import Event, RunRecord
from synthgrad.bench.scoring.claims import Claim
from synthgrad.bench.scoring.formats import fixed
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.verdicts import judged


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to train.

    Attributes:
        label: for people.
        horizon: T, characters of a chunk.
        paper: bits a character on Penn Treebank; None for an arm of ours.
    """

    label: str
    horizon: int
    paper: float | None


# Jaderberg et al. 2017, ICML: read off the figure of learning curves as public slides show it, that
# of the auxiliary task recalled from Table 1. Of an LSTM of 1,024 units on Penn Treebank.
ARMS = {
    "bptt-8": Arm(label="truncated BPTT, T = 8", horizon=8, paper=1.354),
    "bptt-20": Arm(label="truncated BPTT, T = 20", horizon=20, paper=1.349),
    "bptt-40": Arm(label="truncated BPTT, T = 40", horizon=40, paper=1.344),
    "dni-8": Arm(label="DNI, T = 8", horizon=8, paper=1.340),
    "dni-aux-8": Arm(label="DNI + auxiliary task, T = 8", horizon=8, paper=1.33),
    "cdni-8": Arm(label="DNI told the next characters, T = 8", horizon=8, paper=None),
}

Runs = Mapping[int, Sequence[Event]]
"""Of one arm: the looks of each seed."""


def find(records: Sequence[RunRecord]) -> Findings:
    """Return the table, the curves and the verdicts of the runs that finished; a pure function."""
    arms: dict[str, dict[int, Sequence[Event]]] = {}
    data = "the text"
    for record in records:
        looks = record.of_kind("look")
        if record.status == "finished" and looks and record.arm in ARMS:
            arms.setdefault(record.arm, {})[record.seed] = looks
            data = str(record.run["config"].get("data", data))
    if not arms:
        return Findings()
    arms = {name: arms[name] for name in ARMS if name in arms}
    pairs = (
        ("dni-8", "bptt-8", "DNI is below truncated BPTT at T = 8"),
        ("dni-8", "bptt-40", "DNI at T = 8 is below truncated BPTT at T = 40"),
        ("dni-aux-8", "dni-8", "the auxiliary task lowers DNI's bits at T = 8"),
        ("cdni-8", "bptt-8", "DNI told the next characters is below truncated BPTT at T = 8"),
        ("cdni-8", "bptt-40", "told the next characters at T = 8 it is below T = 40"),
        ("bptt-40", "bptt-8", "truncated BPTT is lower at T = 40 than at T = 8"),
    )
    claims = [_below(arms, lower, upper, text) for lower, upper, text in pairs]
    return Findings(
        claims=tuple(c for c in (*claims, _gap_closed(arms), _absolute(arms, data)) if c),
        tables=(_table(arms, data),),
        pictures=(_curves(arms, data), _differences(arms)),
    )


def _last(runs: Runs) -> dict[int, float]:
    """Return each seed's bits at the end; nothing of one that says null."""
    ends = {seed: looks[-1]["validation_bits"] for seed, looks in runs.items()}
    return {seed: bits for seed, bits in ends.items() if bits is not None}


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _differences_at_end(arms: Mapping[str, Runs], lower: str, upper: str) -> list[float]:
    """Return lower minus upper at the end, of the seeds that both have."""
    a, b = _last(arms.get(lower, {})), _last(arms.get(upper, {}))
    return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]


def _range(values: Sequence[float], digits: int = 4) -> str:
    return f"{fixed(min(values), digits)} to {fixed(max(values), digits)}"


def _below(arms: Mapping[str, Runs], lower: str, upper: str, text: str) -> Claim | None:
    differences = _differences_at_end(arms, lower, upper)
    if not differences:
        return None
    holds = max(differences) < 0
    a, b = ARMS[lower].paper, ARMS[upper].paper
    paper = "no paper: an arm of ours"
    if a is not None and b is not None:
        paper = f"by {b - a:.3f} bits a character on Penn Treebank ({_source(lower, upper)})"
    return judged(
        claim=f"{text}, at equal data",
        paper=paper,
        measured=f"median difference {statistics.median(differences):+.4f} bits a character at "
        f"the end ({_range(differences)})",
        num_seeds=len(differences),
        verdict="reproduced" if holds else "not reproduced",
        reason=f"That is {'' if holds else 'not '}the order in every seed; a paper's difference is "
        "of another text, network and amount of data.",
    )


def _source(*names: str) -> str:
    """Return where the paper's numbers of these arms are from."""
    return "recalled" if "dni-aux-8" in names else "read off its figure"


def _gap_closed(arms: Mapping[str, Runs]) -> Claim | None:
    """Say what share of the way from T = 8 to T = 40 DNI goes; the paper's is above 1."""
    ends = [_last(arms.get(name, {})) for name in ("bptt-8", "bptt-40", "dni-8")]
    seeds = set.intersection(*(set(end) for end in ends))
    if not seeds:
        return None
    short, long, dni = (statistics.median(end[seed] for seed in seeds) for end in ends)
    gap = short - long
    if gap <= 0:
        measured = f"T = 40 is {-gap:.4f} bits above T = 8 at equal data: there is no gap to close"
    else:
        share = (short - dni) / gap
        measured = f"{share:.0%} of a gap of {gap:.4f} bits, between medians"
    closed = gap > 0 and dni <= long
    return judged(
        claim="DNI at T = 8 closes the gap from T = 8 to T = 40",
        paper="140% of 0.010 bits (read off its figure)",
        measured=measured,
        num_seeds=len(seeds),
        verdict="not comparable" if gap <= 0 else "reproduced" if closed else "not reproduced",
        reason="With chunks five times as long, a fifth of the updates come of the same data, so "
        "T = 40 need not be lower."
        if gap <= 0
        else f"DNI's median is {'' if closed else 'not '}at or below that of T = 40.",
    )


def _absolute(arms: Mapping[str, Runs], data: str) -> Claim | None:
    bits = _last(arms.get("dni-8", {}))
    if not bits:
        return None
    return judged(
        claim="bits a character of DNI at T = 8",
        paper="1.340 on Penn Treebank (read off its figure), LSTM of 1,024 units",
        measured=f"median {statistics.median(bits.values()):.3f} on {data}",
        num_seeds=len(bits),
        verdict="not comparable",
        reason="The network, the amount of data and, but for Penn Treebank, the text are others.",
    )


def _table(arms: Mapping[str, Runs], data: str) -> Table:
    rows = list[tuple[str, ...]]()
    for name, runs in arms.items():
        ends = list(_last(runs).values())
        looks = next(iter(runs.values()))
        least = [
            min(known)
            for of_seed in runs.values()
            if (
                known := [e["validation_bits"] for e in of_seed if e["validation_bits"] is not None]
            )
        ]
        training = [of_seed[-1]["training_bits"] for of_seed in runs.values()]
        differences = _differences_at_end(arms, name, "bptt-8")
        rows.append(
            (
                ARMS[name].label,
                f"{looks[-1]['updates']:,}",
                fixed(_median(ends), 4),
                _range(ends) if ends else fixed(None, 4),
                fixed(_median(least), 4),
                fixed(_median([bits for bits in training if bits is not None]), 4),
                fixed(_median(differences), 4),
                fixed(ARMS[name].paper, 3),
            )
        )
    characters = max(looks[-1]["characters"] for runs in arms.values() for looks in runs.values())
    num_seeds = max(len(runs) for runs in arms.values())
    return Table(
        title=f"Bits a character on {data} after {characters:,} characters",
        columns=(
            "Trained by",
            "Updates",
            "Validation",
            "Seeds",
            "Least on the way",
            "Training",
            "Above T = 8",
            "Paper, PTB",
        ),
        rows=tuple(rows),
        notes=(
            f"Medians over n = {num_seeds} seeds; all read the same characters in the same order. "
            "Above T = 8 is the median of seed by seed differences from truncated BPTT at T = 8. "
            "The paper's column is of other data: its order can be compared, its numbers cannot; "
            "they are read off its figure, that of the auxiliary task is recalled.",
        ),
        num_text_columns=1,
    )


def _curves(arms: Mapping[str, Runs], data: str) -> Picture:
    panels = [
        Panel(
            title=title,
            x_label="characters seen",
            y_label="bits a character",
            lines=[_line(ARMS[name].label, runs, key) for name, runs in arms.items()],
        )
        for key, title in (("validation_bits", "Validation"), ("training_bits", "Training"))
    ]
    return Picture(
        name="curves",
        title=f"Bits a character on {data} against the characters seen",
        kind="lines",
        data=lines_data(panels),
        note="Medians over seeds, with the least and the most. Training is the mean since the last "
        "look.",
    )


def _line(label: str, runs: Runs, key: str) -> Line:
    points = [
        (looks[0]["characters"], known)
        for looks in zip(*runs.values(), strict=False)
        if (known := [look[key] for look in looks if look[key] is not None])
    ]
    return Line(
        label=label,
        x=[characters for characters, _ in points],
        y=[statistics.median(bits) for _, bits in points],
        low=[min(bits) for _, bits in points],
        high=[max(bits) for _, bits in points],
    )


def _differences(arms: Mapping[str, Runs]) -> Picture:
    """Show what the curves are too close to show: seed by seed differences from T = 8."""
    base = arms.get("bptt-8", {})
    lines = list[Line]()
    for name, runs in arms.items():
        points = dict[int, list[float]]()
        for seed in sorted(runs.keys() & base.keys()):
            for ours, theirs in zip(runs[seed], base[seed], strict=False):
                a, b = ours["validation_bits"], theirs["validation_bits"]
                if name != "bptt-8" and a is not None and b is not None:
                    points.setdefault(ours["characters"], []).append(a - b)
        if points:
            lines.append(
                Line(
                    label=ARMS[name].label,
                    x=list(points),
                    y=[statistics.median(values) for values in points.values()],
                    low=[min(values) for values in points.values()],
                    high=[max(values) for values in points.values()],
                )
            )
    return Picture(
        name="differences",
        title="Validation bits above those of truncated BPTT with T = 8",
        kind="lines",
        data=lines_data(
            [
                Panel(
                    title="",
                    x_label="characters seen",
                    y_label="bits a character",
                    lines=lines,
                    marks=(0.0,),
                )
            ]
        ),
        note="Seed by seed at the same characters; medians, with the least and the most.",
    )
