"""How far an arm is from backprop: within a seed, over every seed, at equal budgets."""

import math

from fake_arms import summary

from synthgrad.experiments.accuracy import gap_interval, gap_text

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
