"""The numbers behind every figure, as JSON: what is drawn is exactly what stands in these objects.

Each function is pure: records or summaries in, a JSON object out (what is not finite is `None`).
The report page and the paper figures draw from the same objects, which are also written to disk.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from synthgrad.bench.figures.style import arm_style
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.scores import median_with_misses
from synthgrad.bench.scoring.summary import BASELINE, ArmSummary, runs_by_arm, scored_runs

Json = dict[str, Any]
Row = Mapping[str, Any]

# What is drawn, each with what a miss (a NaN, a failed run) counts as in the median.
_CURVES = {
    "seconds": math.inf,
    "val_accuracy": -math.inf,
    "train_accuracy": -math.inf,
    "val_loss": math.inf,
    "train_loss": math.inf,
}
_ALIGNMENTS = {"cosine": -math.inf, "relative_error": math.inf}


def curves(records: Sequence[RunRecord], summaries: Sequence[ArmSummary]) -> Json:
    """Collect accuracy and loss of every snapshot, seed by seed, and their medians.

    The median at an iteration is over the runs that finished or failed, which counts as a miss from
    there on; where all were interrupted it is over those that got there. `seconds` is the training
    clock, and in the median the median of the clocks at that iteration.

    Args:
        records: records of any kind; those of kind "run" are used.
        summaries: the arms, in the order in which they are shown.

    Returns:
        `{"arms": [{"arm", "label", "style", "median": {...}, "seeds": [...]}]}`, where the median
        and each seed hold columns of equal length: `iteration`, `seconds` (s), `val_accuracy`,
        `train_accuracy` (percent), `val_loss`, `train_loss`; a seed also its `seed` and `record`.
    """
    runs_of = runs_by_arm(records)
    arms: list[Json] = []
    for index, summary in enumerate(summaries):
        runs = runs_of.get(summary.arm, [])
        if any(run.snapshots for run in runs):
            names = ["iteration", *_CURVES]
            tables = [
                [{name: getattr(snapshot, name) for name in names} for snapshot in run.snapshots]
                for run in runs
            ]
            arms.append({**_identity(index, summary), **_series(runs, tables, _CURVES)})
    return {"arms": arms}


def alignment(records: Sequence[RunRecord], summaries: Sequence[ArmSummary]) -> Json:
    """Collect how well the signal at each interface fits the true gradient over time.

    Args:
        records: records of any kind; those of kind "run" are used.
        summaries: the arms; one without a recorded alignment is left out.

    Returns:
        `{"interfaces": [names], "arms": [{"arm", "label", "style", "interfaces": {name: {"median":
        {...}, "seeds": [...]}}}]}` with the columns `iteration`, `cosine` and `relative_error`.
    """
    runs_of = runs_by_arm(records)
    arms: list[Json] = []
    for index, summary in enumerate(summaries):
        runs = runs_of.get(summary.arm, [])
        by_run = [_alignment_rows(run) for run in runs]
        interfaces = {
            name: _series(runs, [rows.get(name, []) for rows in by_run], _ALIGNMENTS)
            for name in dict.fromkeys(name for rows in by_run for name in rows)
        }
        if interfaces:
            arms.append({**_identity(index, summary), "interfaces": interfaces})
    names = dict.fromkeys(name for arm in arms for name in arm["interfaces"])
    return {"interfaces": list(names), "arms": arms}


def timing(records: Sequence[RunRecord], summaries: Sequence[ArmSummary]) -> Json:
    """Collect every round of the interleaved timing as a ratio to backprop in the same round.

    Args:
        records: records of any kind; the one that the summaries' ratios are from is used.
        summaries: the arms; backprop itself and one without rounds are left out.

    Returns:
        `{"baseline", "record", "arms": [{"arm", "label", "style", "median", "interval", "rounds",
        "ratios"}]}`: seconds per iteration over the baseline's, and the round of each.
    """
    by_name = {record.name: record for record in records}
    source = next((by_name[s.timing_record] for s in summaries if s.timing_record), None)
    costs: dict[tuple[int, str], float] = {}
    for block in source.blocks if source else ():
        costs[block.round, block.arm] = block.seconds / block.iterations
    arms: list[Json] = []
    for index, summary in enumerate(summaries):
        rounds = sorted(
            number
            for number, arm in costs
            if arm == summary.arm != BASELINE and costs.get((number, BASELINE))
        )
        if rounds:
            ratios = [costs[number, summary.arm] / costs[number, BASELINE] for number in rounds]
            arms.append(
                {
                    **_identity(index, summary),
                    "median": summary.time_ratio,
                    "interval": summary.time_ratio_interval,
                    "rounds": rounds,
                    "ratios": ratios,
                }
            )
    return {"baseline": BASELINE, "record": source.name if source else None, "arms": arms}


def accounting(summaries: Sequence[ArmSummary]) -> Json:
    """Collect each arm's time over backprop's, counted per iteration and per stage update.

    An arm that updates a stage in one iteration of five does a fifth of the updates an iteration:
    it can need less time per iteration than backprop and more for each update.

    Args:
        summaries: the arms; backprop itself and one that was not timed are left out.

    Returns:
        `{"baseline", "arms": [{"arm", "label", "style", "per_iteration", "per_stage_update"}]}`.
    """
    arms: list[Json] = []
    for index, summary in enumerate(summaries):
        per_update = summary.speedup_per_stage_update
        if summary.arm != BASELINE and summary.time_ratio and per_update:
            arms.append(
                {
                    **_identity(index, summary),
                    "per_iteration": summary.time_ratio,
                    "per_stage_update": 1 / per_update,
                }
            )
    return {"baseline": BASELINE, "arms": arms}


def _identity(index: int, summary: ArmSummary) -> Json:
    return {"arm": summary.arm, "label": summary.label, "style": asdict(arm_style(index))}


def _alignment_rows(run: RunRecord) -> dict[str, list[Row]]:
    """Return what a run measured at each interface; what is malformed is passed over."""
    rows: dict[str, list[Row]] = {}
    for event in run.of_kind("alignment"):
        interfaces = event.get("interfaces")
        for name, values in interfaces.items() if isinstance(interfaces, Mapping) else ():
            if isinstance(values, Mapping):
                rows.setdefault(name, []).append({"iteration": event.get("iteration"), **values})
    return rows


def _series(
    runs: Sequence[RunRecord], tables: Sequence[Sequence[Row]], misses: Mapping[str, float]
) -> Json:
    """Turn the rows of an arm's runs into columns, a seed at a time, and add their medians.

    Args:
        runs: the runs of an arm.
        tables: the rows of each, with "iteration" in every row.
        misses: the columns wanted beside it, each with what a miss counts as in the median.
    """
    names = ["iteration", *misses]
    clean = [[{name: _finite(row.get(name)) for name in names} for row in rows] for rows in tables]
    return {
        "median": _columns(_median(runs, clean, misses), names),
        "seeds": [
            {"seed": run.seed, "record": run.name, **_columns(rows, names)}
            for run, rows in zip(runs, clean, strict=True)
            if rows
        ],
    }


def _median(
    runs: Sequence[RunRecord], tables: Sequence[Sequence[Row]], misses: Mapping[str, float]
) -> list[Row]:
    """Return one row for every iteration that a scored run reached."""
    scored = {run.name for run in scored_runs(runs) or runs}
    by_iteration = [
        (run, {row["iteration"]: row for row in rows if row["iteration"] is not None})
        for run, rows in zip(runs, tables, strict=True)
        if run.name in scored
    ]
    medians: list[Row] = []
    for iteration in sorted({iteration for _, rows in by_iteration for iteration in rows}):
        # A failed run stays in after its end, as a miss; an interrupted one drops out.
        present = [
            rows.get(iteration, {})
            for run, rows in by_iteration
            if iteration in rows or (run.status == "failed" and iteration > max(rows, default=-1))
        ]
        median: Json = {"iteration": iteration}
        for name, miss in misses.items():
            values = [row.get(name) for row in present]
            known = [math.nan if value is None else value for value in values]
            median[name] = _finite(median_with_misses(known, miss=miss))
        medians.append(median)
    return medians


def _columns(rows: Sequence[Row], names: Sequence[str]) -> Json:
    return {name: [row[name] for row in rows] for name in names}


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None
