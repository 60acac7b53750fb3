import math

import pytest

from synthgrad.bench.scoring.arm_summary import ArmSummary, GoalSummary
from synthgrad.bench.scoring.claims import VERDICTS
from synthgrad.experiments.bisong2017_claims import judge


def summary(arm, **values):
    goal = GoalSummary(
        goal=97.0,
        seconds=10.0,
        examples=1000.0,
        hit_fraction=1.0,
        seconds_points=(10.0,),
        examples_points=(1000.0,),
        seconds_ratio=1.0,
        seconds_ratio_interval=(0.9, 1.1),
    )
    fields = dict.fromkeys(ArmSummary.__dataclass_fields__)
    fields |= {
        "arm": arm,
        "label": arm.upper(),
        "num_seeds": 5,
        "num_interrupted": 0,
        "status": "finished",
        "reason": "",
        "iterations": 3000,
        "test_accuracy": 98.2,
        "test_accuracy_interval": (98.1, 98.3),
        "test_accuracy_points": (98.2,),
        "goals": (goal,),
        "seconds_to_goal": 10.0,
        "num_rounds": 200,
        "records": (),
        "claim": (),
    }
    return ArmSummary(**(fields | values))


def timed(arm, ratio, updates=4.0, width=0.05, **values):
    """An arm that takes `ratio` times backprop's 10 ms an iteration, with `updates` in each."""
    seconds = 0.01 * ratio
    speed = {
        "seconds_per_iteration": seconds,
        "stage_updates_per_second": updates / seconds,
        "time_ratio": ratio,
        "time_ratio_interval": (ratio - width, ratio + width),
        "speedup_per_iteration": 1 / ratio,
        "speedup_per_stage_update": updates / 4 / ratio,
    }
    return summary(arm, **(speed | values))


def claims(*arms):
    judged = judge({arm.arm: arm for arm in arms})
    return {arm: {c.claim.split(" of ")[0]: c for c in found} for arm, found in judged.items()}


BACKPROP = timed("backprop", 1.0)


def test_slower_and_no_worse():
    mirror = claims(BACKPROP, timed("cdni-mirror", 2.2))["cdni-mirror"]
    assert set(mirror) == {"speed", "accuracy", "gap in time"}
    assert mirror["speed"].verdict == "not reproduced"
    assert (
        "2.20 times backprop's time an iteration [2.15, 2.25] within one process, 200 rounds"
        in (mirror["speed"].measured)
    )
    assert mirror["accuracy"].verdict == "not reproduced"
    assert mirror["gap in time"].verdict == "not reproduced"
    assert "12 ms more" in mirror["gap in time"].measured
    assert "36 s after 3,000" in mirror["gap in time"].measured


def test_skipping_is_spelled_out():
    sparse = claims(BACKPROP, timed("cdni-mirror-p02", 0.7, updates=0.8))["cdni-mirror-p02"]
    reason = sparse["speed"].reason
    assert sparse["speed"].verdict == "not reproduced"
    assert "updates 4 stages" in reason
    assert "with probability 0.2, so 0.8 on average" in reason
    assert "looks like a speed-up" in reason
    assert "counted per stage update it takes 3.5 times backprop's time, which is none" in reason
    assert sparse["gap in time"].verdict == "reproduced"
    assert "skipped" in sparse["gap in time"].reason
    ancestor = sparse["accounting"]
    assert ancestor.verdict == "reproduced"
    assert "1.43 times as fast an iteration, 3.50 times backprop's time" in ancestor.measured


def test_three_fold_by_skipping_is_not_comparable():
    sparse = claims(BACKPROP, timed("cdni-mirror-p02", 0.25, updates=0.8))["cdni-mirror-p02"]
    assert sparse["speed"].verdict == "not comparable"


def test_three_fold_and_more_is_reproduced():
    assert claims(BACKPROP, timed("cdni-mirror", 0.25))["cdni-mirror"]["speed"].verdict == (
        "reproduced"
    )


def test_an_interval_that_holds_the_claim_decides_nothing():
    found = claims(
        BACKPROP,
        timed("cdni-mirror", 1 / 3, width=0.1),
        timed("cdni-mirror-p02", 1.0, updates=0.8),
    )
    assert found["cdni-mirror"]["speed"].verdict == "not comparable"
    assert found["cdni-mirror-p02"]["gap in time"].verdict == "not comparable"
    assert found["cdni-mirror-p02"]["accounting"].verdict == "not comparable"


def test_skipping_that_does_not_even_save_time():
    sparse = claims(BACKPROP, timed("cdni-mirror-p02", 1.5, updates=0.8))["cdni-mirror-p02"]
    assert "is no speed-up either" in sparse["speed"].reason
    assert sparse["accounting"].verdict == "not reproduced"


@pytest.mark.parametrize(
    ("accuracy", "interval", "verdict"),
    [
        (97.0, (96.9, 97.1), "reproduced"),
        (98.1, (98.0, 98.15), "not comparable"),
        (98.5, (98.4, 98.6), "not reproduced"),
        (97.0, None, "not comparable"),
    ],
)
def test_accuracy_is_judged_by_the_seeds(accuracy, interval, verdict):
    mirror = timed("cdni-mirror", 2.0, test_accuracy=accuracy, test_accuracy_interval=interval)
    assert claims(BACKPROP, mirror)["cdni-mirror"]["accuracy"].verdict == verdict


def test_what_was_not_measured_is_not_comparable():
    arms = [
        summary("cdni-mirror", status="unavailable", reason="data not found: mnist"),
        summary("cdni-mirror-p02", test_accuracy=None),
    ]
    found = claims(summary("backprop"), *arms)
    assert found["cdni-mirror"]["speed"].verdict == "not comparable"
    assert found["cdni-mirror"]["speed"].reason == "data not found: mnist"
    assert {c.verdict for c in found["cdni-mirror-p02"].values()} == {"not comparable"}


def test_a_missed_goal_is_called_so():
    mirror = timed("cdni-mirror", 2.0, seconds_to_goal=None)
    measured = claims(BACKPROP, mirror)["cdni-mirror"]["speed"].measured
    assert measured.endswith("to 97 % validation accuracy: missed, backprop 10 s")


def test_infinite_ends_of_an_interval():
    mirror = timed("cdni-mirror", 2.0, time_ratio_interval=(1.5, None))
    assert claims(BACKPROP, mirror)["cdni-mirror"]["speed"].verdict == "not reproduced"
    unknown = timed("cdni-mirror", 2.0, time_ratio_interval=(None, math.inf))
    assert claims(BACKPROP, unknown)["cdni-mirror"]["speed"].verdict == "not comparable"


def test_nothing_is_said_of_arms_that_are_not_there():
    assert judge({}) == {}
    assert judge({"backprop": BACKPROP}) == {}
    assert judge({"cdni-mirror": timed("cdni-mirror", 2.0)}) == {}


def test_every_verdict_is_a_known_one():
    found = claims(BACKPROP, timed("cdni-mirror", 2.0), timed("cdni-mirror-p02", 0.7, 0.8))
    assert {c.verdict for arm in found.values() for c in arm.values()} <= set(VERDICTS)
