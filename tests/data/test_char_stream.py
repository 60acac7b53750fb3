from itertools import islice

import pytest
import torch

from synthgrad.data import CharStream
from synthgrad.errors import ConfigError


def make_stream(num_characters=23, batch_size=2, horizon=3):
    return CharStream(torch.arange(num_characters), batch_size=batch_size, horizon=horizon)


def values(stream, number):
    return [(inputs.tolist(), targets.tolist()) for inputs, targets in islice(stream, number)]


@pytest.mark.parametrize(("batch_size", "horizon"), [(1, 1), (1, 5), (2, 3), (4, 5)])
def test_one_pass_joined_is_the_text_row_by_row(batch_size, horizon):
    stream = make_stream(50, batch_size, horizon)
    chunks = list(islice(stream, stream.num_chunks))
    assert all(i.shape == t.shape == (horizon, batch_size) for i, t in chunks)
    inputs, targets = (torch.cat(part).t().flatten() for part in zip(*chunks, strict=True))
    assert inputs.tolist() == list(range(len(inputs)))
    assert torch.equal(targets, inputs + 1)
    assert 50 - 1 - len(inputs) < batch_size * horizon


def test_stream_begins_anew_after_every_pass():
    stream = make_stream()
    assert stream.num_chunks == 3
    begins = []
    chunks = []
    for _ in range(6):
        begins.append((stream.begins, stream.num_passes))
        chunks += values(stream, 1)
    assert chunks[:3] == chunks[3:]
    assert begins == [(True, 0), (False, 0), (False, 0), (True, 1), (False, 1), (False, 1)]


def test_smallest_text_fills_one_chunk():
    assert values(make_stream(7), 1) == [([[0, 3], [1, 4], [2, 5]], [[1, 4], [2, 5], [3, 6]])]
    with pytest.raises(ConfigError, match="a text of 6 characters does not fill one chunk"):
        make_stream(6)
    with pytest.raises(ConfigError, match="a text of 0 characters"):
        make_stream(0)


@pytest.mark.parametrize("stop", range(5))
def test_resumed_stream_equals_the_uninterrupted_one(stop):
    whole, first, resumed = make_stream(), make_stream(), make_stream()
    expected = values(whole, 8)
    begun = values(first, stop)
    resumed.load_state_dict(first.state_dict())
    assert begun + values(resumed, 8 - stop) == expected
    assert resumed.state_dict() == whole.state_dict()


def test_stream_holds_no_copy_of_the_text():
    tokens = torch.arange(23)
    stream = CharStream(tokens, batch_size=2, horizon=3)
    inputs, _ = next(stream)
    tokens.zero_()
    assert inputs.tolist() == [[0, 9], [1, 10], [2, 11]]
    assert next(stream)[0].tolist() == [[0, 0]] * 3


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="batch_size is 0"):
        make_stream(batch_size=0)
    with pytest.raises(ConfigError, match="horizon is 0"):
        make_stream(horizon=0)
    with pytest.raises(ConfigError, match=r"the shape \(2, 2\)"):
        CharStream(torch.zeros(2, 2), batch_size=1, horizon=1)
    with pytest.raises(ConfigError, match="of 1 chunks a pass, this one has 3"):
        make_stream().load_state_dict(make_stream(7).state_dict())
