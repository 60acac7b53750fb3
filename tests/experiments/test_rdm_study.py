"""czarnecki2017/rdm: its tasks on tiny data, what its records show, and every verdict."""

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
from synthgrad.data import Batches
from synthgrad.errors import ConfigError, DataNotFoundError, DivergedError
from synthgrad.experiments.contract import RunOptions
from synthgrad.experiments.czarnecki2017 import looks as looks_module
from synthgrad.experiments.czarnecki2017.looks import Training, by_class, looks
from synthgrad.experiments.czarnecki2017.packed import pack, unpack
from synthgrad.experiments.czarnecki2017.rdm import EXPERIMENT, PRESETS, RdmConfig, measure, tasks
from synthgrad.experiments.czarnecki2017.rdm_findings import LABELS, find
from synthgrad.experiments.grid import Method

TRAINING = Training(depth=4, width=8, stops=(0, 3), num_seeds=3, batch_size=16)
CONFIG = RdmConfig(
    mnist=TRAINING,
    cifar10=replace(TRAINING, dataset="cifar10", num_seeds=1),
    num_per_class=5,
    num_drawn=2,
    seeds=(2, 0, 1, 7),
)
BACKPROP = Method(name="backprop", label="backprop", signal=None)


def load(name, data_dir):
    if name == "cifar10":
        raise DataNotFoundError("CIFAR-10 was not found. Searched:\n  /somewhere")
    return tiny_dataset()


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(looks_module, "_load", load)


def run(config, out):
    console = Console(file=io.StringIO(), width=100)
    outcome = EXPERIMENT.run(config, RunOptions(preset="", out=out, console=console))
    return outcome, console.file.getvalue()


def test_all_of_it_from_the_tasks_to_the_page(tiny, tmp_path):
    outcome, told = run(CONFIG, tmp_path)
    assert outcome.runs == {"finished": 12, "unavailable": 4}
    assert outcome.succeeded
    assert "/somewhere" in told
    records, problems = found = read_records(tmp_path)
    assert not problems
    for record in records:
        if record.status == "unavailable":
            assert record.reason == "CIFAR-10 was not found"
            continue
        untrained, trained = record.of_kind("layers")
        assert (untrained["iteration"], trained["iteration"]) == (0, 3)
        assert list(trained["separation"]) == ["layer1", "layer2", "layer3", "output"]
        assert ("rdms" in untrained) == (record.seed == 0)
        assert len(trained["rdms"]["layer1"]) == 6 * 5 / 2
        assert 0 <= record.of_kind("tested")[0]["test_accuracy"] <= 100
        assert record.config["below"] == "layer2"
    findings = find(records)
    json.dumps(findings.to_json(), allow_nan=False)
    assert len(findings.claims) == 3
    assert [len(table.rows) for table in findings.tables] == [8, 4, 4]
    names = {picture.name for picture in findings.pictures}
    assert names == {"separation", "similarity", "rdms-mnist-0", "rdms-mnist-3"}
    page = EXPERIMENT.write_page(tmp_path, found).read_text()
    assert all(f"figures/{name}.svg" in page for name in names)


def test_what_was_unavailable_is_measured_once_it_is_there(monkeypatch, tmp_path):
    config = replace(CONFIG, mnist=replace(TRAINING, num_seeds=0), arms=("backprop",))
    monkeypatch.setattr(looks_module, "_load", load)
    assert run(config, tmp_path)[0].runs == {"unavailable": 1}
    monkeypatch.setattr(looks_module, "_load", lambda name, data_dir: tiny_dataset(name))
    assert run(config, tmp_path)[0].runs == {"finished": 1}
    [record] = read_records(tmp_path)[0]
    assert (record.status, record.facts["dataset"]) == ("finished", "cifar10")


def test_every_arm_starts_from_the_same_network(tiny):
    starts = [next(task.measure()) for task in tasks(CONFIG)[:4]]
    assert starts == [{"event": "facts", "dataset": "tiny"}] * 4
    untrained = []
    for task in tasks(CONFIG)[:4]:
        steps = task.measure()
        next(steps)
        untrained.append(next(steps)["separation"])
    assert all(values == untrained[0] for values in untrained)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_make_tasks_that_can_be_sent(preset):
    made = tasks(PRESETS[preset])
    assert len({task.name for task in made}) == len(made) > 0
    assert {task.arm for task in made} == set(EXPERIMENT.arms)
    assert pickle.loads(pickle.dumps(made))[0].name == made[0].name


def test_training_goes_on_where_it_stopped(tiny):
    options = {"seed": 1, "device": "cpu", "data_dir": None}
    stopped = [
        (look.iteration, look.is_last, look.learner.model.output.weight.detach().clone())
        for look in looks(BACKPROP, replace(TRAINING, stops=(2, 5)), **options)
    ]
    assert [stop[:2] for stop in stopped] == [(2, False), (5, True)]
    [through] = looks(BACKPROP, replace(TRAINING, stops=(5,)), **options)
    torch.testing.assert_close(
        stopped[1][2], through.learner.model.output.weight.detach(), rtol=0, atol=0
    )
    assert not torch.equal(stopped[0][2], stopped[1][2])


def test_a_loss_that_is_not_finite_ends_it(tiny, monkeypatch):
    def broken(self):
        inputs, labels = next_batch(self)
        return inputs * float("nan"), labels

    next_batch = Batches.__next__
    monkeypatch.setattr(Batches, "__next__", broken)
    with pytest.raises(DivergedError, match="NaN at iteration 1"):
        list(measure(CONFIG, TRAINING, BACKPROP, 0))


def test_examples_are_sorted_by_class():
    split = tiny_dataset().validation
    inputs, labels = by_class(split, 2, 3)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(inputs, split.inputs[[0, 3, 1, 4, 2, 5]])


def test_packed_matrices_come_back():
    upper = torch.rand(7, 7, dtype=torch.float64).triu(1)
    matrix = upper + upper.T
    torch.testing.assert_close(unpack(pack(matrix)), matrix, rtol=0, atol=5e-4)
    assert len(pack(matrix)) == 21


def test_wrong_values_are_refused():
    with pytest.raises(ConfigError, match="stops"):
        Training(stops=(3, 3))
    with pytest.raises(ConfigError, match="num_seeds"):
        Training(num_seeds=-1)
    with pytest.raises(ConfigError, match="num_drawn"):
        RdmConfig(num_per_class=3, num_drawn=4)


def record(arm, seed, separation, accuracy=98.0):
    """Return a finished record whose hidden layers separate so well at its end."""
    layers = dict(zip(("layer1", "layer2", "layer3", "output"), (*separation, 1.0), strict=True))
    look = {"event": "layers", "val_accuracy": accuracy}
    matrices = {name: [1000, 1500 + 10 * seed, 500] for name in layers}
    events = (
        {"event": "facts", "dataset": "Tiny"},
        {**look, "iteration": 1, "separation": dict.fromkeys(layers, 0.5)},
        {**look, "iteration": 9, "separation": layers, "rdms": matrices},
        {"event": "tested", "test_accuracy": accuracy},
        {"event": "finished"},
    )
    config = {"case": "mnist", "below": "layer2"}
    run = {"kind": "study", "arm": arm, "label": arm, "seed": seed, "config": config}
    return RunRecord(folder=Path(), name=f"{arm}-s{seed}", run=run, events=events)


BELOW, GRADUAL, EVERYWHERE = (
    "The layer just below a synthetic gradient, Tiny",
    "Backprop, from layer to layer, Tiny",
    "A synthetic gradient after every layer, Tiny",
)
PAPER = {"backprop": (0.2, 0.5, 0.9), "one-cdni": (0.5, 0.8, 0.9), "cdni": (0.8, 0.9, 0.9)}


def verdicts(profiles, num_seeds=3, **accuracies):
    records = [
        record(arm, seed, profile, accuracies.get(arm, 98.0))
        for arm, profile in profiles.items()
        for seed in range(num_seeds)
    ]
    return {claim.claim: claim.verdict for claim in find(records).claims}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ["reproduced"] * 3),
        ({"one-cdni": (0.9, 0.5, 0.9)}, ["not reproduced", "reproduced", "reproduced"]),
        ({"backprop": (0.2, 0.2, 0.9)}, ["reproduced", "not reproduced", "reproduced"]),
        ({"cdni": (0.6, 0.6, 0.9)}, ["reproduced", "reproduced", "not reproduced"]),
    ],
)
def test_verdicts_follow_the_layers(change, expected):
    found = verdicts({**PAPER, **change})
    assert [found[name] for name in (BELOW, GRADUAL, EVERYWHERE)] == expected


def test_one_seed_against_it_is_enough():
    records = [record(arm, seed, PAPER[arm]) for arm in PAPER for seed in range(3)]
    records[-4] = record("one-cdni", 2, (0.5, 0.4, 0.9))
    [below, *_] = find(records).claims
    assert below.verdict == "not reproduced"


def test_what_cannot_be_compared():
    assert set(verdicts(PAPER, num_seeds=2).values()) == {"not comparable"}
    far = verdicts(PAPER, cdni=90.0)
    assert [far[name] for name in (BELOW, EVERYWHERE)] == ["reproduced", "not comparable"]
    assert set(verdicts({"backprop": PAPER["backprop"]})) == {GRADUAL}


def test_likeness_has_other_seeds_of_backprop_beside_it():
    records = [record(arm, seed, PAPER[arm]) for arm in PAPER for seed in range(3)]
    table = find(records).tables[1]
    assert [row[:2] for row in table.rows] == [
        ("backprop, another seed", "2"),
        (LABELS["one-cdni"], "3"),
        (LABELS["cdni"], "3"),
    ]
    assert table.rows[0][2] == "1.000"


def test_nothing_finished_still_says_what_is_missing():
    whole = record("backprop", 0, PAPER["backprop"])
    findings = find([replace(whole, events=whole.events[:2])])
    assert findings.claims == findings.pictures == ()
    [table] = findings.all_tables()
    assert table.rows[0][0] == "backprop-s0"
