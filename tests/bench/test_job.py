import pytest
from tiny import tiny_arm, tiny_data, tiny_plan

from synthgrad.bench.running.job import Job, Outcome, interleave
from synthgrad.bench.running.throughput import ThroughputPlan
from synthgrad.errors import ConfigError


def tiny_job(**values):
    default = {
        "experiment": "tiny",
        "preset": "test",
        "arms": (tiny_arm("backprop"), tiny_arm("cdni"), tiny_arm("cdni-p05")),
        "seeds": (0, 1, 2),
        "plan": tiny_plan(),
        "throughput": ThroughputPlan(rounds=2, block_iterations=1),
        "threads": 1,
        "device": "cpu",
        "config": {"dataset": "tiny", "iterations": 12},
        "load": tiny_data,
    }
    return Job(**{**default, **values})


def names(runs):
    return [(arm.name, seed) for arm, seed in runs]


def test_arms_alternate_within_seeds():
    assert names(tiny_job(arms=(tiny_arm("backprop"), tiny_arm("cdni"))).runs()) == [
        ("backprop", 0),
        ("cdni", 0),
        ("cdni", 1),
        ("backprop", 1),
        ("backprop", 2),
        ("cdni", 2),
    ]


def test_a_costly_arm_runs_fewer_seeds():
    arms = (tiny_arm("backprop"), tiny_arm("cdni", num_seeds=1))
    runs = names(tiny_job(arms=arms, seeds=(7, 8)).runs())
    assert runs == [("backprop", 7), ("cdni", 7), ("backprop", 8)]


def test_every_pair_comes_once():
    pairs = list(interleave("ABC", (5, 6, 7)))
    assert len(set(pairs)) == len(pairs) == 9


def test_records_are_told_what_decides_the_numbers():
    description = tiny_job(threads="best").describe("tune")
    assert description["kind"] == "tune"
    assert description["config"] == {
        "dataset": "tiny",
        "iterations": 12,
        "device": "cpu",
        "threads": "best",
    }
    assert {"machine", "git", "packages", "experiment", "preset"} <= description.keys()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"arms": ()}, "arms"),
        ({"arms": (tiny_arm("backprop"), tiny_arm("backprop"))}, "none twice"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "none twice"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_values_that_cannot_work(values, message):
    with pytest.raises(ConfigError, match=message):
        tiny_job(**values)


@pytest.mark.parametrize("values", [{"name": "a b"}, {"name": ""}, {"update_probability": 0.0}])
def test_arms_that_cannot_work(values):
    with pytest.raises(ConfigError):
        tiny_arm(**values)


@pytest.mark.parametrize(
    ("counts", "succeeded"),
    [
        ({"finished": 2}, True),
        ({"finished": 1, "failed": 5}, True),
        ({"unavailable": 3}, True),
        ({"failed": 2, "unavailable": 1}, False),
        ({"finished": 9, "crashed": 1}, False),
    ],
)
def test_success(counts, succeeded):
    outcome = Outcome()
    outcome.runs.update(counts)
    assert outcome.succeeded is succeeded
