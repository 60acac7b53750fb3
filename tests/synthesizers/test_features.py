"""Conditions that are no classes: features of one's own, in a network and at a cut in time."""

import pytest
import torch
from torch import nn

import synthgrad as sg
from synthgrad.errors import ConditionError, ConfigError


def test_a_number_of_features_is_positive():
    with pytest.raises(ConfigError, match="at least one"):
        sg.Features(0)


@pytest.mark.parametrize("shape", [(2,), (4, 3), ()])
def test_features_of_another_shape_are_refused(shape):
    with pytest.raises(ConditionError, match=r"\[batch, ..., 2\]"):
        sg.Features(2).encode(torch.zeros(shape), torch.float32)


def test_features_carry_no_graph():
    values = torch.randn(3, 2, requires_grad=True)
    code = sg.Features(2).encode(values, torch.float64)
    assert not code.requires_grad
    assert code.dtype == torch.float64


def test_a_synthesizer_in_a_network_sees_them():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    signal = sg.SyntheticGradient(condition=sg.Features(2), synthesizer="linear")
    net = sg.decouple(model, ["1"], signal=signal, example_inputs=torch.randn(2, 4))
    seen = torch.randn(6, 2)
    net(torch.randn(6, 4), condition=seen).square().mean().backward()
    (weight,) = (p for p in net.synthesizer_parameters() if p.dim() == 2)
    assert weight.shape == (5, 7)
    assert weight.grad[:, -2:].any()


def test_a_synthesizer_at_a_cut_in_time_sees_the_next_input():
    signal = sg.SyntheticGradient(condition=sg.Features(3))
    rnn = sg.recurrent.TruncatedBPTT(nn.GRU(3, 5), horizon=2, signal=signal)
    x, carry = torch.randn(6, 4, 3), None
    for chunk in rnn.chunks(x):
        upcoming = x[min(chunk.steps.stop, len(x) - 1)]
        outputs, carry = rnn(chunk.inputs, carry, ends=chunk.ends, condition=upcoming)
        outputs.square().mean().backward()
    assert rnn.synthesizer.last.weight.grad[:, -3:].any()
