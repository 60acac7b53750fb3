import pytest
import torch
from tiny import EventList, tiny_arm, tiny_data, tiny_plan

from synthgrad.bench.running.throughput import ThroughputPlan, TimedArm, measure_throughput
from synthgrad.errors import ConfigError

DATA = tiny_data()


def timed(*names, threads=1):
    return {
        name: TimedArm(tiny_arm(name), DATA, tiny_plan(), seed=0, threads=threads) for name in names
    }


def test_blocks_alternate_their_order():
    sink = EventList()
    arms = timed("backprop", "no-signal", "cdni")
    measure_throughput(arms, ThroughputPlan(rounds=3, block_iterations=2), sink)
    blocks = [(block["round"], block["arm"]) for block in sink.of("block")]
    forward = ["backprop", "no-signal", "cdni"]
    order = [*forward, *forward[::-1], *forward]
    assert blocks == list(zip([0] * 3 + [1] * 3 + [2] * 3, order, strict=True))
    assert sink.names[-1] == "finished"
    assert sink.of("finished")[0]["iteration"] == 3


def test_what_a_block_holds():
    block = timed("backprop")["backprop"].time_block(4)
    assert block.pop("seconds") > 0
    assert block == {"iterations": 4, "examples": 64, "stage_updates": 12, "threads": 1}


def test_the_first_step_of_a_block_is_not_timed(monkeypatch):
    (timed_arm,) = timed("backprop").values()
    steps = []
    step = timed_arm.learner.step
    monkeypatch.setattr(timed_arm.learner, "step", lambda *b: (steps.append(1), step(*b))[1])
    timed_arm.time_block(4)
    assert len(steps) == 5


def test_an_arm_that_skips_gets_longer_blocks():
    sink = EventList()
    measure_throughput(
        timed("backprop", "cdni-p05"), ThroughputPlan(rounds=2, block_iterations=3), sink
    )
    lengths = {block["arm"]: block["iterations"] for block in sink.of("block")}
    assert lengths == {"backprop": 3, "cdni-p05": 6}
    updates = [b["stage_updates"] for b in sink.of("block") if b["arm"] == "cdni-p05"]
    assert all(updates_of_block <= 18 for updates_of_block in updates)


def test_each_arm_trains_with_its_own_threads(monkeypatch):
    (timed_arm,) = timed("backprop", threads=2).values()
    seen = []
    step = timed_arm.learner.step
    monkeypatch.setattr(
        timed_arm.learner, "step", lambda *b: (seen.append(torch.get_num_threads()), step(*b))[1]
    )
    before = torch.get_num_threads()
    timed_arm.time_block(2)
    assert seen == [2, 2, 2]
    assert torch.get_num_threads() == before


def test_going_on_keeps_the_alternation():
    sink, rounds = EventList(), []
    measure_throughput(
        timed("backprop", "no-signal"),
        ThroughputPlan(rounds=4, block_iterations=1),
        sink,
        first_round=3,
        on_round=lambda: rounds.append(1),
    )
    assert [(b["round"], b["arm"]) for b in sink.of("block")] == [(3, "no-signal"), (3, "backprop")]
    assert len(rounds) == 1


def test_values_that_cannot_work():
    with pytest.raises(ConfigError, match="rounds=-1"):
        ThroughputPlan(rounds=-1)
    with pytest.raises(ConfigError, match="block_iterations=0"):
        ThroughputPlan(rounds=1, block_iterations=0)
