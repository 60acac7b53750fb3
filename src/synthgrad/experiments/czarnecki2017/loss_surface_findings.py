"""What the surfaces show: where an implied loss resembles the true one, with verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from synthgrad.bench.figures.panels import Panel, lines_data
from synthgrad.bench.findings import Findings, Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.czarnecki2017.over_seeds import MIN_SEEDS, line, missing_table, text

ArmName = Literal["linear", "mlp"]
LABELS: dict[ArmName, str] = {"linear": "linear synthesizer", "mlp": "MLP synthesizer"}
Arms = Mapping[ArmName, Sequence[RunRecord]]

_ACCURATE = 0.5  # an error below half of what a flat loss has
_WRONG = 2.0  # so many times the error near by
_QUADRATIC = 1e-3  # what float32 leaves of a quadratic is far below
_ERROR_NOTE = (
    "Error: the distance of the two surfaces over that of the true one from its height in the "
    "middle; 1 for a flat implied loss. The radius is in lengths of the activations."
)


def find(records: Sequence[RunRecord]) -> Findings:
    """Return verdicts, tables and pictures; a pure function."""
    arms: Arms = {
        name: runs
        for name in LABELS
        if (runs := [r for r in records if r.arm == name and r.status == "finished"])
    }
    return Findings(
        claims=tuple(_claims(arms)),
        tables=(_surfaces_table(arms), _centers_table(arms), missing_table(records)),
        pictures=(
            *_over_radius(arms, "error", marks=[1.0]),
            *_over_radius(arms, "correlation"),
            *_surfaces(arms),
        ),
    )


def _claims(arms: Arms) -> list[Claim]:
    claims = list[Claim]()
    for name, runs in arms.items():
        stop, radii = _stops(arms)[-1], _radii(arms)
        near, far = (_values(runs, stop, radius, "error") for radius in (radii[0], radii[-1]))
        ratios = [b / a if a else float("inf") for a, b in zip(near, far, strict=True)]
        after = f"after {stop:,} iterations, n = {len(runs)}"
        claims += [
            _judge(
                len(runs),
                claim=f"Near the activations, {LABELS[name]}",
                paper="the implied loss is accurate locally (recalled)",
                measured=f"error {text(near, 2)} within a radius of {radii[0]:g}, {after}",
                holds=max(near) < _ACCURATE,
                reason=f"the error is below {_ACCURATE:g} in every seed; a flat loss has 1",
            ),
            _judge(
                len(runs),
                claim=f"Far from the activations, {LABELS[name]}",
                paper="the implied loss is wrong globally (recalled)",
                measured=(
                    f"error {text(far, 2)} within a radius of {radii[-1]:g}, {text(ratios, 1)} "
                    f"times that within {radii[0]:g}, {after}"
                ),
                holds=min(ratios) >= _WRONG,
                reason=f"it is {_WRONG:g} times that near by or more in every seed",
            ),
        ]
    if "linear" in arms:
        own, true = (
            [event[key] for run in arms["linear"] for event in run.of_kind("surface")]
            for key in ("beyond_quadratic", "true_beyond_quadratic")
        )
        claims.append(
            _judge(
                len(arms["linear"]),
                claim="The loss that a linear synthesizer implies",
                paper="it is quadratic in the activations",
                measured=(
                    f"off the closest quadratic by {max(own):.1e} of its range at most; the true "
                    f"loss by up to {max(true):.2f}"
                ),
                holds=max(own) < _QUADRATIC,
                reason=f"it is off by less than {_QUADRATIC:g} on every surface",
            )
        )
    return claims


def _judge(
    num_seeds: int, *, claim: str, paper: str, measured: str, holds: bool, reason: str
) -> Claim:
    verdict: Verdict = "reproduced" if holds else "not reproduced"
    because = f"The rule: {reason}."
    if num_seeds < MIN_SEEDS:
        verdict, because = "not comparable", f"Fewer than {MIN_SEEDS} seeds."
    return Claim(claim=claim, paper=paper, measured=measured, verdict=verdict, reason=because)


def _surfaces_table(arms: Arms) -> Table:
    columns = {
        "error": "Error",
        "correlation": "Correlation",
        "asymmetry": "Asymmetry",
        "beyond_quadratic": "Beyond quadratic",
        "true_beyond_quadratic": "True loss, beyond quadratic",
    }
    return Table(
        title="The implied loss against the true one",
        columns=("Synthesizer", "Iterations", "Radius", "n", *columns.values()),
        rows=tuple(
            (
                LABELS[name],
                f"{stop:,}",
                f"{radius:g}",
                str(len(runs)),
                *(text(_values(runs, stop, radius, key), 2) for key in columns),
            )
            for name, runs in arms.items()
            for stop in _stops(arms)
            for radius in _radii(arms)
        ),
        notes=(
            f"Median over n seeds [least, most]. {_ERROR_NOTE}",
            "Asymmetry: 0 if the synthetic gradient is the gradient of some loss, 1 if it only "
            "turns. Beyond quadratic: how far a surface is from the closest quadratic.",
        ),
    )


def _centers_table(arms: Arms) -> Table:
    columns = ("val_accuracy", "cosine", "relative_error", "norm_ratio")
    return Table(
        title="The synthetic gradient against the true one, at the activations",
        columns=(
            "Synthesizer",
            "Iterations",
            "n",
            "Validation %",
            "Cosine",
            "Relative error",
            "Length over the true one's",
        ),
        rows=tuple(
            (
                LABELS[name],
                f"{stop:,}",
                str(len(runs)),
                *(text([_center(run, stop)[key] for run in runs], 2) for key in columns),
            )
            for name, runs in arms.items()
            for stop in _stops(arms)
        ),
        notes=tuple(
            f"{LABELS[name]}: test accuracy "
            f"{text([run.of_kind('tested')[-1]['test_accuracy'] for run in runs], 2)} %."
            for name, runs in arms.items()
        ),
    )


def _over_radius(arms: Arms, key: str, marks: Sequence[float] = ()) -> tuple[Picture, ...]:
    """Return the picture of one number over the radius, a panel a stop; none without an arm."""
    if not arms:
        return ()
    panels = [
        Panel(
            title=f"{stop:,} iterations",
            x_label="radius",
            y_label=key,
            lines=[
                line(
                    LABELS[name],
                    _radii(arms),
                    [_values(runs, stop, radius, key) for radius in _radii(arms)],
                )
                for name, runs in arms.items()
            ],
            log_x=True,
            marks=marks,
        )
        for stop in _stops(arms)
    ]
    return (
        Picture(
            name=key,
            title=f"How far the implied loss resembles the true one: {key} over the radius",
            kind="lines",
            data=lines_data(panels),
            note=f"{_ERROR_NOTE} Medians, in bands from the least to the most of the seeds.",
        ),
    )


def _surfaces(arms: Arms) -> list[Picture]:
    """Return the maps of the surfaces that were kept."""
    return [
        Picture(
            name=f"surface-{name}-{event['iteration']}-{place}",
            title=(
                f"{LABELS[name].capitalize()}, {event['iteration']:,} iterations, within a radius "
                f"of {event['radius']:g}"
            ),
            kind="surfaces",
            data={
                **{key: event[key] for key in ("a", "b", "true", "implied")},
                "labels": ["along the true gradient", "along the rest of the synthetic one"],
            },
            note=f"Seed {run.seed}. The cross marks the activations of held-out examples.",
        )
        for name, runs in arms.items()
        for run in runs
        for event in run.of_kind("surface")
        if "true" in event
        for place in ["near" if event["radius"] == _radii(arms)[0] else "far"]
    ]


def _values(runs: Sequence[RunRecord], stop: int, radius: float, key: str) -> list[float]:
    return [
        event[key]
        for run in runs
        for event in run.of_kind("surface")
        if (event["iteration"], event["radius"]) == (stop, radius)
    ]


def _center(run: RunRecord, stop: int) -> Mapping[str, Any]:
    return next(event for event in run.of_kind("center") if event["iteration"] == stop)


def _stops(arms: Arms) -> list[int]:
    run = next(iter(arms.values()))[0]
    return [event["iteration"] for event in run.of_kind("center")]


def _radii(arms: Arms) -> list[float]:
    run = next(iter(arms.values()))[0]
    return list(dict.fromkeys(event["radius"] for event in run.of_kind("surface")))
