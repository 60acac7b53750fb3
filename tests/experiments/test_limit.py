"""The limit without labels: its predictors against known answers, and the study on tiny data."""

import copy
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

import synthgrad as sg
from bench.tiny import tiny_data
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.records.reading import read_records
from synthgrad.errors import ConfigError, DivergedError
from synthgrad.experiments.accuracy import MIN_SEEDS
from synthgrad.experiments.contract import RunOptions
from synthgrad.experiments.unlabeled import limit
from synthgrad.experiments.unlabeled.exact import train_linear_top
from synthgrad.experiments.unlabeled.limit import EXPERIMENT, METHODS, PRESETS, LimitConfig
from synthgrad.experiments.unlabeled.limit_findings import find
from synthgrad.experiments.unlabeled.predictors import Parts, best_predictors
from synthgrad.experiments.unlabeled.probe import calibration_error, probe

CONFIG = LimitConfig(
    width=8,
    looks_at=(2, 4),
    batch_size=16,
    num_examples=64,
    hidden=(8,),
    epochs=1,
    exact_examples=64,
    exact_features=2,
    exact_steps=3,
)
DATA = tiny_data()


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(limit, "load_once", lambda *_: DATA)


def overlapping(num_examples=600, num_features=5, num_classes=4):
    """Activations like those behind a ReLU, and labels that they do not decide."""
    draw = torch.Generator().manual_seed(0)
    h = torch.randn(num_examples, num_features, dtype=torch.float64, generator=draw).relu()
    noise = torch.randn(num_examples, num_classes, dtype=torch.float64, generator=draw)
    return h, (h[:, :num_classes] + noise).argmax(1)


class TestExact:
    def test_nothing_is_left_below_a_stationary_linear_top(self):
        torch.manual_seed(0)
        first, *_, last = train_linear_top(*overlapping(), num_classes=4, steps=12)
        assert first.predicted > 0.1
        assert last.top_gradient < 1e-12
        assert last.predicted < 1e-8
        assert last.predicted_with_labels > 0.5

    def test_another_way_to_the_same_zero(self):
        """The top by LBFGS and the predictor by the normal equations, weights and all."""
        h, y = overlapping()
        torch.manual_seed(0)
        top = torch.nn.Linear(5, 4, dtype=torch.float64)
        optimizer = torch.optim.LBFGS(
            top.parameters(),
            max_iter=300,
            tolerance_grad=1e-13,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        def loss():
            optimizer.zero_grad()
            value = F.cross_entropy(top(h), y)
            value.backward()
            return value

        optimizer.step(loss)
        leaf = h.clone().requires_grad_()
        (delta,) = torch.autograd.grad(F.cross_entropy(top(leaf), y, reduction="sum"), leaf)
        x = torch.cat([h, h.new_ones(len(h), 1)], 1)
        assert torch.linalg.solve(x.T @ x, x.T @ delta).abs().max() < 1e-8
        assert delta.abs().mean() > 0.1

    def test_the_first_look_is_before_any_step(self):
        torch.manual_seed(0)
        (only,) = train_linear_top(*overlapping(), num_classes=4, steps=0)
        assert only.step == 0
        assert only.top_gradient > 0.1


class TestPredictors:
    def test_parts_do_not_overlap_and_cover_everything(self):
        parts = Parts(num_examples=50)
        together = [k for part in (parts.fit, parts.choose, parts.judge) for k in range(50)[part]]
        assert together == list(range(50))

    def test_what_is_linear_is_found(self):
        torch.manual_seed(0)
        x = torch.randn(400, 6)
        best = best_predictors(x, x @ torch.randn(6, 3) + 2, hidden=(8,), epochs=1)
        assert best.linear < 1e-5  # the smallest penalty is 1e-6 of the curvature
        assert best.any == best.linear, "one epoch of the MLP is no match"

    def test_what_is_not_linear_takes_the_mlp(self):
        torch.manual_seed(0)
        x = torch.randn(4096, 2)
        best = best_predictors(x, x.abs() - x.abs().mean(), hidden=(64,), epochs=20)
        assert best.linear > 0.95
        assert best.any < 0.5  # twenty epochs of a small MLP do not end at zero

    def test_noise_cannot_be_predicted(self):
        torch.manual_seed(0)
        best = best_predictors(torch.randn(512, 20), torch.randn(512, 4), hidden=(64,), epochs=5)
        assert best.linear == pytest.approx(1, abs=0.05)  # the noise of 64 examples
        assert best.any == pytest.approx(1, abs=0.05)

    def test_examples_that_judge_are_not_fitted(self):
        torch.manual_seed(0)
        x, t = torch.randn(64, 6), torch.randn(64, 3)
        changed = t.clone()
        changed[Parts(num_examples=64).judge] *= -1
        state = torch.get_rng_state()
        one = best_predictors(x, t, hidden=(8,), epochs=2)
        torch.set_rng_state(state)
        other = best_predictors(x, changed, hidden=(8,), epochs=2)
        # |M - t|^2 + |M + t|^2 = 2 |M|^2 + 2 |t|^2: equal only if M is the same, and not zero.
        for a, b in zip(one, other, strict=True):
            assert a**2 + b**2 >= 2
            assert a != b


class TestProbe:
    @pytest.mark.parametrize("name", METHODS)
    def test_gradients_are_backprops_and_predictions_the_nets_own(self, name):
        learner = limit._learner(CONFIG, METHODS[name], 0, DATA)
        for _ in range(3):
            learner.step(*DATA.train.take(torch.arange(16)))
        x, y = DATA.train.take(torch.arange(16))
        before = copy.deepcopy(learner.state_dict())
        seen = probe(learner, DATA.train, torch.arange(20), 16)  # four do not fill a batch
        torch.testing.assert_close(learner.state_dict(), before, rtol=0, atol=0)
        assert list(seen.places) == ["layer1", "layer2", "layer3"]
        assert seen.labels.tolist() == y.tolist()
        weights = list(learner.model.parameters())
        gradients = torch.autograd.grad(F.cross_entropy(learner.model(x), y), weights)
        top = seen.places["layer3"]
        by_hand = (seen.logits.softmax(1) - F.one_hot(y, 3)) @ learner.model.output.weight
        torch.testing.assert_close(top.gradients, by_hand)
        torch.testing.assert_close(
            (seen.logits.softmax(1) - F.one_hot(y, 3)).T @ top.activations / 16, gradients[-2]
        )
        if learner.decoupled is None:
            assert top.predictions is None
            return
        found = sg.diagnostics.alignment(
            learner.decoupled, x, lambda out: F.cross_entropy(out, y), condition=y
        )
        for place, own in zip(seen.places.values(), found.values(), strict=True):
            error = sg.metrics.relative_error(place.predictions, place.gradients)
            torch.testing.assert_close(error, own["relative_error"])

    def test_calibration_error(self):
        sure = torch.tensor([[0.9, 0.1]] * 10)
        labels = torch.tensor([0] * 9 + [1])
        assert calibration_error(sure, labels) == pytest.approx(0, abs=1e-6)  # 0.9 in float32
        assert calibration_error(sure, 1 - labels) == pytest.approx(0.8, abs=1e-6)
        half = torch.tensor([[1.0, 0.0]] * 4)  # confidence 1 belongs to the last bin
        assert calibration_error(half, torch.tensor([0, 0, 1, 1])) == 0.5


class TestStudy:
    def test_tasks(self):
        tasks = EXPERIMENT.tasks(CONFIG)
        arms = {task.arm for task in tasks}
        assert arms == set(EXPERIMENT.arms)
        assert len(tasks) == len(arms) * len(CONFIG.seeds)
        assert len(CONFIG.seeds) >= MIN_SEEDS

    def test_presets(self):
        assert set(PRESETS) == {"smoke", "quick", "full", "paper"}
        assert {task.arm for task in EXPERIMENT.tasks(PRESETS["smoke"])} == set(EXPERIMENT.arms)

    def test_events(self):
        for task in EXPERIMENT.tasks(replace(CONFIG, seeds=(0,))):
            torch.manual_seed(0)
            events = list(task.measure())
            json.dumps(events, allow_nan=False)
            if task.arm == "exact":
                assert [event["step"] for event in events] == [0, 1, 2, 3]
                continue
            assert [event["updates"] for event in events] == [2, 4]
            for event in events:
                assert list(event["interfaces"]) == ["layer1", "layer2", "layer3"]
                for errors in event["interfaces"].values():
                    assert (errors["own"] is None) == (task.arm == "backprop")
                    assert errors["gradient_norm"] > 0
            own = [event["interfaces"]["layer3"]["own"] for event in events]
            assert own[0] is None or own[0] != own[1]

    def test_a_seed_gives_the_same_numbers(self):
        (task, *_) = EXPERIMENT.tasks(CONFIG)
        found = []
        for _ in range(2):
            torch.manual_seed(0)
            found.append(list(task.measure()))
        assert found[0] == found[1]

    def test_what_diverges_says_so(self):
        wild = replace(CONFIG, learning_rate=1e30, methods=("backprop",))
        with pytest.raises(DivergedError, match="after 2 updates"):
            list(EXPERIMENT.tasks(wild)[0].measure())

    @pytest.mark.parametrize(
        "values",
        [
            {"looks_at": ()},
            {"looks_at": (5, 2)},
            {"looks_at": (0, 2)},
            {"num_examples": 70},
            {"hidden": ()},
            {"epochs": 0},
            {"decay_at": (1.5,)},
            {"learning_rate": 0.0},
            {"exact_features": 9},
            {"exact_steps": 0},
        ],
    )
    def test_refused(self, values):
        with pytest.raises(ConfigError, match=next(iter(values))):
            replace(CONFIG, **values)


def record(arm, events, seed=0, ending="finished"):
    run = {"kind": "study", "arm": arm, "label": arm, "seed": seed, "config": {}, "started": ""}
    closing = {"event": ending}
    name = f"runs/{arm}-s{seed}"
    return RunRecord(folder=Path(name), name=name, run=run, events=(*events, closing))


def look(updates, *, best=0.5, with_labels=0.3, own=None, calibration=0.01):
    errors = {
        "own": own,
        "linear": best + 0.01,
        "best": best,
        "linear_with_labels": with_labels + 0.01,
        "best_with_labels": with_labels,
    }
    return {
        "event": "look",
        "updates": updates,
        "accuracy_percent": 90.0,
        "calibration_error": calibration,
        "interfaces": {"layer1": {**errors, "best": 0.1}, "layer2": errors},
    }


def step(number, predicted):
    norms = {"top_gradient": predicted, "predicted": predicted, "predicted_with_labels": 0.9}
    return {"event": "step", "step": number, **norms}


class TestFindings:
    @pytest.mark.parametrize(
        ("last", "verdict"),
        [
            ({"best": 0.95}, "reproduced"),
            ({"best": 0.9}, "not reproduced"),
            ({"best": 0.95, "with_labels": 0.8}, "not reproduced"),
        ],
    )
    def test_whether_it_fades(self, last, verdict):
        events = [look(50), look(300, **last)]
        fine = [look(50), look(300, best=0.95)]
        given = [record("cdni", fine, 0), record("cdni", fine, 2), record("cdni", events, 1)]
        (claim,) = find(given).claims
        assert claim.verdict == verdict
        assert "layer2 after 50 and 300 updates: 0.500 and" in claim.measured

    def test_it_must_rise(self):
        events = [look(50, best=0.99), look(300, best=0.95)]
        (claim,) = find([record("cdni", events, seed) for seed in range(3)]).claims
        assert claim.verdict == "not reproduced"

    @pytest.mark.parametrize(
        ("gap", "verdict"),
        [(0.04, "reproduced"), (0.06, "not reproduced"), (-0.35, "not reproduced")],
    )
    def test_whether_the_net_is_at_its_limit(self, gap, verdict):
        events = [look(50, own=0.5 + gap), look(300, own=0.5)]
        (_, claim) = find([record("dni", events, seed) for seed in range(3)]).claims
        assert claim.verdict == verdict

    @pytest.mark.parametrize(("last", "verdict"), [(1e-9, "reproduced"), (1e-7, "not reproduced")])
    def test_whether_it_is_exactly_zero(self, last, verdict):
        records = [
            record("exact", [step(0, 0.4), step(1, value)], seed)
            for seed, value in enumerate((1e-12, last, 0.0))
        ]
        (claim,) = find(records).claims
        assert claim.verdict == verdict

    def test_what_was_found_bounds_what_there_is_from_above_only(self):
        events = [look(50), look(300, best=0.95)]
        (claim,) = find([record("cdni", events, seed) for seed in range(3)]).claims
        assert "that we fitted" in claim.claim
        assert "only from above" in claim.reason

    def test_seeds_with_a_null_are_left_out(self):
        events = [look(50, own=0.5), look(300, own=0.95, best=0.95)]
        torn = [look(50, own=None), look(300, own=0.95, best=0.95, calibration=None)]
        given = [record("dni", events, seed) for seed in range(3)]
        for claim in find([*given, record("dni", torn, 3)]).claims:
            assert claim.verdict == "reproduced"
            assert claim.measured.endswith("n = 3")
        assert find([record("dni", torn)]).claims == ()

    def test_one_seed_is_too_few(self):
        runs = [
            record("dni", [look(50, own=0.5), look(300, best=0.95, own=0.95)]),
            record("dni", [look(50, own=0.5)], 1, "interrupted"),
            record("exact", [step(0, 0.4), step(1, 0.0)]),
        ]
        claims = find(runs).claims
        assert [claim.verdict for claim in claims] == ["not comparable"] * 3

    def test_tables_and_pictures(self):
        runs = [
            *(record("dni", [look(50, own=1 + s), look(300, own=0.9)], s) for s in (0, 1)),
            record("backprop", [look(50), look(300)]),
            record("exact", [step(0, 0.4), step(1, 0.0)]),
        ]
        found = find(runs)
        (table, _) = found.all_tables()
        assert len(table.rows) == 2 * 2 * 2
        assert table.rows[1][5] == "1.500", "the median of the two seeds' own synthesizers"
        errors, calibration, exact = found.pictures
        panels = errors.data["panels"]
        assert [len(panel["lines"]) for panel in panels] == [5, 5, 4, 4]
        own = panels[1]["lines"][0]
        assert (own["x"], own["y"], own["low"], own["high"]) == (
            [50, 300],
            [1.5, 0.9],
            [1, 0.9],
            [2, 0.9],
        )
        assert calibration.data["panels"][1]["lines"][0]["y"] == [0.75, 0.75]
        assert exact.data["panels"][0]["lines"][1]["y"] == [0.4, 0.0]
        json.dumps(found.to_json(), allow_nan=False)

    def test_nothing_recorded(self):
        assert find([]).all_tables() == []
        assert find([]).pictures == ()


def test_the_folder_goes_from_command_to_page(tmp_path):
    options = RunOptions(preset="test", out=tmp_path, console=Console(file=StringIO()))
    outcome = EXPERIMENT.run(replace(CONFIG, seeds=(0,)), options)
    assert outcome.runs == {"finished": 5}
    page = EXPERIMENT.write_page(tmp_path, read_records(tmp_path)).read_text()
    assert page.count("data:image/svg+xml") >= 3
