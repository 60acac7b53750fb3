import math

import pytest
import torch
from tiny import tiny_data, tiny_learner
from torch import nn

from synthgrad.bench.running import evaluation
from synthgrad.bench.running.evaluation import evaluate
from synthgrad.bench.running.fingerprint import fingerprint

DATA = tiny_data()


class Constant(nn.Module):
    """Says class 1 with odds of e to 1 to 1."""

    def forward(self, inputs):
        return torch.tensor([0.0, 1.0, 0.0]).expand(len(inputs), 3)


def test_loss_and_accuracy_of_a_known_model():
    score = evaluate(Constant(), DATA.validation)
    total = math.log(math.e + 2)
    assert score.accuracy == pytest.approx(100 / 3)
    assert score.loss == pytest.approx((total + total + total - 1) / 3, rel=1e-6)


def test_the_size_of_the_batches_does_not_matter(monkeypatch):
    model = tiny_learner().model
    whole = evaluate(model, DATA.validation)
    monkeypatch.setattr(evaluation, "_BATCH_SIZE", 7)
    parts = evaluate(model, DATA.validation)
    assert parts.accuracy == whole.accuracy
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)


@pytest.mark.parametrize("name", ["backprop", "cdni", "cdni-p05"])
def test_nothing_is_trained(name):
    learner = tiny_learner(name)
    before = fingerprint(learner.state_dict(), torch.get_rng_state())
    evaluate(learner.model, DATA.validation)
    assert fingerprint(learner.state_dict(), torch.get_rng_state()) == before


def test_each_module_gets_its_mode_back():
    model = tiny_learner().model
    model[0].eval()
    before = [module.training for module in model.modules()]
    evaluate(model, DATA.validation)
    assert [module.training for module in model.modules()] == before
    assert any(before)
    assert not all(before)


def test_batch_norm_uses_its_running_statistics():
    model = tiny_learner().model
    one = evaluate(model, DATA.validation)
    with torch.no_grad():
        model[0][2].running_mean += 1.0
    assert evaluate(model, DATA.validation) != one
