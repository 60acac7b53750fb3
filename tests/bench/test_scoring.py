import math
import random
import statistics
from dataclasses import replace

import pytest
from fake_records import make_record
from hypothesis import given
from hypothesis import strategies as st

from synthgrad.bench.records.events import Block
from synthgrad.bench.scoring.scores import (
    accuracy_at,
    bootstrap_median,
    bootstrap_ratio,
    examples_to_goal,
    hit_fraction,
    median_with_misses,
    paired_ratio,
    seconds_to_goal,
    snapshot_at,
)
from synthgrad.errors import ConfigError

NAN, INF = math.nan, math.inf

times = st.floats(min_value=0.001, max_value=1e6)
times_or_misses = times | st.just(INF) | st.just(NAN)
anything = st.floats(min_value=0, max_value=1e300) | st.just(INF) | st.just(NAN)


def values(of, min_size=0):
    return st.lists(of, min_size=min_size, max_size=9)


def block(round_index, arm, seconds, iterations=10):
    return Block(
        round=round_index,
        arm=arm,
        iterations=iterations,
        seconds=seconds,
        examples=100,
        stage_updates=40,
        threads=1,
    )


class TestGoals:
    def test_the_first_snapshot_at_the_goal_counts(self):
        record = make_record(10.0, 96.9, 97.0, 96.0, 99.0)
        assert seconds_to_goal(record, 97.0) == 2.0
        assert examples_to_goal(record, 97.0) == 200.0

    def test_a_goal_never_reached_is_infinity(self):
        record = make_record(10.0, 96.9)
        assert seconds_to_goal(record, 97.0) == INF
        assert examples_to_goal(record, 97.0) == INF

    def test_the_start_may_be_at_the_goal_already(self):
        assert seconds_to_goal(make_record(98.0), 97.0) == 0.0

    @pytest.mark.parametrize("bad", [None, NAN, INF])
    def test_what_is_not_finite_reaches_no_goal(self, bad):
        assert seconds_to_goal(make_record(bad, 97.5), 97.0) == 1.0
        assert seconds_to_goal(make_record(bad), 97.0) == INF

    def test_a_run_that_failed_misses_also_what_it_passed_before(self):
        assert seconds_to_goal(make_record(10.0, 99.0, ending="failed"), 97.0) == INF

    def test_an_interrupted_run_may_have_reached_the_goal(self):
        assert seconds_to_goal(make_record(10.0, 99.0, ending="interrupted"), 97.0) == 1.0


class TestBudgets:
    record = make_record(10.0, 20.0, 30.0, 40.0)

    @pytest.mark.parametrize(
        ("budget", "accuracy"),
        [
            ({"iterations": 20}, 30.0),
            ({"iterations": 19.9}, 20.0),
            ({"iterations": 0}, 10.0),
            ({"iterations": 500}, 40.0),
            ({"seconds": 1.5}, 20.0),
            ({"seconds": INF}, 40.0),
            ({"stage_updates": 80}, 30.0),
            ({"stage_updates": 79}, 20.0),
        ],
    )
    def test_the_last_snapshot_within_the_budget_counts(self, budget, accuracy):
        assert accuracy_at(self.record, **budget) == accuracy

    @pytest.mark.parametrize("ending", ["failed", "interrupted"])
    def test_a_run_that_stopped_before_the_budget_has_none(self, ending):
        record = make_record(10.0, 20.0, 30.0, ending=ending)
        assert accuracy_at(record, seconds=2) == 30.0
        assert math.isnan(accuracy_at(record, seconds=2.1))
        assert snapshot_at(record, iterations=21) is None

    def test_nothing_within_the_budget_is_nan(self):
        assert math.isnan(accuracy_at(self.record, seconds=-1))
        assert math.isnan(accuracy_at(self.record, seconds=NAN))

    def test_a_run_without_snapshots_has_none(self):
        record = replace(self.record, events=())
        assert snapshot_at(record, iterations=1) is None

    @pytest.mark.parametrize("budget", [{}, {"seconds": 1, "iterations": 1}])
    def test_exactly_one_budget_must_be_given(self, budget):
        with pytest.raises(ConfigError, match="exactly one"):
            accuracy_at(self.record, **budget)


class TestMedian:
    @given(values(times_or_misses, min_size=1), st.randoms())
    def test_the_order_of_runs_does_not_matter(self, given_values, rng: random.Random):
        shuffled = rng.sample(given_values, len(given_values))
        assert median_with_misses(shuffled) == median_with_misses(given_values)

    @given(values(anything, min_size=1))
    def test_it_is_never_nan_and_within_the_values(self, given_values):
        known = [INF if math.isnan(value) else value for value in given_values]
        assert min(known) <= median_with_misses(given_values) <= max(known)

    @given(values(times, min_size=1))
    def test_without_misses_it_is_the_median(self, given_values):
        assert median_with_misses(given_values) == statistics.median(given_values)

    @given(values(times, min_size=1), st.lists(st.sampled_from([NAN, INF]), max_size=9))
    def test_it_is_infinite_from_half_misses_on(self, hits, misses):
        is_infinite = median_with_misses([*hits, *misses]) == INF
        assert is_infinite == (len(misses) >= len(hits))

    @given(values(times_or_misses, min_size=1), st.integers(0, 8))
    def test_failing_never_makes_an_arm_look_better(self, given_values, index):
        worse = list(given_values)
        worse[index % len(worse)] = NAN
        assert median_with_misses(worse) >= median_with_misses(given_values)

    def test_for_accuracies_a_miss_is_the_lowest(self):
        assert median_with_misses([98.0, NAN, 99.0], miss=-INF) == 98.0
        assert median_with_misses([98.0, NAN], miss=-INF) == -INF

    def test_of_nothing_it_is_nan(self):
        assert math.isnan(median_with_misses([]))

    def test_ties_are_themselves(self):
        assert median_with_misses([2.0, 2.0, 2.0, 2.0]) == 2.0


class TestHitFraction:
    def test_it_counts_what_is_finite(self):
        assert hit_fraction([1.0, INF, NAN, 2.0]) == 0.5
        assert hit_fraction([0.0]) == 1.0

    def test_of_nothing_it_is_nan(self):
        assert math.isnan(hit_fraction([]))


class TestBootstrapMedian:
    @given(values(times_or_misses, min_size=2), st.randoms())
    def test_it_holds_the_median_and_no_order(self, given_values, rng: random.Random):
        low, high = bootstrap_median(given_values, num_resamples=200)
        assert low <= median_with_misses(given_values) <= high
        shuffled = rng.sample(given_values, len(given_values))
        assert bootstrap_median(shuffled, num_resamples=200) == (low, high)

    def test_a_miss_opens_the_end_on_its_side(self):
        assert bootstrap_median([98.0, 98.1, 98.2, NAN], miss=-INF) == (-INF, 98.2)

    @pytest.mark.parametrize("given_values", [[], [3.0]])
    def test_of_fewer_than_two_values_nothing_is_known(self, given_values):
        assert bootstrap_median(given_values) == (-INF, INF)


class TestBootstrapRatio:
    @given(values(times, min_size=1))
    def test_identical_inputs_have_the_ratio_one_within_the_interval(self, given_values):
        ratio, low, high = bootstrap_ratio(given_values, given_values)
        assert ratio == 1.0
        assert low <= 1.0 <= high

    @given(values(anything), values(anything))
    def test_the_interval_is_never_nan(self, a, b):
        ratio, low, high = bootstrap_ratio(a, b, num_resamples=100)
        assert 0 <= low <= high
        assert math.isnan(ratio) or ratio >= 0

    @given(values(times_or_misses), values(times_or_misses), st.randoms())
    def test_the_order_of_runs_does_not_matter(self, a, b, rng: random.Random):
        shuffled = rng.sample(a, len(a)), rng.sample(b, len(b))
        one = bootstrap_ratio(a, b, num_resamples=100)
        other = bootstrap_ratio(*shuffled, num_resamples=100)
        assert str(one) == str(other)  # as text, because NaN equals nothing

    @given(values(times, min_size=2), values(times, min_size=2))
    def test_the_unit_of_time_does_not_matter(self, a, b):
        one = bootstrap_ratio(a, b, num_resamples=100)
        other = bootstrap_ratio([8 * x for x in a], [8 * x for x in b], num_resamples=100)
        assert one == other  # exactly, by a power of two

    @given(values(times, min_size=2), values(times, min_size=2))
    def test_only_ratios_of_values_that_were_seen_come_out(self, a, b):
        _, low, high = bootstrap_ratio(a, b, num_resamples=100)
        assert min(a) / max(b) <= low <= high <= max(a) / min(b)

    @given(values(times, min_size=2), values(times, min_size=2), st.integers(0, 8))
    def test_a_miss_never_makes_an_arm_look_better(self, a, b, index):
        worse = list(a)
        worse[index % len(a)] = INF
        before, after = bootstrap_ratio(a, b), bootstrap_ratio(worse, b)
        assert all(now >= then for now, then in zip(after, before, strict=True))

    def test_misses_on_one_side(self):
        assert bootstrap_ratio([INF, INF], [1.0, 2.0]) == (INF, INF, INF)
        assert bootstrap_ratio([1.0, 2.0], [NAN, NAN]) == (0.0, 0.0, 0.0)

    def test_misses_on_both_sides_leave_everything_open(self):
        ratio, low, high = bootstrap_ratio([INF, INF], [INF, INF])
        assert math.isnan(ratio)
        assert (low, high) == (0.0, INF)

    def test_a_minority_of_misses_leaves_the_ratio_and_widens_the_interval(self):
        a, b = [2.0, 2.0, 2.0, INF], [1.0, 1.0, 1.0, INF]
        assert bootstrap_ratio(a, b) == (2.0, 0.0, INF)
        assert bootstrap_ratio([2.0] * 4, b) == (2.0, 0.0, 2.0)
        assert bootstrap_ratio(a, [1.0] * 4) == (2.0, 2.0, INF)

    @pytest.mark.parametrize(
        ("a", "b", "ratio"), [([], [], NAN), ([1.0], [], NAN), ([3.0], [2.0], 1.5)]
    )
    def test_fewer_than_two_values_bound_nothing(self, a, b, ratio):
        assert bootstrap_ratio(a, b) == pytest.approx((ratio, 0.0, INF), nan_ok=True, abs=0)

    def test_the_seed_and_nothing_else_decides_the_draw(self):
        a, b = [1.0, 2.0, 4.0, 7.0, 9.0], [1.0, 3.0, 5.0, 8.0]
        draws = {bootstrap_ratio(a, b, num_resamples=20, seed=seed) for seed in (1, 1, 2, 3, 4)}
        assert 1 < len(draws) < 5

    def test_values_below_zero_are_refused(self):
        with pytest.raises(ConfigError, match="below 0"):
            bootstrap_ratio([-1.0], [1.0])


rounds = st.lists(st.tuples(times, times), min_size=1, max_size=9)


class TestPairedRatio:
    @staticmethod
    def blocks(pairs):
        return [
            timed
            for index, (a, b) in enumerate(pairs)
            for timed in (block(index, "a", a), block(index, "b", b))
        ]

    def test_it_is_the_median_of_the_ratios_and_not_the_ratio_of_the_medians(self):
        pairs = [(2.0, 1.0), (30.0, 10.0), (4.0, 1.0)]
        assert paired_ratio(self.blocks(pairs), "a", "b").ratio == 3.0

    def test_time_is_per_iteration(self):
        timed = [block(0, "a", 3.0, iterations=30), block(0, "b", 2.0, iterations=10)]
        assert paired_ratio(timed, "a", "b").ratio == 0.5

    @given(rounds, st.lists(st.integers(-8, 8), min_size=9, max_size=9))
    def test_what_slows_a_whole_round_down_cancels_out(self, pairs, exponents):
        slowed = [(a * 2.0**e, b * 2.0**e) for (a, b), e in zip(pairs, exponents, strict=False)]
        one = paired_ratio(self.blocks(pairs), "a", "b", num_resamples=100)
        other = paired_ratio(self.blocks(slowed), "a", "b", num_resamples=100)
        assert one == other  # exactly, by powers of two

    @given(rounds, st.randoms())
    def test_the_order_of_blocks_does_not_matter(self, pairs, rng: random.Random):
        timed = self.blocks(pairs)
        one = paired_ratio(timed, "a", "b", num_resamples=100)
        assert paired_ratio(rng.sample(timed, len(timed)), "a", "b", num_resamples=100) == one

    @given(rounds)
    def test_the_interval_holds_the_ratio(self, pairs):
        ratio, low, high = paired_ratio(self.blocks(pairs), "a", "b")
        assert low <= ratio <= high

    def test_an_arm_over_itself_is_one(self):
        timed = self.blocks([(2.0, 1.0), (3.0, 1.0)])
        assert paired_ratio(timed, "a", "a") == (1.0, 1.0, 1.0)

    def test_half_a_round_is_left_out(self):
        timed = [*self.blocks([(2.0, 1.0)]), block(1, "a", 100.0), block(2, "b", 100.0)]
        assert paired_ratio(timed, "a", "b").ratio == 2.0

    def test_of_a_block_timed_twice_the_later_counts(self):
        timed = [block(0, "a", 100.0), *self.blocks([(2.0, 1.0)])]
        assert paired_ratio(timed, "a", "b").ratio == 2.0

    def test_one_round_bounds_nothing(self):
        assert paired_ratio(self.blocks([(2.0, 1.0)]), "a", "b") == (2.0, 0.0, INF)

    def test_no_common_round_is_nan(self):
        ratio, low, high = paired_ratio([block(0, "a", 1.0)], "a", "b")
        assert math.isnan(ratio)
        assert (low, high) == (0.0, INF)
