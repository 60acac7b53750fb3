"""What a synthesizer sees of the labels: one-hot features, label planes, and bad labels."""

import pytest
import torch

import synthgrad as sg
from synthgrad.errors import ConditionError, ConfigError
from synthgrad.synthesizers.conditioning import join_features, join_planes

LABELS = torch.tensor([2, 0, 1, 2])


def test_one_hot():
    code = sg.OneHot(3).encode(LABELS, torch.float64)
    expected = torch.nn.functional.one_hot(LABELS, 3).double()
    torch.testing.assert_close(code, expected, rtol=0, atol=0)
    assert sg.OneHot(3).size == 3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_any_integer_labels(dtype):
    code = sg.OneHot(200).encode(LABELS.to(dtype), torch.float32)
    assert code.argmax(-1).tolist() == LABELS.tolist()


def test_labels_a_place():
    labels = torch.tensor([[0, 1], [2, 2]])
    assert sg.OneHot(3).encode(labels, torch.float32).shape == (2, 2, 3)


def test_no_labels_at_all():
    assert sg.OneHot(3).encode(LABELS[:0], torch.float32).shape == (0, 3)


@pytest.mark.parametrize(("bad", "low", "high"), [([0, 3], 0, 3), ([-1, 1], -1, 1)])
def test_labels_out_of_range_are_refused(bad, low, high):
    message = rf"labels from {low} to {high}; OneHot\(3\) takes 0 to 2"
    with pytest.raises(ConditionError, match=message):
        sg.OneHot(3).encode(torch.tensor(bad), torch.float32)
    with pytest.raises(ConditionError, match=message):
        sg.OneHot(3).check(torch.tensor(bad))


@pytest.mark.parametrize("labels", [torch.eye(3), torch.tensor([True, False])])
def test_labels_that_are_no_integers_are_refused(labels):
    with pytest.raises(ConditionError, match=r"takes integer class labels.*argmax"):
        sg.OneHot(3).encode(labels, torch.float32)


@pytest.mark.parametrize("count", [0, -3])
def test_a_number_of_classes_that_cannot_be(count):
    with pytest.raises(ConfigError, match="needs at least one class"):
        sg.OneHot(count)


def test_features_are_appended():
    code = sg.OneHot(3).encode(LABELS, torch.float32)
    h = torch.randn(4, 5)
    torch.testing.assert_close(join_features(h, code), torch.cat([h, code], 1), rtol=0, atol=0)
    assert join_features(h, None) is h
    sequence = torch.randn(4, 6, 5)
    joined = join_features(sequence, code)
    assert joined.shape == (4, 6, 8)
    for time in range(6):
        torch.testing.assert_close(joined[:, time, 5:], code, rtol=0, atol=0)


def test_labels_a_place_are_appended_there():
    labels = torch.tensor([[0, 1], [2, 2]])
    code = sg.OneHot(3).encode(labels, torch.float32)
    joined = join_features(torch.zeros(2, 2, 5), code)
    assert joined[..., 5:].argmax(-1).tolist() == labels.tolist()


def test_planes_are_constant():
    code = sg.OneHot(3).encode(LABELS, torch.float32)
    maps = torch.randn(4, 2, 6, 7)
    joined = join_planes(maps, code)
    assert joined.shape == (4, 5, 6, 7)
    torch.testing.assert_close(joined[:, :2], maps, rtol=0, atol=0)
    for row in range(6):
        for column in range(7):
            torch.testing.assert_close(joined[:, 2:, row, column], code, rtol=0, atol=0)
    assert join_planes(maps, None) is maps


@pytest.mark.parametrize(
    ("join", "labels", "h", "mend"),
    [
        (join_features, (4, 1), (4, 5), r"shape \(4,\)\."),
        (join_features, (4, 3), (4, 6, 5), r"shape \(4,\), or one a place, shape \(4, 6\)"),
        (join_planes, (4, 6, 7), (4, 2, 6, 7), r"shape \(4,\)\."),
    ],
)
def test_labels_of_another_shape_are_refused(join, labels, h, mend):
    code = torch.zeros(*labels, 3)
    with pytest.raises(ConditionError, match=mend):
        join(torch.zeros(h), code)
