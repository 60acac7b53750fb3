"""Summaries, and a golden report: `python tests/bench/test_summary.py` accepts a change to it."""

import json
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from fake_records import FakeArm, make_record, write_fake_records
from hypothesis import given
from hypothesis import strategies as st

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.records.record import read_records
from synthgrad.bench.scoring.claims import Claim
from synthgrad.bench.scoring.iterations import vary_iterations
from synthgrad.bench.scoring.summary import summarize
from synthgrad.errors import ConfigError

GOLDEN = Path(__file__).parent / "golden_summary.json"

CLAIM = Claim(
    claim="time of training",
    paper="over 3-fold faster (Bisong 2017, abstract)",
    measured="1.60 times backprop's time an iteration, n = 20 rounds",
    verdict="not reproduced",
    reason="in one process on one device nothing is asynchronous",
)


def claims_about_cdni(summaries):
    assert summaries["cdni-linear"].time_ratio is not None
    return {"cdni-linear": [CLAIM]}


def golden_report(folder):
    records, problems = read_records(write_fake_records(folder))
    assert problems == []
    summaries = summarize(records, claims=claims_about_cdni)
    objects = [summary.to_json() for summary in summaries]
    return json.dumps(objects, indent=1, allow_nan=False) + "\n"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return read_records(write_fake_records(tmp_path_factory.mktemp("records")))[0]


@pytest.fixture(scope="module")
def by_arm(records):
    return {summary.arm: summary for summary in summarize(records)}


def two_arms(*accuracies, **changes):
    """Return two seeds of backprop and two of another arm that gets these accuracies."""
    base = [make_record(10.0, 97.0, 98.0, seed=seed) for seed in range(2)]
    other = [make_record(*accuracies, arm="other", seed=seed, **changes) for seed in range(2)]
    return [*base, *other]


class TestWhole:
    def test_the_golden_report(self, tmp_path):
        assert json.loads(golden_report(tmp_path)) == json.loads(GOLDEN.read_text())

    @given(st.randoms())
    def test_the_order_of_records_does_not_matter(self, records, rng: random.Random):
        shuffled = rng.sample(records, len(records))
        assert summarize(shuffled) == summarize(records)
        assert vary_iterations(shuffled) == vary_iterations(records)

    def test_arms_come_in_the_order_in_which_they_were_started(self, by_arm):
        assert list(by_arm) == [
            "backprop",
            "backprop-compiled",
            "no-signal",
            "dni-linear",
            "cdni-linear",
            "cdni-mirror-p0.2",
        ]

    def test_no_records_have_no_summaries(self):
        assert summarize([]) == []

    def test_runs_of_tune_are_left_out(self):
        record = make_record(10.0, 99.0)
        tune = replace(record, run={**record.run, "kind": "tune"})
        assert summarize([tune]) == []

    def test_there_must_be_a_goal(self):
        with pytest.raises(ConfigError, match="at least one goal"):
            summarize([], goals=())

    def test_summarizing_reads_no_file_and_parses_each_run_once(self, records, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("a file was opened")

        asked = []
        original = RunRecord.of_kind

        def counted(record, name):
            asked.append((record.name, name))
            return original(record, name)

        monkeypatch.setattr(Path, "open", refuse)
        monkeypatch.setattr(Path, "read_bytes", refuse)
        monkeypatch.setattr("builtins.open", refuse)
        monkeypatch.setattr(RunRecord, "of_kind", counted)
        fresh = [replace(record) for record in records]
        summarize(fresh)
        vary_iterations(fresh)
        snapshots = [name for name, kind in asked if kind in ("snapshot", "block")]
        assert len(snapshots) == len(set(snapshots))


class TestStatus:
    def test_a_failed_run_is_scored_and_counts_as_the_worst(self, by_arm):
        arm = by_arm["dni-linear"]
        assert (arm.status, arm.num_seeds) == ("failed", 3)
        assert arm.reason == "seed 1: loss is NaN at iteration 247"
        assert arm.test_accuracy_points == (97.3044, None, 97.4044)
        assert arm.test_accuracy == 97.3044
        assert arm.goals[0].hit_fraction == pytest.approx(2 / 3)
        assert arm.seconds_to_goal == 3.825  # the slower of the two that got there

    def test_an_interrupted_run_is_listed_and_not_scored(self, by_arm):
        arm = by_arm["cdni-mirror-p0.2"]
        assert (arm.status, arm.num_seeds, arm.num_interrupted) == ("interrupted", 2, 1)
        assert arm.reason == "seed 2: interrupted at iteration 347"
        assert len(arm.test_accuracy_points) == 2
        assert len(arm.records) == 3

    def test_an_unavailable_arm_says_why_and_has_no_numbers(self, by_arm):
        arm = by_arm["backprop-compiled"]
        assert (arm.status, arm.reason, arm.num_seeds) == ("unavailable", "no C++ compiler", 0)
        assert arm.test_accuracy is None
        assert arm.seconds_per_iteration is None
        assert arm.timing is None
        assert arm.records[0] == "runs/backprop-compiled-s0"

    def test_an_arm_of_which_every_run_was_interrupted_keeps_its_speed(self):
        [arm] = summarize([make_record(10.0, 99.0, ending="interrupted")])
        assert (arm.status, arm.num_seeds) == ("interrupted", 0)
        assert arm.test_accuracy is None
        assert arm.seconds_to_goal is None
        assert arm.seconds_per_iteration == 0.1

    def test_a_failed_majority_leaves_no_median(self):
        good = make_record(10.0, 99.0)
        bad = [make_record(10.0, 99.0, seed=seed, ending="failed") for seed in (1, 2)]
        [arm] = summarize([good, *bad])
        assert arm.test_accuracy is None
        assert arm.test_accuracy_points == (99.0, None, None)
        assert arm.seconds is None
        assert arm.reason == "seed 1: loss is NaN; seed 2: loss is NaN"

    def test_many_reasons_are_cut_short(self):
        bad = [make_record(10.0, seed=seed, ending="failed") for seed in range(5)]
        [arm] = summarize([make_record(10.0, seed=9), *bad])
        assert arm.reason.endswith("seed 2: loss is NaN; and 2 more")


class TestGoals:
    def test_the_first_goal_is_also_told_by_itself(self, by_arm):
        arm = by_arm["cdni-linear"]
        assert [goal.goal for goal in arm.goals] == [97.0, 98.0]
        assert arm.seconds_to_goal == arm.goals[0].seconds == 2.828
        assert arm.examples_to_goal == arm.goals[0].examples == 350 * 256

    def test_a_goal_that_all_missed_is_null_everywhere(self, by_arm):
        goal = by_arm["no-signal"].goals[0]
        assert (goal.seconds, goal.examples, goal.hit_fraction) == (None, None, 0.0)
        assert goal.seconds_points == (None, None, None)
        assert (goal.seconds_ratio, goal.seconds_ratio_interval) == (None, None)

    def test_the_ratio_is_over_the_baselines_seconds(self):
        [_, other] = summarize(two_arms(10.0, 20.0, 97.0))
        assert other.goals[0].seconds_ratio == 2.0
        assert other.goals[0].seconds_ratio_interval == (2.0, 2.0)

    def test_without_the_baseline_there_is_no_ratio(self):
        [arm] = summarize([make_record(10.0, 99.0, arm="other", seed=s) for s in range(2)])
        assert arm.goals[0].seconds_ratio is None
        assert arm.goals[0].seconds_ratio_interval is None
        assert arm.time_ratio is None

    def test_points_are_in_the_order_of_the_seeds(self):
        runs = [make_record(10.0, accuracy, seed=s) for s, accuracy in ((10, 92.0), (2, 90.0))]
        [arm] = summarize(runs)
        assert arm.test_accuracy_points == (90.0, 92.0)


class TestEqualBudgets:
    def test_each_budget_is_what_the_arm_that_is_done_soonest_spent(self):
        # The other arm trains 20 iterations at half the pace, so backprop is done in 20 iterations
        # and 2 seconds, within which the other has done 10.
        slow = two_arms(10.0, 50.0, 90.0, 95.0, seconds_per_snapshot=2.0)
        base, other = summarize(slow)
        assert base.equal_iterations == other.equal_iterations == 20
        assert base.equal_seconds == other.equal_seconds == 2.0
        assert base.equal_stage_updates == other.equal_stage_updates == 80
        assert other.val_accuracy_at_equal_iterations == 90.0
        assert other.val_accuracy_at_equal_seconds == 50.0
        assert other.val_accuracy_at_equal_stage_updates == 90.0
        assert base.val_accuracy_at_equal_seconds == base.val_accuracy == 98.0
        assert other.val_accuracy == 95.0

    def test_every_run_of_the_arm_that_is_done_soonest_is_within_it(self):
        runs = [make_record(10.0, 90.0 + s, seed=s, seconds_per_snapshot=1 + s) for s in range(3)]
        [arm] = summarize(runs)
        assert arm.equal_seconds == 3.0
        assert arm.val_accuracy_at_equal_seconds == 91.0

    def test_fewer_updates_an_iteration_are_seen_at_equal_updates_only(self, by_arm):
        backprop, skipping = by_arm["backprop"], by_arm["cdni-mirror-p0.2"]
        assert backprop.equal_stage_updates == 480
        assert backprop.val_accuracy_at_equal_stage_updates == pytest.approx(75.2, abs=0.1)
        assert skipping.val_accuracy_at_equal_stage_updates == skipping.val_accuracy

    def test_nothing_finished_sets_no_budget(self):
        [arm] = summarize([make_record(10.0, 99.0, ending="failed")])
        assert arm.equal_seconds is None
        assert arm.val_accuracy_at_equal_seconds is None


class TestSpeed:
    def test_blocks_are_preferred(self, by_arm):
        arm = by_arm["cdni-linear"]
        assert (arm.timing, arm.num_rounds, arm.threads) == ("interleaved blocks", 20, 1)
        assert arm.timing_record == "throughput"
        assert arm.time_ratio == pytest.approx(1.6, rel=0.02)
        low, high = arm.time_ratio_interval
        assert low < arm.time_ratio < high
        assert arm.speedup_per_iteration == 1 / arm.time_ratio

    def test_skipping_is_a_speed_up_an_iteration_and_none_an_update(self, by_arm):
        arm = by_arm["cdni-mirror-p0.2"]
        assert arm.speedup_per_iteration == pytest.approx(5.0 / 4.2, rel=0.02)
        assert arm.speedup_per_stage_update == pytest.approx(5.0 / 4.2 / 5, rel=0.02)

    def test_rates_are_counts_an_iteration_at_the_median_pace(self, by_arm):
        arm = by_arm["no-signal"]
        assert arm.examples_per_second == pytest.approx(256 / arm.seconds_per_iteration)
        assert arm.stage_updates_per_second == pytest.approx(1 / arm.seconds_per_iteration)

    def test_of_two_throughput_records_the_latest_counts(self, records):
        [timing] = [record for record in records if record.kind == "throughput"]
        later = replace(timing, name="again", run={**timing.run, "started": "2027-01-01"})
        assert summarize([later, *records])[0].timing_record == "again"

    def test_without_blocks_the_runs_are_timed_and_their_start_is_left_out(self, tmp_path):
        records, _ = read_records(write_fake_records(tmp_path, num_rounds=0))
        by_arm = {summary.arm: summary for summary in summarize(records)}
        arm = by_arm["cdni-linear"]
        assert (arm.timing, arm.num_rounds, arm.timing_record) == ("runs", 0, None)
        assert arm.seconds_per_iteration == pytest.approx(0.00808)
        assert arm.time_ratio == pytest.approx(1.6)
        assert by_arm["backprop"].time_ratio == 1.0

        first, *rest = make_record(10.0, 20.0).events
        late = {**first, "seconds": 0.5}
        [summary] = summarize([replace(make_record(10.0, 20.0), events=(late, *rest))])
        assert summary.seconds_per_iteration == pytest.approx(0.05)

    def test_a_run_of_a_single_snapshot_has_no_speed(self):
        [arm] = summarize([make_record(10.0)])
        assert arm.seconds_per_iteration is None
        assert arm.threads is None

    def test_an_arm_without_blocks_is_timed_by_its_runs(self, records):
        extra = [make_record(10.0, 90.0, arm="extra", seed=seed) for seed in range(2)]
        arm = next(s for s in summarize([*records, *extra]) if s.arm == "extra")
        assert arm.timing == "runs"
        assert arm.timing_record is None
        assert arm.time_ratio == pytest.approx(0.1 / 0.00505, rel=0.02)

    def test_an_arm_that_updates_nothing_has_no_speed_up_an_update(self, tmp_path):
        frozen = FakeArm(
            arm="backprop",
            label="frozen",
            signal=None,
            limit=10.0,
            pace=1.0,
            milliseconds=1.0,
            updates_per_iteration=0,
        )
        records, _ = read_records(write_fake_records(tmp_path, arms=(frozen,)))
        [arm] = summarize(records)
        assert arm.stage_updates_per_second == 0.0
        assert arm.speedup_per_stage_update is None


class TestClaims:
    def test_claims_are_given_to_their_arm(self, records):
        by_arm = {s.arm: s for s in summarize(records, claims=claims_about_cdni)}
        assert by_arm["cdni-linear"].claim == (CLAIM,)
        assert by_arm["backprop"].claim == ()
        assert by_arm["cdni-linear"].to_json()["claim"][0]["verdict"] == "not reproduced"

    def test_a_claim_about_no_arm_is_an_error(self, records):
        with pytest.raises(ConfigError, match="'cdni'"):
            summarize(records, claims=lambda _: {"cdni": [CLAIM]})

    @pytest.mark.parametrize("field", ["claim", "paper", "measured", "verdict", "reason"])
    def test_every_part_needs_a_text(self, field):
        with pytest.raises(ConfigError, match=field):
            replace(CLAIM, **{field: " "})

    def test_the_verdict_is_one_of_three(self):
        with pytest.raises(ConfigError, match="reproduced, not reproduced, not comparable"):
            replace(CLAIM, verdict="faster")


class TestIterationsVaried:
    def test_each_share_has_its_seconds_and_its_accuracy(self, records):
        points = [point for point in vary_iterations(records) if point.arm == "backprop"]
        assert [point.fraction for point in points] == [0.25, 0.5, 1.0]
        assert [point.iterations for point in points] == [150, 300, 600]
        assert [point.seconds for point in points] == [0.7575, 1.515, 3.03]
        assert [point.val_accuracy for point in points] == [86.6093, 96.9772, 98.5703]

    def test_a_run_that_failed_later_counts_until_then(self, records):
        points = [point for point in vary_iterations(records) if point.arm == "dni-linear"]
        seconds = [point.seconds for point in points]
        assert seconds[0] == 1.13625  # the median of three
        assert seconds[1:] == [2.295, 4.59]  # the worse of the two that got there

    def test_an_arm_that_never_ran_has_no_numbers(self, records):
        points = [point for point in vary_iterations(records) if point.arm == "backprop-compiled"]
        assert {(p.iterations, p.seconds, p.val_accuracy) for p in points} == {(None, None, None)}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        GOLDEN.write_text(golden_report(Path(scratch)))
