"""How far an arm is from backprop: within a seed, over every seed, at equal budgets."""

import math

import pytest
from fake_arms import summary

from bench.fake_records import make_record
from synthgrad.bench.scoring.cases import summarize_cases
from synthgrad.bench.scoring.formats import MISSING
from synthgrad.experiments.accuracy import gap_interval, gap_text
from synthgrad.experiments.equal_budgets import (
    equal_gap_text,
    gap_at_equal,
    network_updates,
    training_seconds,
)
from synthgrad.experiments.grid_findings import cost_table, gap_table

BACKPROP = summary("backprop", (98.0,) * 5)


class TestWithinASeed:
    def test_a_seed_that_failed_counts_as_the_worst(self):
        arm = summary("cdni", (98.0, None, None, None, None))
        gap = gap_interval(arm, BACKPROP)
        assert gap == (-math.inf, -math.inf, 0.0, 5)
        assert gap_text(gap) == "failed [failed, +0.00]"

    def test_what_backprop_failed_at_is_no_pair(self):
        backprop = summary("backprop", (None, 98.0, None))
        assert gap_interval(summary("cdni", (97.0, 97.0, None)), backprop) == (-1.0, -1.0, -1.0, 1)
        assert gap_interval(summary("cdni", (97.0,)), backprop) is None

    def test_seeds_are_paired_by_their_number_and_not_by_their_place(self):
        backprop = summary("backprop", (90.0, 98.0), seeds=(0, 1))  # seed 0 of cdni: interrupted
        assert gap_interval(summary("cdni", (98.0,), seeds=(1,)), backprop) == (0.0, 0.0, 0.0, 1)
        assert gap_interval(summary("cdni", (98.0,), seeds=(7,)), backprop) is None


def run(*accuracies, arm="cdni", num_stages=4, updates=None, **values):
    """Return a run with snapshots 10 iterations apart, `updates` stage updates an iteration."""
    record = make_record(*accuracies, arm=arm, **values)
    updates = num_stages if updates is None else updates
    events = [
        {**event, "stage_updates": updates * event["iteration"]} if "iteration" in event else event
        for event in record.events
    ]
    facts = {"event": "facts", "num_stages": num_stages}
    return type(record)(record.folder, record.name, record.run, (facts, *events))


def backprop(*accuracies, **values):
    return run(*accuracies, arm="backprop", **values)


class TestEqualBudgets:
    def test_an_arm_of_few_updates_is_read_at_its_end_and_backprop_early(self):
        arm = run(10.0, 30.0, 40.0, 50.0, 60.0, updates=1)
        equal = gap_at_equal(network_updates, [arm], [backprop(10.0, 80.0, 90.0, 95.0, 98.0)])
        assert equal == ((-20.0, -20.0, -20.0, 1), 1.0, 0.25)

    def test_it_spoils_no_other_arm_s_comparison(self):
        records = [
            backprop(10.0, 80.0, 90.0, 95.0, 98.0),
            run(10.0, 70.0, 85.0, 93.0, 97.0),
            run(10.0, 30.0, 40.0, 50.0, 60.0, arm="no-signal", updates=1),
        ]
        rows = {row[1]: row for row in gap_table(summarize_cases(records), records).rows}
        assert rows["cdni"][2:] == ("1", *["-1.00 [-1.00, -1.00]" + at for at in AT_THE_END])
        assert rows["no-signal"][4] == "-20.00 [-20.00, -20.00] at 100 / 25 %"

    def test_a_stage_of_four_layers_counts_as_four(self):
        large = run(10.0, 50.0, 97.0, num_stages=4)
        theirs = backprop(10.0, 60.0, 98.0, num_stages=16)
        equal = gap_at_equal(network_updates, [large], [theirs])
        assert equal == ((-1.0, -1.0, -1.0, 1), 1.0, 1.0)

    def test_at_equal_seconds_the_slower_arm_is_read_early(self):
        slow = run(10.0, 70.0, 97.0, seconds_per_snapshot=2.0)
        equal = gap_at_equal(training_seconds, [slow], [backprop(10.0, 80.0, 98.0)])
        assert equal == ((-28.0, -28.0, -28.0, 1), 0.5, 1.0)
        assert equal_gap_text(equal) == "-28.00 [-28.00, -28.00] at 50 / 100 %"

    def test_it_is_within_a_seed_and_a_failed_one_counts_as_the_worst(self):
        theirs = [backprop(10.0, accuracy, seed=seed) for seed, accuracy in enumerate(SEEDS)]
        ours = [
            run(10.0, 97.5, seed=1),
            run(10.0, 20.0, seed=0, ending="failed"),
            run(10.0, 98.5, seed=2),
            run(10.0, 20.0, seed=3),  # backprop's failed: a pair of nothing
        ]
        theirs[3] = backprop(10.0, 99.0, seed=3, ending="failed")
        gap = gap_at_equal(network_updates, ours, theirs).gap
        assert gap == (0.5, -math.inf, 0.5, 3)

    @pytest.mark.parametrize("spent", [network_updates, training_seconds])
    def test_what_was_not_measured_is_not_told(self, spent):
        unknown = {"num_stages": 0, "seconds_per_snapshot": math.nan}
        equal = gap_at_equal(spent, [run(10.0, 97.0)], [backprop(10.0, 98.0, **unknown)])
        assert equal is None
        assert equal_gap_text(equal) == MISSING


SEEDS = (96.0, 97.0, 98.0, 99.0)
AT_THE_END = ("", " at 100 / 100 %", " at 100 / 100 %")


def test_memory_is_told_as_it_is_measured():
    [note] = cost_table({"": {"backprop": BACKPROP}}).notes
    for part in ("parameters", "buffers", "gradients", "optimizer", "activations"):
        assert part in note
