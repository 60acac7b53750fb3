"""BP(lambda) against its rivals: what is compared, what is trained, what the records then show."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.tiny import tiny_data
from synthgrad.bench.records.events import RunRecord
from synthgrad.data import rows
from synthgrad.errors import ConfigError, DivergedError
from synthgrad.experiments.accuracy import MIN_SEEDS
from synthgrad.experiments.pemberton2024 import copy_repeat, seqmnist
from synthgrad.experiments.pemberton2024.arms import ARMS, N_STEP, TRUNCATED, bp
from synthgrad.experiments.pemberton2024.held import hold
from synthgrad.experiments.pemberton2024.training import SequenceLearner

DATA = tiny_data()
DIGITS = seqmnist.SeqMnistConfig(
    horizon=2, units=4, updates=4, num_looks=2, num_probed=6, batch_size=8
)
PATTERNS = copy_repeat.CopyRepeatConfig(units=4, updates=4, num_looks=2, num_probed=6, batch_size=8)
BOTH = [(seqmnist, DIGITS), (copy_repeat, PATTERNS)]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(seqmnist, "load_once", lambda *_: DATA)


def build(name, *, features=3, horizon=2, scale=1.0, gamma=0.9):
    torch.manual_seed(0)
    core = nn.LSTM(features, 4).double()
    return ARMS[name].build(core, horizon=horizon, scale=scale, gamma=gamma)


def mean_square(outputs, steps):
    return (outputs.square().sum(2) * (steps.stop == 7)).mean(1).sum()


INPUTS = torch.randn(7, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class TestArms:
    def test_they_differ_in_what_they_say(self):
        assert build("full-bptt").horizon > 10**6
        assert build(TRUNCATED).synthesizer is None
        n_step, none, all_of_it = (build(a, scale=0.1) for a in (N_STEP, bp(0.0), bp(1.0)))
        assert (n_step.gamma, none.gamma, all_of_it.gamma) == (0.1, 0.9, 0.9)
        assert (none.signal.trace_decay, all_of_it.signal.trace_decay) == (0.0, 1.0)
        assert build(bp(1.0, sees_label=True)).signal.conditioned_on.size == 10

    def test_all_have_equally_many_updates_and_the_same_start(self):
        """The core's first update is by truncated BPTT's gradient: synthesizers begin at zero."""
        found = {}
        for name in (TRUNCATED, N_STEP, bp(0.0), bp(1.0)):
            rnn = build(name)
            learner = SequenceLearner(rnn, 2, learning_rate=0.1, synthesizer_rate=0.1)
            learner.update(INPUTS, mean_square)
            found[name] = [p.detach() for p in rnn.core.parameters()]
            assert {int(s["step"]) for s in learner.optimizer.state.values()} == {1}
        for weights in found.values():
            torch.testing.assert_close(weights, found[TRUNCATED], rtol=0, atol=0)


class TestHeld:
    def test_gradients_of_the_core_are_those_of_training(self):
        rnn = build(bp(0.0), scale=0.3)
        for p in rnn.synthesizer.parameters():
            nn.init.normal_(p, std=0.3)
        carry = None
        for chunk in rnn.chunks(INPUTS):
            outputs, carry = rnn(chunk.inputs, carry, ends=chunk.ends)
            mean_square(outputs, chunk.steps).backward()
        trained = torch.cat([p.grad.flatten() for p in rnn.core.parameters()])
        rnn.zero_grad()
        mean_square(rnn.core(INPUTS)[0][-1:], slice(6, 7)).backward()
        true = torch.cat([p.grad.flatten() for p in rnn.core.parameters()])
        held = hold(rnn, INPUTS, mean_square, scale=0.3)
        expected = F.cosine_similarity(trained, true, dim=0).item()
        assert held.core_cosine == pytest.approx(expected, abs=1e-10)
        assert abs(expected) < 0.999

    def test_an_oracle_points_right_and_has_the_right_size(self):
        """A linear map fitted to more unknowns than examples is an oracle on these."""
        rnn = build(bp(0.0), horizon=4)
        state = rnn.core(INPUTS[:4])[1]
        flat = torch.cat([s[0] for s in state], 1).detach().requires_grad_()
        start = tuple(s[None].contiguous() for s in flat.chunk(2, 1))
        mean_square(rnn.core(INPUTS[4:], start)[0], slice(4, 7)).backward()
        with torch.no_grad():
            weight = torch.linalg.lstsq(flat, flat.grad * 5, driver="gelsd").solution.T
            rnn.synthesizer.last.weight.copy_(weight)
            rnn.synthesizer.last.bias.zero_()
        held = hold(rnn, INPUTS, mean_square, scale=1.0)
        # Solved for, in float64.
        assert held.cosines == (pytest.approx(1, abs=1e-6),)
        assert held.norm_ratios == (pytest.approx(1, abs=1e-6),)
        assert held.core_cosine == pytest.approx(1, abs=1e-6)

    @pytest.mark.parametrize("name", ["full-bptt", TRUNCATED])
    def test_without_a_synthesizer_there_is_no_cosine_at_cuts(self, name):
        held = hold(build(name), INPUTS, mean_square, scale=1.0)
        assert held.cosines == held.norm_ratios == ()
        assert (held.core_cosine == pytest.approx(1, abs=1e-12)) == (name == "full-bptt")

    def test_nothing_is_trained_or_fitted(self):
        rnn = build(bp(1.0))
        hold(rnn, INPUTS, mean_square, scale=1.0)
        assert all(p.grad is None for p in rnn.parameters())
        assert rnn.num_fits == 0


@pytest.mark.parametrize(("study", "config"), BOTH, ids=["seqmnist", "copy-repeat"])
class TestStudies:
    def test_tasks_and_presets(self, study, config):
        tasks = study.EXPERIMENT.tasks(config)
        assert {task.arm for task in tasks} == set(study.EXPERIMENT.arms)
        assert len(tasks) == len(study.EXPERIMENT.arms) * len(config.seeds)
        assert len(study.PRESETS["full"].seeds) >= MIN_SEEDS
        assert set(study.PRESETS) == {"smoke", "quick", "full", "paper"}

    def test_events(self, study, config):
        for task in study.EXPERIMENT.tasks(replace(config, seeds=(0,))):
            *looks, last = task.measure()
            json.dumps([*looks, last], allow_nan=False)
            assert [look["updates"] for look in looks] == [2, 4]
            assert last["event"] in ("test", "reached")
            has_cuts = task.arm not in ("full-bptt", TRUNCATED)
            assert all(bool(look["cosines"]) == has_cuts for look in looks)

    def test_a_seed_gives_the_same_numbers(self, study, config):
        task = study.EXPERIMENT.tasks(config)[-1]
        assert list(task.measure()) == list(task.measure())

    def test_what_diverges_says_so(self, study, config):
        wild = replace(config, learning_rate=1e39, seeds=(0,))
        with pytest.raises(DivergedError, match=r"after [24] updates"):
            [*study.EXPERIMENT.tasks(wild)[0].measure()]

    @pytest.mark.parametrize(
        "values",
        [{"arms": ("dni",)}, {"num_looks": 5}, {"horizon": 0}, {"learning_rate": 0.0}],
    )
    def test_refused(self, study, config, values):
        with pytest.raises(ConfigError, match=next(iter(values))):
            replace(config, **values)

    @pytest.mark.parametrize(("gain", "verdict"), [(1, "reproduced"), (-1, "not reproduced")])
    def test_verdicts_follow_the_order_of_the_arms(self, study, config, gain, verdict):
        order = [TRUNCATED, N_STEP, *map(bp, (0.0, 0.5, 0.9, 1.0))]
        records = [
            record(arm, seed, 50 + gain * place + seed)
            for place, arm in enumerate(order)
            for seed in range(MIN_SEEDS)
        ]
        found = study.EXPERIMENT.findings(records)
        assert {c.verdict for c in found.claims} == {verdict}
        assert len(found.claims) == 5
        json.dumps(found.to_json(), allow_nan=False)
        one_seed = study.EXPERIMENT.findings([r for r in records if r.seed == 0])
        assert {c.verdict for c in one_seed.claims} == {"not comparable"}

    def test_a_failed_run_counts_against_its_arm(self, study, config):
        records = [
            record(arm, seed, score, ending)
            for arm, score, ending in [(bp(1.0), 90, "finished"), (bp(0.0), 50, "finished")]
            for seed in range(MIN_SEEDS)
        ]
        records[0] = record(bp(1.0), 0, 90, "failed")
        verdicts = {c.verdict for c in study.EXPERIMENT.findings(records).claims[:1]}
        assert verdicts == {"not reproduced"}

    def test_no_records_show_nothing(self, study, config):
        assert study.EXPERIMENT.findings([]).claims == ()


def record(arm, seed, score, ending="finished"):
    run = {"kind": "study", "arm": arm, "label": arm, "seed": seed, "config": {}, "started": ""}
    look = {
        "event": "look",
        "updates": 2,
        "validation_accuracy_percent": score,
        "modelled": score,
        "bits": 0.5,
        "cosines": [] if arm == TRUNCATED else [score / 200, score / 100],
        "norm_ratios": [] if arm == TRUNCATED else [1.0, 1.0],
        "core_cosine": score / 100,
    }
    ends = ({"event": "test", "accuracy_percent": score}, {"event": "reached", "modelled": score})
    name = f"runs/{arm}-s{seed}"
    return RunRecord(folder=Path(name), name=name, run=run, events=(look, *ends, {"event": ending}))


@pytest.mark.parametrize(("most", "verdict"), [(60, "reproduced"), (40, "not reproduced")])
def test_what_lambda_does_where_synthesizers_see_labels(most, verdict):
    scores = {bp(1.0, sees_label=True): most, bp(0.0, sees_label=True): 50}
    records = [record(arm, seed, scores[arm]) for arm in scores for seed in range(MIN_SEEDS)]
    accuracy, first_cut = seqmnist.EXPERIMENT.findings(records).claims
    assert accuracy.verdict == first_cut.verdict == verdict
    assert f"{(most - 50) / 200:+.2f}" in first_cut.measured


def test_digits_are_named_after_their_last_row():
    loss = seqmnist._loss(nn.Linear(4, 3), torch.tensor([0, 1]), 28)
    outputs = torch.randn(2, 2, 4, requires_grad=True)
    assert loss(outputs, slice(24, 26)).item() == 0
    loss(outputs, slice(26, 28)).backward()
    assert outputs.grad[0].abs().max() == 0
    assert outputs.grad[1].abs().max() > 0


def test_accuracy_is_over_the_digits_asked_for():
    rnn = build(TRUNCATED, features=DATA.input_shape[2])
    rnn = rnn.float()
    learner = SequenceLearner(rnn, 3, learning_rate=0.1, synthesizer_rate=0.1)
    images, labels = DATA.validation.take(torch.arange(5))
    right = learner.head(learner.run(rows(images))[-1]).argmax(1) == labels
    assert seqmnist.accuracy_percent(learner, DATA.validation, 5) == 100 * right.float().mean()
