from itertools import chain, islice

import pytest
import torch

from synthgrad.data import Batches, Cursor, Split
from synthgrad.errors import ConfigError


def make_split(num_examples=10):
    labels = torch.arange(num_examples)
    return Split(pixels=labels.byte().reshape(-1, 1, 1, 1), labels=labels)


def labels_of(batches, number):
    return [labels.tolist() for _, labels in islice(batches, number)]


@pytest.mark.parametrize("stop", range(8))
def test_resumed_stream_equals_the_uninterrupted_one(stop):
    whole = Batches(make_split(), batch_size=3, seed=7)
    expected = labels_of(whole, 12)
    first = Batches(make_split(), batch_size=3, seed=7)
    begun = labels_of(first, stop)
    resumed = Batches(make_split(), batch_size=3, seed=7, cursor=first.cursor)
    assert begun + labels_of(resumed, 12 - stop) == expected
    assert resumed.cursor == whole.cursor


def test_an_epoch_hands_out_no_example_twice():
    batches = Batches(make_split(), batch_size=3, seed=0)
    epochs = [list(chain(*labels_of(batches, 3))) for _ in range(4)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_whole_epoch_is_used_when_it_divides():
    batches = Batches(make_split(), batch_size=5, seed=0)
    assert sorted(chain(*labels_of(batches, 2))) == list(range(10))
    assert batches.cursor == Cursor(epoch=0, position=10)
    next(batches)
    assert batches.cursor == Cursor(epoch=1, position=5)


def test_inputs_belong_to_their_labels():
    for inputs, labels in islice(Batches(make_split(), batch_size=4, seed=1), 5):
        torch.testing.assert_close(inputs.flatten(), labels / 255, rtol=0, atol=0)


def test_order_follows_from_the_seed_and_stays_as_it_is():
    # A change of these numbers would make every published seed mean something else.
    first = labels_of(Batches(make_split(), batch_size=10, seed=0), 2)
    assert first == [[4, 6, 2, 7, 3, 5, 9, 0, 8, 1], [9, 1, 3, 8, 7, 6, 0, 4, 2, 5]]
    assert labels_of(Batches(make_split(), batch_size=10, seed=1), 1) == [
        [8, 4, 7, 0, 1, 2, 5, 9, 6, 3]
    ]


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    next(Batches(make_split(), batch_size=2, seed=0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0, "seed": 0}, "batch_size is 0"),
        ({"batch_size": 11, "seed": 0}, "to the 10 examples"),
        ({"batch_size": 2, "seed": -1}, "seed is -1"),
        ({"batch_size": 2, "seed": 0, "cursor": Cursor(position=11)}, "beyond the 10 examples"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Batches(make_split(), **arguments)


@pytest.mark.parametrize("place", [{"epoch": -1}, {"position": -1}])
def test_negative_cursor_is_refused(place):
    with pytest.raises(ConfigError, match="must not be negative"):
        Cursor(**place)
