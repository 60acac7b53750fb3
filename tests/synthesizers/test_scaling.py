"""Normalized targets: what the inner synthesizer is fitted to, and the running scale."""

import pytest
import torch
from torch import nn

import synthgrad as sg
from synthgrad.signals import Units
from synthgrad.synthesizers import NormalizedSynthesizer

SIGNAL = sg.SyntheticGradient(normalize_targets=True)


def made(scale: float | None = None) -> NormalizedSynthesizer:
    module = SIGNAL.build(torch.zeros(2, 5, dtype=torch.float64))
    assert isinstance(module, NormalizedSynthesizer)
    for p in module.parameters():
        nn.init.normal_(p)
    if scale is not None:
        module.mean_square.fill_(scale**2)
    return module


def test_without_a_target_the_scale_is_one():
    module, h = made(), torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(module(h, None), module.inner(h, None), rtol=0, atol=0)


def test_the_inner_synthesizer_regresses_on_the_target_over_the_scale():
    module, units = made(0.25), Units.of(4)
    h, target = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    prediction = module(h, None)
    torch.testing.assert_close(prediction, 0.25 * module.inner(h, None), rtol=0, atol=0)
    found = torch.autograd.grad(
        prediction,
        list(module.parameters()),
        SIGNAL.fit_gradient(prediction.detach(), target * units.factor, units),
    )
    loss = (module.inner(h, None) - target / 0.25).square().sum() / 4
    expected = torch.autograd.grad(loss, list(module.parameters()))
    # Not exact: divided after the multiplication instead of before.
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_scale_is_the_running_root_mean_square_in_per_example_units():
    module, units = made(), Units.of(2)
    SIGNAL.observe(module, torch.full((2, 5), 3.0, dtype=torch.float64) * units.factor, units)
    assert float(module.mean_square) == 9.0
    SIGNAL.observe(module, torch.full((2, 5), 1.0, dtype=torch.float64) * units.factor, units)
    assert float(module.mean_square) == pytest.approx(0.99 * 9.0 + 0.01, rel=1e-12)


@pytest.mark.parametrize("wrong", [float("inf"), float("nan")])
@pytest.mark.parametrize("seen", [0.0, 9.0])
def test_an_overflow_is_left_out(wrong, seen):
    module = made()
    module.mean_square.fill_(seen)
    module.observe(torch.tensor([[1.0, wrong]], dtype=torch.float64))
    assert float(module.mean_square) == seen


@pytest.mark.parametrize("size", [1e-4, 500.0])
def test_squares_are_taken_in_single_precision(size):
    """In half precision the first would be zero, and the second infinite."""
    module = SIGNAL.build(torch.zeros(2, 5, dtype=torch.float16))
    units = Units.of(1)
    SIGNAL.observe(module, torch.full((2, 5), size, dtype=torch.float16), units)
    # Half precision keeps 11 bits of the target.
    assert float(module.mean_square) == pytest.approx(size**2, rel=2e-3)
    assert module.mean_square.dtype is torch.float32
    assert module(torch.zeros(2, 5, dtype=torch.float16), None).dtype is torch.float16


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_in_a_net_every_fit_moves_the_scale_and_it_is_saved(size):
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    net = sg.decouple(model, ["0"], example_inputs=x, signal=SIGNAL)
    (size * net(x).sum(1).mean()).backward()
    (module,) = net.synthesizers["0"]
    true = size * model[1].weight.sum(0)  # the same for each example
    torch.testing.assert_close(module.mean_square, true.square().mean(), rtol=1e-12, atol=0)
    assert any(name.endswith("mean_square") for name in net.state_dict())
