"""What copy and repeat copy show: the longest sequence modelled by each arm, and verdicts."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby

from synthgrad.bench.figures.panels import Line, Panel, lines_data
from synthgrad.bench.findings import Findings, Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.claims import Claim
from synthgrad.bench.scoring.formats import MISSING, count, fixed
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.jaderberg2017.numbers import recalled_length
from synthgrad.experiments.verdicts import judged

LONGER = 1.5
"""How many times as long DNI's sequences must be to be called longer."""

_NUM_POINTS = 200

Runs = Mapping[str, Mapping[int, RunRecord]]
"""By arm and seed."""


def find(records: Sequence[RunRecord]) -> Findings:
    """Return tables, figure and verdicts of the runs that ended; a pure function."""
    settled = sorted(
        (record for record in records if record.is_settled),
        key=lambda record: (record.config["horizon"], record.seed, record.name),
    )
    horizons = dict[int, Runs]()
    for horizon, of_horizon in groupby(settled, lambda record: record.config["horizon"]):
        runs = dict[str, dict[int, RunRecord]]()
        for record in of_horizon:
            runs.setdefault(record.arm, {})[record.seed] = record
        horizons[horizon] = {arm: runs[arm] for arm in sorted(runs)}
    if not settled:
        return Findings()
    task = settled[0].config["task"]
    return Findings(
        claims=tuple(
            claim
            for horizon, runs in horizons.items()
            for claim in (
                _claim(task, horizon, runs, ("bptt", "dni"), LONGER),
                _claim(task, horizon, runs, ("dni", "dni-aux"), 1.0),
            )
            if claim
        ),
        tables=(_table(task, horizons), _ratios(horizons)),
        pictures=(_picture(task, horizons),),
    )


def modelled(record: RunRecord, updates: float = float("inf")) -> int:
    """Return the longest sequence that a run had mastered by then; 0 before the first."""
    mastered = [e["modelled"] for e in record.of_kind("longer") if e["updates"] <= updates]
    return mastered[-1] if mastered else 0


def _lengths(runs: Mapping[int, RunRecord]) -> list[int]:
    return [modelled(record) for record in runs.values()]


def _seed_ratios(runs: Runs, arms: tuple[str, str]) -> list[float]:
    """Return second over first within each seed that both have; one that mastered nothing is none.

    The first arm can only have mastered nothing if it diverged or was barely trained.
    """
    first, second = (runs.get(arm, {}) for arm in arms)
    return [
        modelled(second[seed]) / modelled(first[seed])
        for seed in first
        if seed in second and modelled(first[seed])
    ]


def _range(values: Sequence[float], digits: int = 0) -> str:
    low, high = fixed(min(values), digits), fixed(max(values), digits)
    return low if low == high else f"{low} to {high}"


def _table(task: str, horizons: Mapping[int, Runs]) -> Table:
    rows = list[tuple[str, ...]]()
    for horizon, runs in horizons.items():
        for arm, of_arm in runs.items():
            lengths = _lengths(of_arm)
            failed = sum(record.status == "failed" for record in of_arm.values())
            rows.append(
                (
                    next(iter(of_arm.values())).label,
                    str(horizon),
                    count(recalled_length(task, arm, horizon)),
                    fixed(statistics.median(lengths), 0),
                    _range(lengths),
                    str(len(lengths)) + (f" ({failed} diverged)" if failed else ""),
                )
            )
    config = next(iter(next(iter(next(iter(horizons.values())).values())).values())).config
    counted = (
        "N, the number of patterns" if task == "copy" else "the steps of the whole, (R + 1) N + 3"
    )
    return Table(
        title="Longest sequence modelled",
        columns=("Arm", "T", "Paper (recalled)", "Ours, median", "Ours, seeds", "n"),
        rows=tuple(rows),
        notes=(
            f"Counted is {counted}. The paper: patterns of 8 bits, an LSTM of 256, batches of 256. "
            f"Ours: {config['num_bits']}, {config['num_units']} and {config['batch_size']}, with "
            f"{config['num_updates']:,} updates for every arm. Lengths are to be compared within a "
            "column.",
        ),
    )


def _ratios(horizons: Mapping[int, Runs]) -> Table:
    pairs = {
        "DNI / truncated BPTT": ("bptt", "dni"),
        "DNI + auxiliary / truncated BPTT": ("bptt", "dni-aux"),
        "DNI + auxiliary / DNI": ("dni", "dni-aux"),
        "cDNI / truncated BPTT": ("bptt", "cdni"),
    }
    rows = list[tuple[str, ...]]()
    for horizon, runs in horizons.items():
        for name, arms in pairs.items():
            ratios = _seed_ratios(runs, arms)
            middle = fixed(statistics.median(ratios), 2) if ratios else MISSING
            seeds = _range(ratios, 2) if ratios else MISSING
            rows.append((name, str(horizon), middle, seeds, str(len(ratios))))
    return Table(
        title="How many times as long, within a seed",
        columns=("Arms", "T", "Median", "Seeds", "n"),
        rows=tuple(rows),
    )


def _claim(
    task: str, horizon: int, runs: Runs, arms: tuple[str, str], least: float
) -> Claim | None:
    ratios = _seed_ratios(runs, arms)
    if not ratios:
        return None
    labels = [next(iter(runs[arm].values())).label for arm in arms]
    paper = [recalled_length(task, arm, horizon) for arm in arms]
    middle = statistics.median(ratios)
    holds = middle >= least
    told = f"{least:g} times as long as" if least > 1 else "as long as"
    return judged(
        claim=f"{labels[1]} models sequences at least {told} {labels[0]} (T = {horizon})",
        paper=(
            f"{paper[1]} against {paper[0]}, {paper[1] / paper[0]:.1f} times (recalled)"
            if paper[0] and paper[1]
            else "longer at every T that it has"
        ),
        measured=(
            f"{middle:.2f} times as long in the median, seeds {_range(ratios, 2)}; {labels[1]} "
            f"{_range(_lengths(runs[arms[1]]))}, {labels[0]} {_range(_lengths(runs[arms[0]]))}"
        ),
        num_seeds=len(ratios),
        verdict="reproduced" if holds else "not reproduced",
        reason=(
            f"The median of the ratios within a seed is {'' if holds else 'not '}at least "
            f"{least:g}, at the same number of updates. The size is not the paper's."
        ),
    )


def _picture(task: str, horizons: Mapping[int, Runs]) -> Picture:
    panels = list[Panel]()
    for horizon, runs in horizons.items():
        lines = list[Line]()
        for of_arm in runs.values():
            records = list(of_arm.values())
            num_updates = records[0].config["num_updates"]
            x = [num_updates * k / _NUM_POINTS for k in range(_NUM_POINTS + 1)]
            seeds = [[modelled(record, at) for record in records] for at in x]
            lines.append(
                Line(
                    label=records[0].label,
                    x=x,
                    y=[statistics.median(values) for values in seeds],
                    low=[min(values) for values in seeds],
                    high=[max(values) for values in seeds],
                )
            )
        panels.append(
            Panel(
                title=f"T = {horizon}",
                x_label="updates",
                y_label="N" if task == "copy" else "steps",
                lines=lines,
            )
        )
    return Picture(
        name="curves",
        title="Longest sequence modelled against updates",
        kind="lines",
        data=lines_data(panels),
        note="Medians over seeds, and the range of the seeds.",
    )
