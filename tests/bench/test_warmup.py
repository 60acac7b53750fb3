import pytest
import torch
from tiny import tiny_data, tiny_learner, tiny_model
from torch import nn

from synthgrad.bench.clock import Stopwatch
from synthgrad.bench.running.fingerprint import fingerprint
from synthgrad.bench.running.warmup import dummy_batch, warm_up
from synthgrad.errors import EngineError

BATCH = dummy_batch(tiny_data(), 16)


def with_dropout():
    return nn.Sequential(*tiny_model()[:2], nn.Sequential(nn.Dropout(), *tiny_model()[2:]))


@pytest.mark.parametrize("name", ["backprop", "no-signal", "cdni", "cdni-p05"])
def test_everything_is_restored(name):
    learner = tiny_learner(name, model=with_dropout)
    before = fingerprint(learner.state_dict(), torch.get_rng_state())
    warm_up(learner, BATCH, Stopwatch(), num_steps=3)
    assert fingerprint(learner.state_dict(), torch.get_rng_state()) == before


def test_the_state_of_an_optimizer_that_has_one_is_restored():
    learner = tiny_learner()
    learner.step(*BATCH)
    before = fingerprint(learner.state_dict())
    warm_up(learner, BATCH, Stopwatch(), num_steps=2)
    assert fingerprint(learner.state_dict()) == before


def test_what_cannot_be_restored_is_an_error():
    class Counting(nn.Linear):
        calls = 0

        def forward(self, inputs):
            self.calls += 1
            return super().forward(inputs)

        def get_extra_state(self):
            return torch.tensor(self.calls)

        def set_extra_state(self, state):
            pass

    def model():
        return nn.Sequential(nn.Flatten(), Counting(16, 3))

    learner = tiny_learner(model=model)
    with pytest.raises(EngineError, match="left a trace"):
        warm_up(learner, BATCH, Stopwatch(), num_steps=1)


def test_the_clock_runs_during_the_steps_only(monkeypatch):
    seen = {}
    watch = Stopwatch()
    learner = tiny_learner()
    step, load = learner.step, learner.load_state_dict
    monkeypatch.setattr(learner, "step", lambda *batch: (note("step"), step(*batch)))
    monkeypatch.setattr(learner, "load_state_dict", lambda state: (note("restore"), load(state)))

    def note(what):
        seen.setdefault(what, set()).add(watch.running)

    watch.start()
    warm_up(learner, BATCH, watch, num_steps=3)
    assert watch.running
    assert seen == {"step": {True}, "restore": {False}}


def test_dummy_data_have_the_shape_of_the_data_and_are_the_same_each_time():
    inputs, labels = dummy_batch(tiny_data(), 7)
    assert inputs.shape == (7, 1, 4, 4)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    state = torch.get_rng_state()
    torch.testing.assert_close(dummy_batch(tiny_data(), 7)[0], inputs, rtol=0, atol=0)
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
