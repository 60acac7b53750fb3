"""Stages are timed without being changed; no test asserts on a time."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import synthgrad as sg
from synthgrad.errors import ConfigError
from synthgrad.experiments.pipeline.stage_times import with_signal_in_time
from synthgrad.planning import Link, StageTimes, measure_stages
from synthgrad.planning.meter import StageMeter

SGD = partial(torch.optim.SGD, lr=0.1)


def make_chain(signal):
    layers = [nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)) for _ in range(3)]
    model = nn.Sequential(*layers, nn.Linear(6, 4))
    return sg.Chain.from_sequential(
        model, stages=3, signal=signal, example_inputs=torch.randn(2, 6)
    )


@pytest.mark.parametrize(
    "signal",
    [sg.SyntheticGradient(condition=sg.OneHot(4)), sg.LocalLoss(num_classes=4), sg.NoSignal()],
    ids=["cdni", "local", "none"],
)
def test_a_chain_is_timed_and_stays_as_it_was(signal):
    chain = make_chain(signal)
    before = copy.deepcopy(chain.state_dict())
    x, y = torch.randn(16, 6), torch.randint(0, 4, (16,))
    found = measure_stages(
        chain,
        x,
        y,
        loss=nn.functional.cross_entropy,
        optimizer=SGD,
        num_classes=4,
        rounds=2,
        link=Link(latency_s=0.5),
    )
    torch.testing.assert_close(chain.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None for p in chain.parameters())
    assert found.batch_size == 16
    assert found.link.latency_s == 0.5
    first, inner, last = found.stages
    assert (first.activation_bytes, inner.activation_bytes) == (16 * 6 * 4, 16 * 6 * 4)
    assert last.activation_bytes == 0
    assert (last.predict_s, last.fit_s, last.local_s) == (0, 0, 0)
    assert first.backward_input_s == 0, "the network's inputs need no gradient"
    assert inner.parameter_bytes == (6 * 6 + 6 + 2 * 6) * 4
    assert all(stage.saved_bytes > 0 and stage.forward_s > 0 for stage in found.stages)
    assert (inner.fit_s > 0) == isinstance(signal, sg.SyntheticGradient) or inner.fit_s < 1e-3
    assert "1 thread" in found.source


@pytest.mark.parametrize(("size", "rounds"), [(1, 1), (4, 0)])
def test_too_little_to_time(size, rounds):
    x, y = torch.randn(size, 6), torch.zeros(size, dtype=torch.long)
    with pytest.raises(ConfigError, match="give 2 or more and 1 or more"):
        measure_stages(
            make_chain(sg.NoSignal()),
            x,
            y,
            loss=nn.functional.cross_entropy,
            optimizer=SGD,
            rounds=rounds,
        )


def test_a_stage_timed_in_whole_batches_alone_has_no_cost_of_a_pass():
    stage = next(iter(make_chain(sg.NoSignal())))
    x, y = torch.randn(16, 6), torch.randint(0, 4, (16,))
    meter = StageMeter(
        stage, x, y, first=True, loss=nn.functional.cross_entropy, optimizer=SGD, in_parts=False
    )
    for _ in range(3):
        meter.go()
    assert meter.times().overhead_s == 0


def test_a_signal_in_time_costs_what_a_pass_takes_longer_with_it():
    plain = StageTimes(forward_s=1.0, backward_weight_s=2.0, update_s=0.5, predict_s=0.25)
    longer = StageTimes(forward_s=1.5, backward_weight_s=2.75, update_s=0.75, predict_s=9.0)
    found = with_signal_in_time(plain, longer)
    assert found == replace(plain, predict_s=0.25 + 1.5, local_s=1.5)
    assert with_signal_in_time(longer, plain) == longer, (
        "noise can't make it cost less than nothing"
    )


def test_a_meter_that_works_on_trains():
    torch.manual_seed(0)
    chain = make_chain(sg.LocalLoss(num_classes=4))
    x, y = torch.randn(16, 6), torch.tensor([0, 1, 2, 3] * 4)
    for k, stage in enumerate(chain):
        loss = nn.functional.cross_entropy
        meter = StageMeter(stage, x, y, first=k == 0, loss=loss, optimizer=SGD)
        before = [p.clone() for p in stage.parameters()]
        meter.work_on()
        assert any(p.ne(b).any() for p, b in zip(stage.parameters(), before, strict=True))
        meter.go()
        meter.work_on()
        meter.go()
        assert meter.times().forward_s > 0
