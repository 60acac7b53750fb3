import pytest
from tiny import tiny_plan

from synthgrad.errors import ConfigError


def test_snapshots_include_both_ends():
    assert tiny_plan().snapshots == (0, 5, 10, 12)
    assert tiny_plan(iterations=10).snapshots == (0, 5, 10)
    assert tiny_plan(iterations=3).snapshots == (0, 3)


def test_stops_are_snapshots_and_decays_behind_the_start():
    plan = tiny_plan(decay_at=(7, 10))
    assert plan.stops(after=0) == (5, 7, 10, 12)
    assert plan.stops(after=7) == (10, 12)
    assert plan.stops(after=12) == ()


def test_the_rate_is_divided_after_the_named_iterations():
    plan = tiny_plan(decay_at=(7, 10))
    assert [plan.rate_factor(i) for i in (0, 6, 7, 9, 10, 12)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_a_decay_behind_the_end_is_no_stop():
    assert tiny_plan(decay_at=(50,)).stops(after=10) == (12,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iterations", 0),
        ("batch_size", 0),
        ("snapshot_every", 0),
        ("num_train_examples", 0),
        ("num_probe_examples", 1),
        ("warmup_steps", 0),
        ("decay_by", 0.0),
    ],
)
def test_values_that_cannot_work(name, value):
    with pytest.raises(ConfigError, match=name):
        tiny_plan(**{name: value})
