"""What the convergence study shows: distances to the minimum, and Proposition 2 on the way."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeVar

from synthgrad.bench.figures.panels import Line, Panel, lines_data
from synthgrad.bench.findings import Findings, Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.formats import MISSING
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.czarnecki2017.convergence_runs import (
    REACHED,
    ToyRun,
    last_half,
    read_runs,
)

_SIGNALS = {
    "backprop": "backprop",
    "linear": "SG linear",
    "search": "SG line search",
    "sigmoid": "SG sigmoid",
    "sigmoid-plus": "SG sigmoid+",
}
K = TypeVar("K")

_OUTCOMES = ("reached", "falls", "elsewhere", "moving", "diverged")


def find(records: Sequence[RunRecord]) -> Findings:
    """Return the claims, tables and figures; a pure function."""
    runs = read_runs(records)
    labels = {record.arm: record.label for record in records}
    return Findings(
        claims=tuple(_claims(runs)),
        tables=(
            _outcome_table(runs, labels),
            _distance_table(runs, labels),
            _condition_table(runs, labels),
            _check_table(runs, records, labels),
        ),
        pictures=tuple(_pictures(runs, labels)),
    )


def _outcome_table(runs: Sequence[ToyRun], labels: dict[str, str]) -> Table:
    rows = list[tuple[str, ...]]()
    for (model, signal), group in _grouped(runs, lambda r: (r.model, r.signal)).items():
        lasts = [d for run in group if run.finite and (d := run.distance[-1]) is not None]
        rows.append(
            (
                labels[model],
                _SIGNALS[signal],
                str(len(group)),
                *(str(sum(run.outcome == name for run in group)) for name in _OUTCOMES),
                _power(median(lasts) if lasts else None),
                _power(max(lasts, default=None)),
            )
        )
    return Table(
        title="How runs ended",
        columns=(
            "Model",
            "Signal",
            "Runs",
            *(name.capitalize() for name in _OUTCOMES),
            "Distance, median",
            "Distance, worst",
        ),
        rows=tuple(rows),
        notes=(
            "SG linear and line search: hA + yB + c; sigmoid: sigmoid(hA + yB + c); sigmoid+: "
            "s sigmoid(hA + a) + yB + c.",
            f"Distance: of the end-to-end weights to the exact minimum, relative; reached is below "
            f"{REACHED:g}. Moving: it still fell over the last tenth of the run. Elsewhere: it did "
            "not. Falls: the classes are separable, so that the log loss has no minimum, and it "
            "came below a tenth of where it began.",
        ),
        num_text_columns=2,
    )


def _distance_table(runs: Sequence[ToyRun], labels: dict[str, str]) -> Table:
    rows = list[tuple[str, ...]]()
    for (model, data_set, dim), group in _grouped(
        runs, lambda r: (r.model, r.data_set, r.dim)
    ).items():
        by_signal = _grouped(group, lambda r: r.signal)
        cells = [_case_cell(by_signal.get(signal, [])) for signal in _SIGNALS]
        rows.append((labels[model], data_set, str(dim), *cells))
    return Table(
        title="Distance to the minimum at the end, median over seeds",
        columns=("Model", "Data", "Inputs", *_SIGNALS.values()),
        rows=tuple(rows),
        notes=(
            "Where there is no minimum, the mean loss. Why deep models with log loss and 2 inputs "
            "arrive: a least-squares fit on (h, y, 1) leaves a residual orthogonal to h and 1, and "
            "so gives the exact update wherever h still holds all of x.",
        ),
        num_text_columns=2,
    )


def _case_cell(runs: Sequence[ToyRun]) -> str:
    if not runs:
        return MISSING
    if not all(run.finite for run in runs):
        return f"{sum(not run.finite for run in runs)} of {len(runs)} diverged"
    ends = [(run.distance if run.has_minimum else run.loss)[-1] for run in runs]
    known = [end for end in ends if end is not None]
    named = "" if all(run.has_minimum for run in runs) else "loss "
    return named + _power(median(known) if known else None)


def _condition_table(runs: Sequence[ToyRun], labels: dict[str, str]) -> Table:
    rows = list[tuple[str, ...]]()
    for (model, signal), group in _grouped(runs, lambda r: (r.model, r.signal)).items():
        if signal == "backprop":
            continue
        finite = [run for run in group if run.finite]
        tracking = [run for run in finite if run.tracks]
        rows.append(
            (
                labels[model],
                _SIGNALS[signal],
                _share([held for run in finite for held in run.condition()]),
                _share([held for run in finite for held in last_half(run.condition())]),
                _share([held for run in finite for held in run.condition(strict=False)]),
                f"{len(tracking)} of {len(finite)}",
                f"{sum(run.converges for run in tracking)} of {len(tracking)}",
                f"{sum(run.succeeded for run in finite if not run.tracks)} of "
                f"{len(finite) - len(tracking)}",
            )
        )
    return Table(
        title="Proposition 2: does the synthesizer track the gradient?",
        columns=(
            "Model",
            "Signal",
            "Condition holds (%)",
            "... in the last half (%)",
            "Update's error < 1 (%)",
            "Tracking runs",
            "... that converge",
            "Others that reach or fall",
        ),
        rows=tuple(rows),
        notes=(
            "The condition: epsilon K < |dL/dtheta|, with epsilon = |SG - dL/dh| and K = "
            "|dh/dtheta|, over all examples; then some delta in (0, 1) satisfies the proposition. "
            "In percent of the measured moments of runs that stayed finite, evenly spaced in the "
            "logarithm of the iterations, without those at which the model is at the minimum but "
            "for rounding. At the start it never holds: the "
            "synthesizers are zero there. Tracking: it holds at every moment of the last half.",
        ),
        num_text_columns=2,
    )


def _check_table(
    runs: Sequence[ToyRun], records: Sequence[RunRecord], labels: dict[str, str]
) -> Table:
    rows = list[tuple[str, ...]]()
    for model, label in labels.items():
        checks = [e["difference"] for r in records if r.arm == model for e in r.of_kind("library")]
        known = [check for check in checks if check is not None]
        rests = _to_rest(runs, model)
        rows.append(
            (
                label,
                str(len(checks)),
                _power(max(known, default=None)),
                _power(max(rests, default=None)),
                str(len(rests)),
            )
        )
    return Table(
        title="Checks of the formulas",
        columns=(
            "Model",
            "Compared",
            "Largest difference to the library",
            "Largest distance to the predicted rest point",
            "Runs",
        ),
        rows=tuple(rows),
        notes=(
            "Weights after the same iterations by the formulas and by sg.decouple in float64, over "
            "the largest weight. Rest point: where our derivation (toy_solutions.linear_sg_rest) "
            "says that log loss with a linear synthesizer leaves a linear model; over runs that "
            "came to rest there or elsewhere.",
        ),
    )


def _to_rest(runs: Sequence[ToyRun], model: str) -> list[float]:
    if model != "linear-log":
        return []
    return [
        last
        for run in runs
        if run.model == model
        and run.signal in ("linear", "search")
        and run.has_minimum
        and run.outcome in ("reached", "elsewhere")
        and (last := run.to_rest[-1]) is not None
    ]


def _pictures(runs: Sequence[ToyRun], labels: dict[str, str]) -> list[Picture]:
    if not runs:
        return []
    # One data set that every preset has, in most dimensions, and the first seed.
    dim = max(run.dim for run in runs)
    seed = min(run.seed for run in runs)
    data_set = "noisy" if any(run.data_set == "noisy" for run in runs) else runs[0].data_set
    shown = [r for r in runs if (r.data_set, r.dim, r.seed) == (data_set, dim, seed)]
    where = f"{data_set}, {dim} inputs, seed {seed}"
    if not shown:
        return []
    return [
        Picture(
            name="distance",
            title=f"Distance to the exact minimum ({where})",
            kind="lines",
            data=lines_data(_panels(shown, labels, "distance to the minimum", marks=(REACHED,))),
            note="Relative distance of the end-to-end weights. A line that ends early diverged.",
        ),
        Picture(
            name="tracking",
            title=f"Proposition 2 along the way ({where})",
            kind="lines",
            data=lines_data(_panels(shown, labels, "epsilon K / gradient", marks=(1.0,))),
            note="The condition holds below 1. At the minimum the gradient is a rounding error.",
        ),
    ]


def _panels(
    runs: Sequence[ToyRun], labels: dict[str, str], y_label: str, marks: Sequence[float]
) -> list[Panel]:
    is_distance = y_label.startswith("distance")
    return [
        Panel(
            title=labels[model],
            x_label="iteration + 1",
            y_label=y_label,
            lines=[
                Line(
                    label=_SIGNALS[run.signal],
                    x=[at + 1 for at in run.iteration],
                    y=run.distance if is_distance else run.ratio,
                )
                for run in group
                if is_distance or run.signal != "backprop"
            ],
            log_x=True,
            log_y=True,
            marks=marks,
        )
        for model, group in _grouped(runs, lambda r: r.model).items()
    ]


def _claims(runs: Sequence[ToyRun]) -> list[Claim]:
    claims = [
        _reaches(
            runs,
            "linear-mse",
            ("search",),
            "Theorem 1: linear model, MSE, linear SG with line search",
            "converges to the global solution, for a small enough rate (recalled)",
        ),
        _reaches(
            runs,
            "linear-mse",
            ("linear",),
            "Linear model, MSE, linear SG with a fixed rate",
            "the same solution as backprop (recalled; 1M iterations, batch 100)",
        ),
        _reaches(
            runs,
            "deep-mse",
            ("linear", "search"),
            "Deep linear model, MSE, linear SG",
            "the same solution as backprop (recalled; 10 hidden layers)",
        ),
        _log_loss(runs),
        _reaches(
            runs,
            "linear-log",
            ("sigmoid",),
            "Log loss with SG = sigmoid(hA + yB + c)",
            "a sigmoid on top of a linear SG suits the log loss (formula as recalled)",
            " As we read the formula it is never negative, and the gradient of the log loss is "
            "negative for y = 1.",
        ),
        _reaches(
            runs,
            "linear-log",
            ("sigmoid-plus",),
            "Log loss with SG = s sigmoid(hA + a) + yB + c",
            "with a sigmoid in it, SG reaches backprop's solution for the log loss (recalled)",
            " This form, ours, can be the gradient exactly.",
        ),
        _tracking(runs),
    ]
    return [claim for claim in claims if claim]


def _reaches(
    runs: Sequence[ToyRun],
    model: str,
    signals: Sequence[str],
    about: str,
    paper: str,
    remark: str = "",
) -> Claim | None:
    """Judge whether runs reach the minimum where backprop does."""
    group, excluded = _comparable(runs, model, signals)
    if not group:
        return None if not excluded else _too_short(about, paper)
    good = sum(run.succeeded for run in group)
    moving = sum(run.outcome == "moving" for run in group)
    verdict: Verdict = "reproduced"
    reason = "All of them arrive."
    if good < len(group):
        if good + moving == len(group):
            verdict, reason = "not comparable", "Those that have not arrived are still moving."
        else:
            verdict, reason = "not reproduced", "Some come to rest elsewhere, or diverge."
    counts = ", ".join(
        f"{sum(run.outcome == name for run in group)} {name}"
        for name in _OUTCOMES
        if any(run.outcome == name for run in group)
    )
    distances = [d for run in group if run.finite and (d := run.distance[-1]) is not None]
    return Claim(
        claim=about,
        paper=paper,
        measured=(
            f"of {len(group)} runs {counts}; distance {_power(median(distances))} in the median, "
            f"{_power(max(distances))} at worst"
            if distances
            else f"of {len(group)} runs {counts}"
        ),
        verdict=verdict,
        reason=reason + remark + _excluded_text(excluded),
    )


def _log_loss(runs: Sequence[ToyRun]) -> Claim | None:
    """Judge the claim that the log loss with a linear SG leads elsewhere on some data."""
    about = "Log loss with a linear SG"
    paper = "diverges from backprop's solution on some data (recalled)"
    groups = [_comparable(runs, m, ("linear", "search")) for m in ("linear-log", "deep-log")]
    group = [run for found, _ in groups for run in found]
    if not group:
        return _too_short(about, paper) if any(excluded for _, excluded in groups) else None
    astray = [run for run in group if run.outcome in ("elsewhere", "diverged")]
    places = sorted({f"{run.model.split('-')[0]} {run.data_set} {run.dim}-D" for run in astray})
    rests = _to_rest(runs, "linear-log")
    predicted = (
        f" Linear models rest where our derivation says, within {_power(max(rests))}: logistic "
        "regression on the least-squares score."
        if rests
        else ""
    )
    return Claim(
        claim=about,
        paper=paper,
        measured=f"{len(astray)} of {len(group)} runs rest elsewhere or diverge"
        + (f" ({', '.join(places)})" if astray else ""),
        verdict="reproduced" if astray else "not reproduced",
        reason=(
            "Backprop arrives on all of these." if astray else "All arrive, or are still moving."
        )
        + predicted,
    )


def _tracking(runs: Sequence[ToyRun]) -> Claim | None:
    """Judge Proposition 2: whoever meets its condition converges."""
    trained = [run for run in runs if run.signal != "backprop"]
    if not trained:
        return None
    tracking = [run for run in trained if run.tracks]
    good = sum(run.converges for run in tracking)
    without = sum(run.succeeded for run in trained if not run.tracks)
    verdict: Verdict = "reproduced" if good == len(tracking) else "not reproduced"
    if not tracking:
        verdict = "not comparable"
    return Claim(
        claim="Proposition 2: SG that tracks the gradient converges",
        paper="if epsilon K <= |dL/dtheta| (1 - delta) / (1 + delta) each iteration (recalled)",
        measured=(
            f"{len(tracking)} of {len(trained)} runs meet it at every measured moment of their "
            f"last half; {good} of these converge"
        ),
        verdict=verdict,
        reason=(
            ("No run meets it. " if not tracking else "")
            + f"It is not necessary: {without} of {len(trained) - len(tracking)} other runs "
            "arrive, too."
        ),
    )


def _comparable(
    runs: Sequence[ToyRun], model: str, signals: Sequence[str]
) -> tuple[list[ToyRun], int]:
    """Return the runs of a model whose backprop run arrived, and how many others there are."""
    arrived = {
        (r.model, r.data_set, r.dim, r.seed) for r in runs if r.signal == "backprop" and r.succeeded
    }
    group = [r for r in runs if r.model == model and r.signal in signals]
    kept = [r for r in group if (r.model, r.data_set, r.dim, r.seed) in arrived]
    return kept, len(group) - len(kept)


def _too_short(about: str, paper: str) -> Claim:
    return Claim(
        claim=about,
        paper=paper,
        measured="backprop itself has not arrived",
        verdict="not comparable",
        reason="The runs of this preset are too short.",
    )


def _excluded_text(excluded: int) -> str:
    return f" {excluded} runs are left out: backprop did not arrive." if excluded else ""


def _grouped(runs: Sequence[ToyRun], key: Callable[[ToyRun], K]) -> dict[K, list[ToyRun]]:
    groups = dict[K, list[ToyRun]]()
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def _share(held: Sequence[bool]) -> str:
    return f"{100 * sum(held) / len(held):.0f}" if held else MISSING


def _power(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1e}"
