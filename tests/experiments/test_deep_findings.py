"""The verdict on 50 layers: only where what backprop does for the lower half shows."""

import pytest
from fake_arms import summary

from synthgrad.experiments.czarnecki2017.deep import _claims


def verdict(num_seeds=3, **accuracies):
    arms = {
        name.replace("_", "-"): summary(name, (accuracy,) * num_seeds)
        for name, accuracy in accuracies.items()
    }
    [claim] = _claims({"hidden-50": arms}, {"hidden-50": 50.0})
    return claim.verdict


@pytest.mark.parametrize(
    ("backprop", "cdni", "no_signal", "expected"),
    [
        (97.0, 96.5, 80.0, "reproduced"),
        (97.0, 95.0, 80.0, "not reproduced"),
        (11.0, 11.0, 11.0, "not comparable"),  # all at chance
        (97.0, 96.5, 95.0, "not comparable"),  # the lower half makes no difference
        (14.0, 14.0, 5.0, "not comparable"),  # chance, though above the other
    ],
)
def test_verdicts(backprop, cdni, no_signal, expected):
    assert verdict(backprop=backprop, cdni=cdni, no_signal=no_signal) == expected


def test_without_the_lower_half_alone_or_with_few_seeds_there_is_none():
    assert verdict(backprop=97.0, cdni=96.5) == "not comparable"
    assert verdict(2, backprop=97.0, cdni=96.5, no_signal=80.0) == "not comparable"
