"""czarnecki2017/loss-surface: its tasks on tiny data, its numbers where known, every verdict."""

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_data import tiny_dataset

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.records.reading import read_records
from synthgrad.diagnostics import ImpliedLoss
from synthgrad.errors import ConfigError
from synthgrad.experiments.contract import RunOptions
from synthgrad.experiments.czarnecki2017 import looks as looks_module
from synthgrad.experiments.czarnecki2017.looks import Training
from synthgrad.experiments.czarnecki2017.loss_surface import (
    EXPERIMENT,
    PRESETS,
    LossSurfaceConfig,
    tasks,
)
from synthgrad.experiments.czarnecki2017.loss_surface_findings import LABELS, find
from synthgrad.experiments.czarnecki2017.surface_numbers import compare_surfaces

CONFIG = LossSurfaceConfig(
    training=Training(depth=4, width=8, stops=(2, 6), num_seeds=3, batch_size=16),
    synthesizer_width=4,
    radii=(0.1, 1.0),
    num_points=5,
    num_per_class=3,
)
GRID = torch.linspace(-2, 2, 9, dtype=torch.float64)
A, B = torch.meshgrid(GRID, GRID, indexing="ij")


def test_all_of_it_from_the_tasks_to_the_page(monkeypatch, tmp_path):
    monkeypatch.setattr(looks_module, "_load", lambda name, data_dir: tiny_dataset())
    options = RunOptions(preset="", out=tmp_path, console=Console(file=io.StringIO()))
    assert EXPERIMENT.run(CONFIG, options).runs == {"finished": 6}
    records, problems = found = read_records(tmp_path)
    assert not problems
    for record in records:
        centers, surfaces = record.of_kind("center"), record.of_kind("surface")
        assert [event["iteration"] for event in centers] == [2, 6]
        assert -1 <= centers[1]["cosine"] <= 1
        assert [(event["iteration"], event["radius"]) for event in surfaces] == [
            (2, 0.1),
            (2, 1.0),
            (6, 0.1),
            (6, 1.0),
        ]
        assert all(("true" in event) == (record.seed == 0) for event in surfaces)
        if record.arm == "linear":
            assert max(event["beyond_quadratic"] for event in surfaces) < 1e-5
    findings = find(records)
    json.dumps(findings.to_json(), allow_nan=False)
    assert [len(table.rows) for table in findings.tables] == [8, 4, 0]
    assert len(findings.claims) == 5
    assert (
        findings.claims[-1].verdict == "reproduced"
    )  # a linear one is a quadratic, trained or not
    names = [picture.name for picture in findings.pictures]
    assert names[:4] == ["error", "correlation", "surface-linear-2-near", "surface-linear-2-far"]
    assert len(names) == 10
    page = EXPERIMENT.write_page(tmp_path, found).read_text()
    assert all(f"figures/{name}.svg" in page for name in names)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_make_tasks_that_can_be_sent(preset):
    made = tasks(PRESETS[preset])
    assert {task.arm for task in made} == set(EXPERIMENT.arms)
    assert len(pickle.loads(pickle.dumps(made))) == len(made) > 0


def test_wrong_values_are_refused():
    with pytest.raises(ConfigError, match="radii"):
        replace(CONFIG, radii=(1.0, 0.1))
    with pytest.raises(ConfigError, match="odd"):
        replace(CONFIG, num_points=4)


def numbers(true, implied):
    zeros = torch.zeros(2, *true.shape, dtype=torch.float64)
    return compare_surfaces(
        ImpliedLoss(a=GRID, b=GRID, true=true, implied=implied, field=zeros, curl=zeros[0])
    )


def test_numbers_of_surfaces_that_are_known():
    bowl = 3 + A * A + 2 * B * B - A
    same = numbers(bowl, bowl)
    assert same.error == 0
    assert same.correlation == pytest.approx(1)
    assert same.beyond_quadratic < 1e-12
    flat = numbers(bowl, torch.full_like(bowl, 3.0))
    assert flat.error == pytest.approx(1)
    assert flat.correlation == flat.asymmetry == flat.beyond_quadratic == 0
    upside_down = numbers(bowl, 6 - bowl)
    assert upside_down.error == pytest.approx(2)
    assert upside_down.correlation == pytest.approx(-1)
    wave = numbers(bowl, 3 + torch.sin(3 * A))
    assert wave.beyond_quadratic > 0.5
    assert wave.true_beyond_quadratic < 1e-12


def record(arm, seed, near, far, beyond=1e-6):
    """Return a finished record with these errors near by and far away, at its end."""
    zeros = {"correlation": 0.5, "asymmetry": 0.1, "true_beyond_quadratic": 0.2}
    center = {"event": "center", "val_accuracy": 90.0, "cosine": 0.5}
    center |= {"relative_error": 0.9, "norm_ratio": 0.5}
    surfaces = [
        {"event": "surface", "iteration": stop, "radius": radius, "error": error, **zeros}
        | {"beyond_quadratic": beyond}
        for stop, errors in ((1, (0.9, 0.9)), (9, (near, far)))
        for radius, error in zip((0.1, 1.0), errors, strict=True)
    ]
    events = (
        *({**center, "iteration": stop} for stop in (1, 9)),
        *surfaces,
        {"event": "tested", "test_accuracy": 98.0},
        {"event": "finished"},
    )
    run = {"kind": "study", "arm": arm, "label": arm, "seed": seed, "config": {}}
    return RunRecord(folder=Path(), name=f"{arm}-s{seed}", run=run, events=events)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([(0.1, 2.0)] * 3, ["reproduced", "reproduced"]),
        ([(0.1, 2.0), (0.1, 2.0), (0.9, 2.0)], ["not reproduced", "reproduced"]),
        ([(0.1, 2.0), (0.1, 2.0), (0.1, 0.15)], ["reproduced", "not reproduced"]),
        ([(0.1, 2.0)] * 2, ["not comparable", "not comparable"]),
    ],
)
@pytest.mark.parametrize("arm", LABELS)
def test_verdicts_follow_the_errors_of_every_seed(arm, errors, expected):
    claims = find([record(arm, seed, *pair) for seed, pair in enumerate(errors)]).claims
    assert [claim.verdict for claim in claims[:2]] == expected


@pytest.mark.parametrize(("beyond", "verdict"), [(1e-6, "reproduced"), (0.1, "not reproduced")])
def test_the_verdict_on_quadratics(beyond, verdict):
    claims = find([record("linear", seed, 0.1, 2.0, beyond) for seed in range(3)]).claims
    assert claims[-1].claim == "The loss that a linear synthesizer implies"
    assert claims[-1].verdict == verdict


def test_nothing_finished_is_no_error():
    whole = record("linear", 0, 0.1, 2.0)
    findings = find([replace(whole, events=whole.events[:1])])
    assert findings.claims == findings.pictures == ()
    assert len(findings.all_tables()) == 1
