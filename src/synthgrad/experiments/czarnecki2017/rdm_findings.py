"""What the matrices show: which layers separate classes under which gradient, with verdicts."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from synthgrad.bench.figures.panels import Panel, lines_data
from synthgrad.bench.findings import Findings, Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.table import Table
from synthgrad.diagnostics import rdm_similarity
from synthgrad.experiments.czarnecki2017.over_seeds import MIN_SEEDS, line, missing_table, text
from synthgrad.experiments.czarnecki2017.packed import unpack

ArmName = Literal["backprop", "one-cdni", "cdni", "dni"]
LABELS: dict[ArmName, str] = {
    "backprop": "backprop",
    "one-cdni": "one cDNI in the middle",
    "cdni": "cDNI everywhere",
    "dni": "DNI everywhere",
}
Arms = Mapping[ArmName, Mapping[int, RunRecord]]
"""The records of one network, by arm and seed."""

_MAX_GAP = 3.0  # points of test accuracy: nets further apart differ in more than in their layers
_SEPARATION = "class separation"
_NOTE = (
    "Class separation (ANOSIM's R) of held-out examples: 1 if any two examples of one class are "
    "more alike than any two of different ones, 0 if class plays no part."
)


def find(records: Sequence[RunRecord]) -> Findings:
    """Return verdicts, tables and pictures of every network; a pure function."""
    cases = _cases(records)
    return Findings(
        claims=tuple(claim for name, arms in cases.items() for claim in _claims(name, arms)),
        tables=(
            *(_separation_table(name, arms) for name, arms in cases.items()),
            *(_similarity_table(name, arms) for name, arms in cases.items()),
            missing_table(records),
        ),
        pictures=(
            *_separation_picture(cases),
            *_similarity_picture(cases),
            *(picture for name, arms in cases.items() for picture in _matrices(name, arms)),
        ),
    )


def _cases(records: Sequence[RunRecord]) -> dict[str, Arms]:
    cases = dict[str, dict[ArmName, dict[int, RunRecord]]]()
    for name in LABELS:
        for record in records:
            if record.arm == name and record.status == "finished":
                arms = cases.setdefault(record.case, {})
                arms.setdefault(name, {})[record.seed] = record
    return {case: cases[case] for case in sorted(cases, reverse=True)}  # MNIST first


def _claims(case: str, arms: Arms) -> list[Claim]:
    title = _title(case, arms)
    claims = list[Claim]()
    if {"backprop", "one-cdni"} <= set(arms):
        below = _below(arms)
        early, late = (_differences(arms, "one-cdni", "backprop", [below], i) for i in (0, -1))
        first, last = _stops(arms)[0], _stops(arms)[-1]
        claims.append(
            _judge(
                arms,
                ("one-cdni", "backprop"),
                claim=f"The layer just below a synthetic gradient, {title}",
                paper="it carries class structure already, more than under backprop (recalled)",
                measured=(
                    f"class separation of {below} over backprop's: {text(late, signed=True)} after "
                    f"{last:,} iterations, {text(early, signed=True)} after {first:,}; n = "
                    f"{len(late)}, test accuracy {_accuracies(arms, 'one-cdni', 'backprop')}"
                ),
                holds=bool(late) and min(late) > 0,
                reason=f"after {last:,} iterations it is above zero in every seed",
            )
        )
    if "backprop" in arms:
        layers = _layers(arms)[:-1]
        medians = [statistics.median(_separations(arms, "backprop", layer)) for layer in layers]
        claims.append(
            _judge(
                arms,
                ("backprop",),
                claim=f"Backprop, from layer to layer, {title}",
                paper="classes are separated gradually toward the top (recalled)",
                measured=f"{layers[0]} to {layers[-1]}: " + ", ".join(f"{m:.3f}" for m in medians),
                holds=all(low < high for low, high in itertools.pairwise(medians)),
                reason="the median of each hidden layer is above that of the one below it",
            )
        )
    if {"backprop", "one-cdni", "cdni"} <= set(arms):
        layers = _layers(arms)[: _layers(arms).index(_below(arms)) + 1]
        over_one = _differences(arms, "cdni", "one-cdni", layers)
        over_backprop = _differences(arms, "cdni", "backprop", layers)
        claims.append(
            _judge(
                arms,
                ("cdni", "one-cdni", "backprop"),
                claim=f"A synthetic gradient after every layer, {title}",
                paper="the effect is strongest there (recalled)",
                measured=(
                    f"class separation, mean of {layers[0]} to {layers[-1]}: "
                    f"{text(over_one, signed=True)} over that with one, "
                    f"{text(over_backprop, signed=True)} over backprop's; test accuracy "
                    f"{_accuracies(arms, 'cdni', 'one-cdni', 'backprop')}"
                ),
                holds=min(over_one, default=0) > 0 and min(over_backprop, default=0) > 0,
                reason="both are above zero in every seed",
            )
        )
    return claims


def _judge(
    arms: Arms,
    names: Sequence[ArmName],
    *,
    claim: str,
    paper: str,
    measured: str,
    holds: bool,
    reason: str,
) -> Claim:
    """Return a claim: the rule decides where the nets can be compared."""
    accuracies = [statistics.median(_tested(arms, name)) for name in names]
    verdict: Verdict = "reproduced" if holds else "not reproduced"
    because = f"The rule: {reason}."
    if min(len(arms[name]) for name in names) < MIN_SEEDS:
        verdict, because = "not comparable", f"Fewer than {MIN_SEEDS} seeds."
    elif max(accuracies) - min(accuracies) > _MAX_GAP:
        verdict = "not comparable"
        because = f"The nets' test accuracies are more than {_MAX_GAP:g} points apart."
    return Claim(claim=claim, paper=paper, measured=measured, verdict=verdict, reason=because)


def _separation_table(case: str, arms: Arms) -> Table:
    layers = _layers(arms)
    rows = list[tuple[str, ...]]()
    for stop in _stops(arms):
        for name, runs in arms.items():
            looks = [_look(record, stop) for record in runs.values()]
            accuracy = [look["val_accuracy"] for look in looks]
            medians = (
                f"{statistics.median(look['separation'][layer] for look in looks):.3f}"
                for layer in layers
            )
            rows.append((LABELS[name], f"{stop:,}", str(len(runs)), text(accuracy, 2), *medians))
    tested = ", ".join(f"{LABELS[name]} {text(_tested(arms, name), 2)}" for name in arms)
    return Table(
        title=f"Class separation of each layer, {_title(case, arms)}",
        columns=("Arm", "Iterations", "n", "Validation %", *layers),
        rows=tuple(rows),
        notes=(
            f"{_NOTE} Medians over n seeds. One interface stands on {_below(arms)}.",
            f"Test accuracy % at the end [least, most]: {tested}.",
        ),
    )


def _separation_picture(cases: Mapping[str, Arms]) -> tuple[Picture, ...]:
    panels = [
        Panel(
            title=f"{_title(case, arms)}, {stop:,} iterations",
            x_label="layer",
            y_label=_SEPARATION,
            lines=[
                line(
                    LABELS[name],
                    _numbered(arms),
                    [_separations(arms, name, layer, stop) for layer in _layers(arms)],
                )
                for name in arms
            ],
        )
        for case, arms in cases.items()
        for stop in _stops(arms)
    ]
    if not panels:
        return ()
    return (
        Picture(
            name="separation",
            title="Class separation, layer by layer",
            kind="lines",
            data=lines_data(panels),
            note=f"{_NOTE} Medians, in bands from the least to the most of the seeds. The last "
            "layer is the output.",
        ),
    )


def _similarities(arms: Arms) -> dict[str, list[list[float]]]:
    """Return by label, at the end, how alike each layer is to backprop's; one value a seed.

    The first entry is backprop itself with other weights at the start: as alike as can be expected.
    """
    references = arms.get("backprop", {})
    stop, layers = _stops(arms)[-1], _layers(arms)

    def alike(a: RunRecord, b: RunRecord, layer: str) -> float:
        return rdm_similarity(*(unpack(_look(record, stop)["rdms"][layer]) for record in (a, b)))

    seeds = sorted(references)
    pairs = {
        "backprop, another seed": [
            (references[a], references[b]) for a, b in itertools.pairwise(seeds)
        ]
    }
    for name, runs in arms.items():
        if name != "backprop":
            shared = sorted(set(runs) & set(references))
            pairs[LABELS[name]] = [(runs[seed], references[seed]) for seed in shared]
    return {
        label: [[alike(a, b, layer) for a, b in chosen] for layer in layers]
        for label, chosen in pairs.items()
        if chosen
    }


def _similarity_table(case: str, arms: Arms) -> Table:
    rows = [
        (label, str(len(layers[0])), *(f"{statistics.median(values):.3f}" for values in layers))
        for label, layers in _similarities(arms).items()
    ]
    return Table(
        title=f"Likeness of each layer's matrix to backprop's, {_title(case, arms)}",
        columns=("Arm", "n", *_layers(arms)),
        rows=tuple(rows),
        notes=(
            "Spearman's rank correlation of the dissimilarities at the end, median over n pairs of "
            "runs: an arm and backprop of the same seed; or backprop of two seeds, which is as "
            "alike as can be expected.",
        ),
    )


def _similarity_picture(cases: Mapping[str, Arms]) -> tuple[Picture, ...]:
    panels = [
        Panel(
            title=_title(case, arms),
            x_label="layer",
            y_label="rank correlation",
            lines=[line(label, _numbered(arms), layers) for label, layers in found.items()],
        )
        for case, arms in cases.items()
        if (found := _similarities(arms))
    ]
    if not panels:
        return ()
    return (
        Picture(
            name="similarity",
            title="How alike each layer's matrix is to backprop's, at the end",
            kind="lines",
            data=lines_data(panels),
            note="Medians, in bands from the least to the most of the seeds.",
        ),
    )


def _matrices(case: str, arms: Arms) -> list[Picture]:
    """Return the heat maps of the least seed, a picture for each stop."""
    pictures = list[Picture]()
    for stop in _stops(arms):
        looks = {
            LABELS[name]: look
            for name, runs in arms.items()
            if "rdms" in (look := _look(runs[min(runs)], stop))
        }
        if looks:
            pictures.append(
                Picture(
                    name=f"rdms-{case}-{stop}",
                    title=f"Dissimilarity of examples, {_title(case, arms)}, {stop:,} iterations",
                    kind="dissimilarities",
                    data={
                        "rdms": {
                            label: {
                                layer: [
                                    [round(value, 3) for value in row]
                                    for row in unpack(entries).tolist()
                                ]
                                for layer, entries in look["rdms"].items()
                            }
                            for label, look in looks.items()
                        },
                        "separation": {label: look["separation"] for label, look in looks.items()},
                    },
                    note="One seed. Held-out examples, sorted by class; below each matrix "
                    "its class separation, which is taken over more examples.",
                )
            )
    return pictures


def _differences(
    arms: Arms, arm: ArmName, reference: ArmName, layers: Sequence[str], stop_index: int = -1
) -> list[float]:
    """Return by how much an arm's mean separation exceeds another's, in every shared seed."""
    stop = _stops(arms)[stop_index]
    means = [
        {
            seed: statistics.fmean(_look(record, stop)["separation"][layer] for layer in layers)
            for seed, record in arms[name].items()
        }
        for name in (arm, reference)
    ]
    return [means[0][seed] - means[1][seed] for seed in sorted(set(means[0]) & set(means[1]))]


def _separations(arms: Arms, name: ArmName, layer: str, stop: int | None = None) -> list[float]:
    stop = _stops(arms)[-1] if stop is None else stop
    return [_look(record, stop)["separation"][layer] for record in arms[name].values()]


def _tested(arms: Arms, name: ArmName) -> list[float]:
    return [record.of_kind("tested")[-1]["test_accuracy"] for record in arms[name].values()]


def _accuracies(arms: Arms, *names: ArmName) -> str:
    parts = (f"{statistics.median(_tested(arms, name)):.2f}" for name in names)
    return f"{' against '.join(parts)} %"


def _look(record: RunRecord, stop: int) -> Mapping[str, Any]:
    return next(event for event in record.of_kind("layers") if event["iteration"] == stop)


def _any(arms: Arms) -> RunRecord:
    return next(record for runs in arms.values() for record in runs.values())


def _stops(arms: Arms) -> list[int]:
    return [event["iteration"] for event in _any(arms).of_kind("layers")]


def _layers(arms: Arms) -> list[str]:
    return list(_any(arms).of_kind("layers")[0]["separation"])


def _numbered(arms: Arms) -> list[float]:
    return [float(index) for index in range(1, len(_layers(arms)) + 1)]


def _below(arms: Arms) -> str:
    return str(_any(arms).config["below"])


def _title(case: str, arms: Arms) -> str:
    return str(_any(arms).facts.get("dataset", case))
