"""What the pipeline experiments make of what ranks noted: merging, tables and verdicts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from synthgrad.bench.records.events import RunRecord
from synthgrad.engines.pipeline import Span
from synthgrad.errors import ConfigError
from synthgrad.experiments.pipeline import cnn, mlp, recurrent
from synthgrad.experiments.pipeline.findings import Targets, best_1f1b, faster, find, label
from synthgrad.experiments.pipeline.goal import Race, merge_race
from synthgrad.experiments.pipeline.measuring import timing_tasks
from synthgrad.experiments.pipeline.methods import LABELS, NAMES, Setting
from synthgrad.experiments.pipeline.runner import Tape
from synthgrad.experiments.pipeline.stage_times import measured, merge_line
from synthgrad.experiments.pipeline.timing import Blocks, Entry, merge, spread

TARGETS = Targets(over_backprop=1.65, over_1f1b=1.4, over_ddp=1.3)
WORKLOAD = mlp.PRESETS["smoke"].workload(0)
SETTING = Setting(workload=WORKLOAD)


def record(arm, events, **config):
    run = {
        "kind": "study",
        "experiment": "pipeline/mlp",
        "arm": arm,
        "seed": 0,
        "started": "2026-01-01T00:00:00+00:00",
        "config": {
            "delay_ms": 20.0,
            "goals": [97.0],
            "goal_every": 10,
            "goal_synthesizer": "linear",
            "goal_rate": 1e-3,
            "goal_backprop_rate": 1e-3,
            **config,
        },
    }
    return RunRecord(Path(), arm, run, (*events, {"event": "finished"}))


@pytest.mark.parametrize(("goes", "rounds"), [(31, 200), (3, 2), (31, 30), (1, 1)])
def test_goes_are_spread_over_the_rounds(goes, rounds):
    found = list(spread(goes, rounds))
    assert len(found) == rounds
    assert sum(found) == goes
    assert max(found) - min(found) <= 1


def blocks(seconds, rounds=30, idle=(0.5, 0.25)):
    """Blocks of each arm with a given number of seconds, all rounds alike."""
    return [
        {
            "event": "block",
            "round": number,
            "arm": arm,
            "iterations": 2,
            "seconds": duration,
            "examples": 64,
            "stage_updates": 4,
            "threads": 1,
            "idle_s": [duration * share for share in idle],
            "messages": [2, 2],
            "bytes": [1_000_000, 500_000],
        }
        for number in range(rounds)
        for arm, duration in seconds.items()
    ]


def claims(found):
    return {claim.claim: claim for claim in found.claims}


def test_a_block_takes_as_long_as_its_slowest_rank():
    asked = Blocks(setting=SETTING, entries=(Entry(arm="a", method="cdni"),), rounds=1, steps=2)

    def noted(seconds, start):
        row = {"round": 0, "arm": "a", "seconds": seconds, "idle_s": 0.1, "messages": 2, "bytes": 9}
        span = {"kind": "fit", "stage": 1, "batch": 7, "start_s": start, "end_s": start + 0.5}
        return {"blocks": [row], "spans": {"a": [span]}, "facts": {"a": 3}, "line": None}

    block, timeline, in_flight = merge([noted(1.0, 10.0), noted(3.0, 10.25)], asked)
    assert block["seconds"] == 3.0
    assert block["examples"] == 2 * WORKLOAD.batch_size
    assert timeline["ranks"] == [[["fit", 1, 7, 0, 500_000]], [["fit", 1, 7, 250_000, 500_000]]]
    assert in_flight["most"] == [3, 3]
    assert in_flight["allowed"] == SETTING.max_in_flight


def test_a_rank_that_stands_still_is_idle_throughout():
    asked = Blocks(
        setting=SETTING, entries=(Entry(arm="a", method="backprop"),), rounds=1, steps=2, timeline=0
    )
    row = {"round": 0, "arm": "a", "seconds": 2.0, "idle_s": 0.0, "messages": 0, "bytes": 0}
    ranks = [{"blocks": [{**row, "seconds": s}], "facts": {}, "spans": {}} for s in (2.0, 0.0)]
    (block,) = merge(ranks, asked)
    assert block["idle_s"] == [0.0, 2.0]


def test_the_clock_of_a_race_is_the_sum_of_the_slowest_stretches():
    race = Race(setting=SETTING, rates={"cdni": 1e-3}, goal_percent=97, every=10, most=20)

    def looks(*stretches):
        return [
            [
                {"iteration": 10 * k, "stretch_s": s, "val_accuracy": 90.0 + k, "val_loss": 0.1}
                for k, s in enumerate(stretches, 1)
            ]
        ]

    first, second = merge_race([looks(1.0, 5.0), looks(2.0, 3.0)], race)
    assert (first["seconds"], second["seconds"]) == (2.0, 7.0)
    assert second["examples"] == 20 * WORKLOAD.batch_size


def test_targets_that_are_met_and_missed():
    seconds = {"backprop": 2.0, "ddp": 1.3, "1f1b-2": 1.6, "1f1b-4": 1.5, "cdni": 1.1}
    found = find([record("throughput", blocks(seconds))], TARGETS)
    judged = claims(found)
    assert judged["throughput over backprop in one process, one thread"].verdict == "reproduced"
    assert "1.82" in judged["throughput over backprop in one process, one thread"].measured
    best = judged["throughput over the best of torch's 1F1B"]
    assert best.verdict == "not reproduced"
    assert LABELS["1f1b-4"] in best.measured, "the best, not the first"
    assert judged["throughput over DDP at the same global batch"].verdict == "not reproduced"
    table = found.tables[0]
    assert [row[0] for row in table.rows] == [LABELS[name] for name in seconds]
    assert table.rows[-1][4] == "50, 25"
    assert float(table.rows[-1][5]) == 0.75  # MB a batch, of both ranks


def test_few_pairs_give_no_verdict():
    found = find([record("throughput", blocks({"backprop": 2.0, "cdni": 1.0}, rounds=3))], TARGETS)
    assert {claim.verdict for claim in found.claims} == {"not comparable"}


def test_what_a_latency_leaves_is_judged_beside_1f1b():
    seconds = {"1f1b-4": 1.0, "1f1b-4+delay": 2.5, "cdni": 1.0, "cdni+delay": 1.05}
    found = find([record("delayed", blocks(seconds))], TARGETS)
    (claim,) = found.claims
    assert claim.verdict == "reproduced"
    assert "0.95" in claim.measured
    assert "0.40" in claim.measured, "what 1F1B keeps"
    worse = find([record("delayed", blocks({**seconds, "cdni+delay": 1.2}))], TARGETS)
    assert worse.claims[0].verdict == "not reproduced"


@pytest.mark.parametrize(
    ("slow", "most", "verdict"),
    [(1.9, 4, "reproduced"), (3.0, 4, "not reproduced"), (1.9, 5, "not reproduced")],
)
def test_a_slow_rank_costs_its_own_rate_and_bounded_memory(slow, most, verdict):
    seconds = {"cdni": 1.0, "cdni/rank 0 slow": slow, "cdni/rank 1 slow": 1.8}
    flight = [
        {"event": "in flight", "arm": arm, "most": [most, 0], "allowed": 4} for arm in seconds
    ]
    found = find([record("slow-rank", [*blocks(seconds), *flight])], TARGETS)
    assert [claim.verdict for claim in found.claims] == [verdict]


def races(num_seeds, *, cdni):
    def looks(method, seconds):
        return [
            {
                "event": "look",
                "method": method,
                "iteration": 10 * k,
                "examples": 640 * k,
                "seconds": s,
                "val_accuracy": accuracy,
                "val_loss": 0.1,
            }
            for k, (s, accuracy) in enumerate(zip(seconds, (90.0, 97.5), strict=True), 1)
        ]

    return [
        record(
            "goal", [{"event": "cut", "at": [3]}, *looks("backprop", (1, 4)), *looks("cdni", cdni)]
        )
        for _ in range(num_seeds)
    ]


def test_time_to_a_goal_needs_five_seeds_and_counts_misses():
    assert find(races(5, cdni=(1, 3)), TARGETS).claims[0].verdict == "reproduced"
    assert find(races(5, cdni=(1, 6)), TARGETS).claims[0].verdict == "not reproduced"
    assert find(races(4, cdni=(1, 3)), TARGETS).claims[0].verdict == "not comparable"
    missed = [
        replace(r, events=tuple(e for e in r.events if e.get("iteration") != 20))
        for r in races(5, cdni=(1, 3))
    ]
    found = find(missed, TARGETS)
    assert found.tables[0].rows[0][2] == "0 of 5"
    assert found.claims[0].verdict == "not reproduced"


def test_nothing_finished_is_nothing_found():
    unfinished = replace(record("throughput", []), events=())
    found = find([unfinished], TARGETS)
    assert not found.claims
    assert not found.tables


def test_labels_say_what_was_done_to_a_method():
    assert label("1f1b-4+delay") == f"{LABELS['1f1b-4']}, delayed"
    assert label("cdni/rank 1 slow") == f"{LABELS['cdni']}, rank 1 slow"
    assert set(LABELS) == set(NAMES)


def test_the_best_1f1b_is_the_fastest_by_the_median():
    made = record("throughput", blocks({"1f1b-2": 2.0, "1f1b-8": 1.0, "backprop": 3.0}))
    assert best_1f1b(made) == "1f1b-8"
    assert faster(made, "1f1b-8", "backprop").ratio == 3.0
    assert best_1f1b(record("throughput", blocks({"backprop": 3.0}))) is None


def test_the_simulator_gets_medians_of_what_it_knows():
    timed = blocks({"cdni": 2.0, "ddp": 1.0})
    (event,) = measured(timed, {"cdni": {"method": "dni", "added_latency_s": 0.02}})
    assert event == {
        "event": "measured",
        "method": "dni",
        "added_latency_s": 0.02,
        "batches_per_second": 1.0,
    }
    ranks = [{"stage": {"forward_s": k}, "link": {"latency_s": k}} for k in (1.0, 2.0)]
    line = merge_line(ranks, WORKLOAD, "source")
    assert [stage["forward_s"] for stage in line["stages"]] == [1.0, 2.0]
    assert line["link"] == {"latency_s": 1.0}
    assert all("runtime_s" not in stage for stage in line["stages"])


def test_what_held_stages_took_longer_is_the_runtime_of_every_stage():
    # By hand: F, F B a micro-batch, and B at the end; each pass may be a sixteenth longer.
    times = {"forward_s": 8.0, "backward_weight_s": 8.0}
    ranks = [
        {"stage": times, "link": {}, "held": {"stage": times, "batches_s": [0.0, batch_s, 99.0]}}
        for batch_s in (18 + 18 / 16, 99.0)
    ]
    line = merge_line(ranks, WORKLOAD, "source")
    assert [stage["runtime_s"] for stage in line["stages"]] == [pytest.approx(1 / 16)] * 2
    assert line["held"]["batch_s"] == 18 + 18 / 16
    assert line["held"]["simulated_s"] == 18
    assert [stage["forward_s"] for stage in line["held"]["stages"]] == [8.0, 8.0]


def test_a_tape_counts_what_is_no_span_as_waiting():
    tape = Tape(1)
    with tape.step():
        tape.spans.append(Span("forward", 1, 0, 0.0, -1.0))  # a second less than nothing
    assert tape.idle_s > 1.0
    tape.sent(torch.zeros(3, dtype=torch.float64))
    assert (tape.counts().messages, tape.counts().bytes) == (1, 24)


@pytest.mark.parametrize("experiment", [mlp, cnn, recurrent])
def test_presets_have_a_task_for_every_arm(experiment):
    for config in experiment.PRESETS.values():
        arms = {task.arm for task in experiment.EXPERIMENT.tasks(config)}
        assert arms == {*experiment.EXPERIMENT.arms}
    quiet = replace(experiment.PRESETS["smoke"], delayed_rounds=0, slow_rounds=0)
    assert [task.arm for task in timing_tasks(quiet)] == ["throughput"]


@pytest.mark.parametrize(
    ("module", "change", "message"),
    [
        (mlp, {"ranks": 1}, "2 or more"),
        (mlp, {"every": 2}, "odd"),
        (mlp, {"methods": ("cdni",)}, "lacks backprop"),
        (mlp, {"batch_size": 33}, "equal parts"),
        (mlp, {"goals": (98.0, 97.0)}, "rise"),
        (mlp, {"goal_methods": ("ddp",)}, "no evaluation"),
        (mlp, {"depth": 1}, "depth=1"),
        (mlp, {"delay_ms": float("nan")}, "delay_ms=nan"),
        (cnn, {"cut_at": (2, 1)}, "one layer for each"),
        (recurrent, {"layers": 3}, "one layer a rank"),
        (recurrent, {"methods": (*NAMES,)}, "zero-bubble"),
        (recurrent, {"batch_size": 33 * 8}, "streams"),
    ],
)
def test_what_cannot_work_is_refused(module, change, message):
    with pytest.raises(ConfigError, match=message):
        replace(module.PRESETS["full"], **change)


def test_more_late_targets_than_batches_under_way_are_refused():
    with pytest.raises(ConfigError, match="max_in_flight"):
        Setting(workload=WORKLOAD, max_in_flight=2, target_delay=2)
