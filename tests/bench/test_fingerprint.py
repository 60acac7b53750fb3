import copy

import pytest
import torch
from tiny import tiny_learner

from synthgrad.bench.running.fingerprint import fingerprint

STATE = {"a": torch.tensor([1.0, 2.0]), "b": [1, None, "x"], "c": torch.zeros(0)}


def test_equal_states_have_equal_fingerprints():
    assert fingerprint(copy.deepcopy(STATE)) == fingerprint(STATE)
    assert len(fingerprint(STATE)) == 64


@pytest.mark.parametrize(
    "other",
    [
        {**STATE, "a": torch.tensor([1.0, torch.nextafter(torch.tensor(2.0), torch.tensor(3.0))])},
        {**STATE, "a": torch.tensor([[1.0, 2.0]])},
        {**STATE, "a": torch.tensor([1.0, 2.0]).view(torch.int32)},
        {**STATE, "b": [1, None]},
        {**STATE, "b": [1, [None, "x"]]},
        {**STATE, "c": torch.zeros(0, 3)},
        {**STATE, "d": 1},
        {"b": STATE["b"], "a": STATE["a"], "c": STATE["c"]},
    ],
)
def test_any_difference_shows(other):
    assert fingerprint(other) != fingerprint(STATE)


def test_layout_in_memory_does_not_matter():
    square = torch.arange(6.0).reshape(2, 3)
    assert fingerprint(square.t().contiguous().t()) == fingerprint(square)


def test_scalars_and_learners():
    assert fingerprint(torch.tensor(1.0)) != fingerprint(torch.tensor(2.0))
    one, other = tiny_learner(seed=0), tiny_learner(seed=1)
    assert fingerprint(one.state_dict()) != fingerprint(other.state_dict())
