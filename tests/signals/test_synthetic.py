"""The options of SyntheticGradient, and the units."""

import pytest
import torch

import synthgrad as sg
from synthgrad.errors import ConfigError
from synthgrad.signals import Lock, Need, Units


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix": -0.1}, r"mix=-0.1 must lie in \[0, 1\]"),
        ({"mix": 1.5}, r"mix=1.5 must lie in \[0, 1\]"),
        ({"mix": float("nan")}, "mix=nan"),
        ({"fit_first": -1}, "fit_first=-1"),
        ({"scale": 0.0}, r"scale=0.0 must be positive.*NoSignal"),
        ({"scale": float("nan")}, "scale=nan"),
        ({"synthesizer": "cubic"}, "synthesizer='cubic' is unknown"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        sg.SyntheticGradient(**options)


def test_a_prediction_is_emitted_at_its_scale():
    prediction, units = torch.tensor([[2.0], [-4.0]]), Units.of(2)
    assert sg.SyntheticGradient().emit(prediction, None, units, 0).tolist() == [[1.0], [-2.0]]
    signal = sg.SyntheticGradient(scale=0.25)
    assert signal.emit(prediction, None, units, 0).tolist() == [[0.25], [-0.5]]


@pytest.mark.parametrize("mix", [0.0, 0.25, 0.5, 1.0])
def test_mix(mix):
    prediction, target, units = torch.randn(4, 3), torch.randn(4, 3), Units.of(4)
    signal = sg.SyntheticGradient(mix=mix, scale=0.5)
    expected = (1 - mix) * 0.5 * prediction / 4 + mix * target
    torch.testing.assert_close(signal.emit(prediction, target, units, 0), expected)


def test_the_ends_of_mix_are_branches():
    """Not arithmetic: what is not asked for may be missing, or not a number."""
    nan = torch.full((2, 2), float("nan"))
    ones = torch.ones(2, 2)
    assert torch.equal(sg.SyntheticGradient(mix=0.0).emit(ones, nan, Units.of(1), 0), ones)
    assert sg.SyntheticGradient(mix=1.0).emit(nan, ones, Units.of(1), 0) is ones
    assert sg.SyntheticGradient(mix=0.0).needs is Need.NOTHING
    assert sg.SyntheticGradient(mix=0.1).needs is Need.GRADIENT_FROM_ABOVE
    assert sg.SyntheticGradient().opens == {Lock.UPDATE, Lock.BACKWARD}


def test_a_missing_true_gradient_counts_as_zero():
    """A tensor that the stage above does not use has no gradient."""
    ones = torch.ones(2, 2)
    emitted = sg.SyntheticGradient(mix=0.25).emit(ones, None, Units.of(1), 0)
    assert emitted.tolist() == [[0.75, 0.75]] * 2
    assert sg.SyntheticGradient(mix=1.0).emit(ones, None, Units.of(1), 0) is None


def test_fit_first():
    signal, ones = sg.SyntheticGradient(fit_first=2), torch.ones(2, 2)
    emitted = [signal.emit(ones, None, Units.of(1), k) for k in range(4)]
    assert [bool(e.any()) for e in emitted] == [False, False, True, True]
    assert [signal.is_ready(k) for k in range(4)] == [False, False, True, True]
    mixed = sg.SyntheticGradient(fit_first=2, mix=0.5).emit(ones, 4 * ones, Units.of(1), 0)
    assert mixed.tolist() == [[2.0, 2.0]] * 2


def test_units():
    assert Units.of(4).factor == 0.25
    assert Units.of(4, mean=False).factor == 1
    assert Units.of(4, loss_scale=8.0).factor == 2
    assert Units.of(0).factor == 1
    assert Units.of(4, loss_scale=torch.tensor(8.0)).factor == torch.tensor(2.0)


def test_the_fit_of_half_precision_is_computed_wider():
    """The target of a large mean is subnormal in half precision; its rounding is not added to."""
    prediction = torch.full((4096, 1), 0.1, dtype=torch.float16)
    target = torch.full((4096, 1), 2.0**-16, dtype=torch.float16)
    fit = sg.SyntheticGradient().fit_gradient(prediction, target, Units.of(4096, loss_scale=1024.0))
    exact = (prediction.double() - target.double() * 4096 / 1024) * 2 / 4096 * 1024
    torch.testing.assert_close(fit, exact.half(), rtol=0, atol=0)


def test_the_synthesizer_is_built_for_the_activation():
    example = torch.zeros(2, 5, dtype=torch.float64)
    module = sg.SyntheticGradient(condition=sg.OneHot(3)).build(example)
    assert module.last.weight.shape == (5, 8)
    assert module.last.weight.dtype is torch.float64
