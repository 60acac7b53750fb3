"""What the limit study shows: errors of the best predictors over training, and verdicts."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from synthgrad.bench.figures.panels import Line, Panel, lines_data
from synthgrad.bench.findings import Findings, Picture
from synthgrad.bench.records.events import Event, RunRecord
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.formats import fixed
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.verdicts import judged

EXACT = "exact"
UNLABELED = ("dni", "dni-true-targets")

_PREDICTORS = {
    "own": "the net's own synthesizer",
    "linear": "linear, from h",
    "best": "best, from h",
    "linear_with_labels": "linear, from h and labels",
    "best_with_labels": "best, from h and labels",
}
_FADED, _LEFT = 0.9, 0.8
_CLOSE = 0.05
_ZERO = 1e-8

Looks = Sequence[Sequence[Event]]
"""Of one method: for each time that its networks were looked at, an event of each seed."""


def find(records: Sequence[RunRecord]) -> Findings:
    """Return tables, figures and verdicts of the runs that finished; a pure function."""
    runs = dict[str, list[RunRecord]]()
    for record in records:
        if record.status == "finished":
            runs.setdefault(record.arm, []).append(record)
    exact = _by_time(runs.pop(EXACT, []), "step")
    methods = {arm: _by_time(of_arm, "look") for arm, of_arm in runs.items()}
    labels = {arm: of_arm[0].label for arm, of_arm in runs.items()}
    pictures = (_errors_picture, _calibration_picture)
    return Findings(
        claims=tuple(
            claim
            for claim in (
                *(_fades(labels[arm], looks) for arm, looks in methods.items()),
                *(_at_limit(labels[arm], methods[arm]) for arm in methods if arm in UNLABELED),
                _is_zero(exact) if exact else None,
            )
            if claim
        ),
        tables=(_table(methods, labels),),
        pictures=(
            *(make(methods, labels) for make in pictures if methods),
            *([_exact_picture(exact)] if exact else []),
        ),
    )


def _by_time(runs: Sequence[RunRecord], kind: str) -> Looks:
    return list(zip(*(run.of_kind(kind) for run in runs), strict=False))


def _interfaces(looks: Looks) -> list[str]:
    return list(looks[0][0]["interfaces"])


def _seeds(look: Sequence[Event], interface: str, predictor: str) -> list[float]:
    """Return the error of each seed; none for a predictor that this method does not have."""
    errors = [event["interfaces"][interface][predictor] for event in look]
    return [error for error in errors if error is not None]


def _known(look: Sequence[Event], key: str) -> list[float]:
    """Return what each seed says; nothing of one that says null."""
    return [event[key] for event in look if event[key] is not None]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _range(values: Sequence[float], digits: int = 3) -> str:
    low, high = fixed(min(values), digits), fixed(max(values), digits)
    return low if low == high else f"{low} to {high}"


def _table(methods: Mapping[str, Looks], labels: Mapping[str, str]) -> Table:
    rows = [
        (
            labels[arm],
            interface,
            f"{look[0]['updates']:,}",
            fixed(_median(_known(look, "accuracy_percent")), 1),
            fixed(_median(_known(look, "calibration_error")), 4),
            *(fixed(_median(_seeds(look, interface, key)), 3) for key in _PREDICTORS),
        )
        for arm, looks in methods.items()
        for look in looks
        for interface in _interfaces(looks)
    ]
    num_seeds = max((len(look) for looks in methods.values() for look in looks), default=0)
    return Table(
        title="Relative error |M - delta| / |delta| of predictors of the true gradient",
        columns=(
            "Network trained by",
            "Interface",
            "Updates",
            "Accuracy %",
            "Calibration error",
            *_PREDICTORS.values(),
        ),
        rows=tuple(rows),
        notes=(
            f"Medians over n = {num_seeds} seeds; 1 is a prediction of zero. Best and linear are "
            "fitted offline to a frozen network and judged on examples that they have not seen, "
            "all of them training examples of the network. Best is the better of ridge "
            "regression and an MLP, so it bounds the error of E[delta | h] from above: a larger "
            "one may find more. The net's own was fitted on more examples, the judging ones among "
            "them, so it can be below the best. Accuracy and expected calibration error are "
            "of the top, on the same examples.",
        ),
        num_text_columns=2,
    )


def _errors_picture(methods: Mapping[str, Looks], labels: Mapping[str, str]) -> Picture:
    panels = [
        Panel(
            title=f"{labels[arm]}: {interface}",
            x_label="updates",
            y_label="relative error",
            lines=[
                line
                for key, label in _PREDICTORS.items()
                if (line := _line(looks, interface, key, label)).y
            ],
            log_x=True,
            marks=(1.0,),
        )
        for arm, looks in methods.items()
        for interface in _interfaces(looks)
    ]
    return Picture(
        name="predictors",
        title="How well the true gradient can be predicted as training goes on",
        kind="lines",
        data=lines_data(panels),
        note=(
            "1 is a prediction of zero. Medians over seeds, with the least and the most. Best and "
            "linear are fitted offline to the frozen network."
        ),
    )


def _line(looks: Looks, interface: str, predictor: str, label: str) -> Line:
    seeds = {look[0]["updates"]: _seeds(look, interface, predictor) for look in looks}
    known = {updates: errors for updates, errors in seeds.items() if errors}
    return Line(
        label=label,
        x=list(known),
        y=[statistics.median(errors) for errors in known.values()],
        low=[min(errors) for errors in known.values()],
        high=[max(errors) for errors in known.values()],
    )


def _calibration_picture(methods: Mapping[str, Looks], labels: Mapping[str, str]) -> Picture:
    """Show the top's calibration beside what is left to predict below it."""
    calibration, left = list[Line](), list[Line]()
    for arm, looks in methods.items():
        top = _interfaces(looks)[-1]
        errors = [_median(_known(look, "calibration_error")) for look in looks]
        best = [_median(_seeds(look, top, "best")) for look in looks]
        share = [None if error is None else 1 - error**2 for error in best]
        updates = [look[0]["updates"] for look in looks]
        calibration.append(Line(label=labels[arm], x=updates, y=errors))
        left.append(Line(label=labels[arm], x=updates, y=share))
    y_labels = ("calibration error", "1 - error\N{SUPERSCRIPT TWO}")
    titles = ("Calibration error of the top", "Share of |delta|\N{SUPERSCRIPT TWO} that h tells")
    return Picture(
        name="calibration",
        title="The top's calibration, and what the best predictor from h has left below it",
        kind="lines",
        data=lines_data(
            [
                Panel(title=title, x_label="updates", y_label=y_label, lines=lines, log_x=True)
                for title, y_label, lines in zip(titles, y_labels, (calibration, left), strict=True)
            ]
        ),
        note="At the topmost interface; medians over seeds.",
    )


def _exact_picture(exact: Looks) -> Picture:
    labels = {
        "top_gradient": "gradient of the top",
        "predicted": "linear, from h",
        "predicted_with_labels": "linear, from h and labels",
    }
    lines = [
        Line(
            label=label,
            x=[look[0]["step"] for look in exact],
            y=[statistics.median(event[key] for event in look) for look in exact],
        )
        for key, label in labels.items()
    ]
    panel = Panel(
        title="", x_label="Newton steps of the top", y_label="norm", lines=lines, log_y=True
    )
    return Picture(
        name="exact",
        title="Below a linear top, the best linear predictor vanishes with the top's own gradient",
        kind="lines",
        data=lines_data([panel]),
        note=(
            "Activations fixed, float64. Of a predictor: its norm over that of the true gradient, "
            "on the examples that the top was trained on."
        ),
    )


def _fades(label: str, looks: Looks) -> Claim | None:
    """Judge the expected limit at the topmost interface; every seed must show it."""
    top = _interfaces(looks)[-1]
    seeds = list(
        _complete(
            (
                first["interfaces"][top]["best"],
                last["interfaces"][top]["best"],
                last["interfaces"][top]["best_with_labels"],
                first["calibration_error"],
                last["calibration_error"],
            )
            for first, last in zip(looks[0], looks[-1], strict=True)
        )
    )
    if not seeds:
        return None
    first, last, with_labels, *calibration = zip(*seeds, strict=True)
    rises = all(a < b for a, b in zip(first, last, strict=True))
    verdict: Verdict = "reproduced"
    reason = (
        f"Of the predictors that we fitted the best one's error rises, ends above {_FADED}, and "
        f"stays below {_LEFT} with labels, in every seed. It bounds that of E[delta | h] only from "
        "above."
    )
    if not rises or min(last) <= _FADED:
        verdict = "not reproduced"
        reason = f"Without labels it does not rise to above {_FADED} in every seed."
    elif max(with_labels) >= _LEFT:
        verdict = "not reproduced"
        reason = f"It fades, but with labels it is not below {_LEFT} in every seed either."
    return judged(
        claim=f"expected limit: no predictor without labels that we fitted keeps up ({label})",
        paper="no paper: E[delta | h] is expected to fade as the top becomes calibrated on what h "
        "shows, and not so with labels",
        measured=f"least relative error at {top} after {looks[0][0]['updates']:,} and "
        f"{looks[-1][0]['updates']:,} updates: {_range(first)} and {_range(last)}, at the end "
        f"with labels {_range(with_labels)}; calibration error {_range(calibration[0], 4)} and "
        f"{_range(calibration[1], 4)}",
        num_seeds=len(seeds),
        verdict=verdict,
        reason=reason,
    )


def _at_limit(label: str, looks: Looks) -> Claim | None:
    """Judge whether the limit is what keeps a synthesizer without labels from being better."""
    top = _interfaces(looks)[-1]
    errors = _complete(
        [event["interfaces"][top][key] for key in ("own", "best") for event in of_seed]
        for of_seed in zip(*looks, strict=True)
    )
    num_looks = len(looks)
    gaps = [
        [own - best for own, best in zip(seed[:num_looks], seed[num_looks:], strict=True)]
        for seed in errors
    ]
    if not gaps:
        return None
    reached = max(abs(gap) for of_seed in gaps for gap in of_seed) <= _CLOSE
    texts = [
        f"{_range(gap)} after {look[0]['updates']:,}"
        for gap, look in zip(zip(*gaps, strict=True), looks, strict=True)
    ]
    return judged(
        claim=f"the limit is what keeps the net's own synthesizer back ({label})",
        paper="no paper: expected of synthesizers without labels",
        measured=f"relative error at {top}, own above the best that we fitted from h: "
        f"{', '.join(texts)} updates",
        num_seeds=len(gaps),
        verdict="reproduced" if reached else "not reproduced",
        reason=f"The own one is {'' if reached else 'not '}within {_CLOSE} of the best that we "
        "fitted, above or below it, at every look, in every seed.",
    )


def _complete(seeds: Iterable[Sequence[float | None]]) -> Iterator[list[float]]:
    """Yield the numbers of each seed that has all of them; null is what was not finite."""
    for seed in seeds:
        numbers = [number for number in seed if number is not None]
        if len(numbers) == len(seed):
            yield numbers


def _is_zero(exact: Looks) -> Claim:
    first, last = ([event["predicted"] for event in exact[k]] for k in (0, -1))
    zero = max(last) < _ZERO < min(first)
    return judged(
        claim="below a stationary linear top, the best linear predictor from h is zero",
        paper="no paper: exact, by the top's own condition of stationarity",
        measured=f"its norm over the gradient's, at most: {max(first):.2g} before the top is "
        f"trained, {max(last):.2g} after {exact[-1][0]['step']} Newton steps, where the top's "
        f"gradient is {max(event['top_gradient'] for event in exact[-1]):.2g}",
        num_seeds=len(first),
        verdict="reproduced" if zero else "not reproduced",
        reason=f"It falls {'' if zero else 'not '}below {_ZERO:g} in every seed.",
    )
