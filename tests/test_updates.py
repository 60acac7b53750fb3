"""Which stages are updated: the draw depends on (seed, step) alone, and its frequency is right."""

import random

import pytest
import torch

from synthgrad.errors import ConfigError
from synthgrad.updates import check_probability, draw_updates


def test_one_probability_is_for_all_stages():
    assert check_probability(0.5, 3) == (0.5, 0.5, 0.5)
    assert check_probability(1, 2) == (1.0, 1.0)
    assert check_probability([0.2, 1.0], 2) == (0.2, 1.0)


@pytest.mark.parametrize("bad", [0, -0.1, 1.01, (0.5, 0.0), (float("nan"), 1.0)])
def test_a_probability_outside_its_range_is_refused(bad):
    with pytest.raises(ConfigError, match=r"must lie in \(0, 1\].*requires_grad_"):
        check_probability(bad, 2)


def test_a_wrong_number_of_probabilities_is_refused():
    with pytest.raises(ConfigError, match="has 3 values and the network has 2 stages"):
        check_probability((0.5, 0.5, 0.5), 2)


def test_probability_one_always_updates():
    assert draw_updates((1.0, 1.0), seed=0, step=5) == (True, True)
    assert all(draw_updates((0.01, 1.0), seed=0, step=k)[1] for k in range(50))


def test_frequencies_and_independence():
    draws = [draw_updates((0.2, 0.7), seed=1, step=k) for k in range(4000)]
    for k, p in enumerate((0.2, 0.7)):
        assert abs(sum(d[k] for d in draws) / 4000 - p) < 4 * (p * (1 - p) / 4000) ** 0.5
    both = sum(a and b for a, b in draws) / 4000
    assert abs(both - 0.14) < 4 * (0.14 * 0.86 / 4000) ** 0.5


def test_no_global_state_is_read_or_changed():
    before = random.getstate(), torch.get_rng_state()
    first = [draw_updates((0.5,) * 4, seed=2, step=k) for k in range(8)]
    random.seed(99)
    assert first == [draw_updates((0.5,) * 4, seed=2, step=k) for k in range(8)]
    random.setstate(before[0])
    assert torch.equal(before[1], torch.get_rng_state())
    assert first != [draw_updates((0.5,) * 4, seed=3, step=k) for k in range(8)]


def test_the_draw_is_the_same_in_every_process_and_version():
    """Ranks do not share PYTHONHASHSEED, and a resumed run may have another Python."""
    draws = [draw_updates((0.5,) * 5, seed=7, step=k) for k in range(6)]
    assert ["".join("01"[u] for u in draw) for draw in draws] == [
        "01011",
        "10111",
        "01010",
        "10000",
        "01101",
        "01110",
    ]
