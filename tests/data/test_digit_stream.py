from itertools import islice

import pytest
import torch

from synthgrad.data import DigitStream, Split
from synthgrad.errors import ConfigError


def make_stream(period=3, batch_size=4, seed=0, num_digits=20):
    labels = torch.arange(num_digits) % 10
    split = Split(pixels=labels.byte().reshape(-1, 1, 1, 1), labels=labels)
    return DigitStream(split, batch_size=batch_size, period=period, seed=seed)


def values(stream, number):
    return [
        [None if t is None else t.tolist() for t in (s.labels, s.num_odd, s.num_threes)]
        for s in islice(stream, number)
    ]


@pytest.mark.parametrize("period", [1, 2, 3])
def test_counts_are_those_of_a_loop_over_the_digits(period):
    seen = []
    for number, step in enumerate(islice(make_stream(period), 4 * period**2), start=1):
        seen.append(step.labels.tolist())
        if number % period:
            assert step.num_odd is None
        else:
            digits = list(zip(*seen[-period:], strict=True))
            assert step.num_odd.tolist() == [sum(d % 2 for d in row) for row in digits]
        if number % period**2:
            assert step.num_threes is None
        else:
            digits = list(zip(*seen[-(period**2) :], strict=True))
            assert step.num_threes.tolist() == [row.count(3) for row in digits]


def test_images_belong_to_their_labels():
    for step in islice(make_stream(), 10):
        torch.testing.assert_close(step.images.flatten(), step.labels / 255, rtol=0, atol=0)


def test_every_digit_is_drawn_and_no_block_or_row_repeats_another():
    steps = values(make_stream(), 90)
    labels = torch.tensor([step[0] for step in steps])
    assert labels.unique().tolist() == list(range(10))
    blocks = {tuple(block.flatten().tolist()) for block in labels.split(9)}
    assert len(blocks) == 10
    assert len({tuple(row.tolist()) for row in labels.t()}) == 4


def test_digits_follow_from_the_seed():
    assert values(make_stream(seed=1), 20) == values(make_stream(seed=1), 20)
    assert values(make_stream(seed=1), 20) != values(make_stream(seed=2), 20)


@pytest.mark.parametrize("stop", [0, 1, 3, 8, 9, 10, 18])
def test_resumed_stream_equals_the_uninterrupted_one(stop):
    whole, first, resumed = make_stream(), make_stream(), make_stream()
    expected = values(whole, 30)
    begun = values(first, stop)
    resumed.load_state_dict(first.state_dict())
    assert begun + values(resumed, 30 - stop) == expected
    assert resumed.step == 30


def test_what_cannot_work_is_refused():
    for arguments, message in [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"period": 0}, "period is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"num_digits": 0}, "the split is empty"),
    ]:
        with pytest.raises(ConfigError, match=message):
            make_stream(**arguments)
    for other in ({"seed": 1}, {"batch_size": 5}, {"period": 2}):
        with pytest.raises(ConfigError, match="the state is of a stream with"):
            make_stream().load_state_dict(make_stream(**other).state_dict())
