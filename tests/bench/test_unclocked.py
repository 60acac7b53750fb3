"""Runs in several processes: no clock while they run, and seconds from the timing afterward."""

import io
import json
import math
import os
import pickle
import signal
from dataclasses import replace
from functools import partial

import pytest
from fake_records import make_record, write_fake_records
from rich.console import Console
from test_job import tiny_job
from tiny import tiny_arm, tiny_learner

from synthgrad.bench.figures.data import curves
from synthgrad.bench.figures.paper import accuracy_svg
from synthgrad.bench.records.derived import with_derived_seconds
from synthgrad.bench.records.reading import read_records
from synthgrad.bench.report import write_report
from synthgrad.bench.running.runner import run_job
from synthgrad.bench.running.throughput import ThroughputPlan
from synthgrad.bench.scoring.formats import MISSING
from synthgrad.bench.scoring.iterations import vary_iterations
from synthgrad.bench.scoring.summary import summarize
from synthgrad.bench.scoring.table import all_tables, to_markdown
from synthgrad.errors import ConfigError, RecordError
from synthgrad.experiments import EXPERIMENTS
from synthgrad.experiments.comparison import Comparison

MILLISECONDS = {"backprop": 5.0, "no-signal": 2.5, "dni-linear": 7.5}  # as fake_records has them


def build_once_dead(marker, seed, data):
    """Die the first time, as a process does that runs out of memory."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return tiny_learner("cdni", seed)


def read(out):
    records, problems = read_records(out)
    assert problems == []
    return {record.name: record for record in records}


def run(out, console=None, processes=1, **values):
    console = console or quiet()
    return run_job(tiny_job(**values), out, console=console, processes=processes)


def quiet():
    return Console(file=io.StringIO(), width=100)


def scores(record):
    return [(s.iteration, s.val_loss, s.train_loss, s.stage_updates) for s in record.snapshots]


def take_clocks_away(out, arms=None, rounds=True):
    """Make the runs of a folder (of some arms) such as were trained beside others."""
    for path in sorted((out / "runs").iterdir()):
        run_file, events_file = path / "run.json", path / "events.jsonl"
        content = json.loads(run_file.read_text())
        if arms is not None and content["arm"] not in arms:
            continue
        run_file.write_text(json.dumps({**content, "clocked": False}))
        events = [json.loads(line) for line in events_file.read_text().splitlines()]
        for event in events:
            event |= {key: None for key in ("seconds", "cold_seconds") if key in event}
        events_file.write_text("".join(json.dumps(event) + "\n" for event in events))
    return out


@pytest.fixture(scope="module")
def unclocked(tmp_path_factory):
    return read(take_clocks_away(write_fake_records(tmp_path_factory.mktemp("unclocked"))))


@pytest.fixture(scope="module")
def untimed(tmp_path_factory):
    out = write_fake_records(tmp_path_factory.mktemp("untimed"), num_rounds=0)
    return read(take_clocks_away(out))


COMPARISONS = [name for name, e in EXPERIMENTS.items() if isinstance(e, Comparison)]


class TestRunning:
    def test_runs_in_processes_and_their_timing_later(self, tmp_path):
        arms = (
            tiny_arm("backprop"),
            tiny_arm("cdni", build=partial(build_once_dead, tmp_path / "marker")),
            tiny_arm("no-signal", missing=partial(str, "no compiler")),
        )
        some, out, console = {"arms": arms, "seeds": (0, 1)}, tmp_path / "out", quiet()
        none = ThroughputPlan(rounds=0, block_iterations=1)
        first = run(out, console, processes=2, threads="best", throughput=none, **some)
        assert first.runs == {"finished": 3, "crashed": 1, "unavailable": 2}
        lines = console.file.getvalue().splitlines()
        assert len(lines) == 6
        [dead] = [line.partition(":")[0] for line in lines if "killed by SIGKILL" in line]
        before = read(out)
        assert "throughput" not in before
        assert before[f"runs/{dead}"].status == "interrupted"
        record = before["runs/backprop-s0"]
        assert not record.clocked
        assert record.config["threads"] == record.facts["threads"] >= 1
        timed = {"seconds", "cold_seconds"}
        assert {event[key] for event in record.events for key in timed & event.keys()} == {None}

        # Other threads make no stranger of it, and what died is tried again, without a clock.
        later = run(out, threads=1, **some)
        assert later.runs == {"finished": 4, "unavailable": 2}
        after = read(out)
        assert not any(record.clocked for record in after.values() if record.arm in ("cdni",))
        for seed in (0, 1):
            alone = read_alone(tmp_path / f"alone{seed}", seed)
            assert scores(after[f"runs/backprop-s{seed}"]) == scores(alone)
        blocks = [b for b in after["throughput"].blocks if b.arm == "backprop"]
        pace = sum(block.seconds / block.iterations for block in blocks) / 2  # of two: the median
        seconds = after["runs/backprop-s0"].snapshots[-1].seconds
        assert seconds == pytest.approx(12 * pace, rel=1e-12)  # as summed in another order

    def test_what_cannot_be_sent(self, tmp_path):
        arms = (tiny_arm("backprop", build=lambda seed, data: tiny_learner()),)
        with pytest.raises(ConfigError, match="cannot be sent to another process"):
            run(tmp_path, processes=2, arms=arms)

    def test_too_few_processes(self, tmp_path):
        with pytest.raises(ConfigError, match="processes=0 must be 1 or more"):
            run(tmp_path, processes=0)

    @pytest.mark.parametrize("name", COMPARISONS)
    def test_every_experiments_job_can_be_sent(self, name):
        experiment = EXPERIMENTS[name]
        for job in experiment.cases(experiment.presets["smoke"], "smoke").values():
            sent = pickle.loads(pickle.dumps(job))
            assert sent.runs()[0][0].name == job.runs()[0][0].name

    def test_a_timing_is_added_to_runs_that_had_none(self, tmp_path):
        arms = (tiny_arm("backprop"), tiny_arm("cdni"))
        run(tmp_path, arms=arms, seeds=(0,), throughput=ThroughputPlan(rounds=0))
        before = read(tmp_path)
        assert set(before) == {"runs/backprop-s0", "runs/cdni-s0"}
        console = quiet()
        run(tmp_path, console, arms=arms, seeds=(0,))
        assert console.file.getvalue().count("finished before, kept in") == 2
        after = read(tmp_path)
        assert {b.arm for b in after["throughput"].blocks} == {"backprop", "cdni"}
        clocked = after["runs/cdni-s0"]
        assert clocked.clocked
        assert clocked.snapshots == before["runs/cdni-s0"].snapshots
        run(tmp_path, arms=arms, seeds=(0, 1), throughput=ThroughputPlan(rounds=0))
        assert len(read(tmp_path)["throughput"].blocks) == 4  # as it was

    def test_another_config_is_refused_without_a_timing(self, tmp_path):
        values = {"seeds": (0,), "throughput": ThroughputPlan(rounds=0)}
        run(tmp_path, **values)
        with pytest.raises(RecordError, match=r"config\.threads"):
            run(tmp_path, threads=2, **values)  # they had a clock


def read_alone(out, seed):
    run(out, arms=(tiny_arm("backprop"),), seeds=(seed,), throughput=ThroughputPlan(rounds=0))
    return read(out)[f"runs/backprop-s{seed}"]


def case(name, clocked, pace):
    """Return a run of 10 iterations in a case, and the case's timing if it has a pace."""
    run = make_record(10.0, 97.0, config={"case": name})
    timing = replace(
        run,
        run={**run.run, "kind": "throughput", "arm": "throughput"},
        events=(
            {
                "event": "block",
                "round": 0,
                "arm": "backprop",
                "iterations": 5,
                "seconds": 5 * (pace or 1.0),
                "examples": 50,
                "stage_updates": 20,
            },
        ),
    )
    run = replace(run, run={**run.run, "clocked": clocked})
    return [run, timing] if pace else [run]


class TestDerivedSeconds:
    def test_they_are_iterations_times_the_median_of_the_blocks(self, unclocked):
        run = unclocked["runs/backprop-s1"]
        blocks = [b for b in unclocked["throughput"].blocks if b.arm == "backprop"]
        costs = sorted(block.seconds / block.iterations for block in blocks)
        pace = (costs[9] + costs[10]) / 2
        assert pace == pytest.approx(0.005, rel=0.02)  # its blocks jitter by 2 %
        assert [s.seconds for s in run.snapshots] == [pace * s.iteration for s in run.snapshots]
        assert run.finished["seconds"] == pace * 600

    def test_every_number_is_there_but_the_cold_start(self, unclocked):
        summaries = {s.arm: s for s in summarize(unclocked.values())}
        backprop = summaries["backprop"]
        assert backprop.seconds_from == "iterations x median time of an iteration"
        assert backprop.timing == "interleaved blocks"
        assert backprop.cold_seconds is None
        assert backprop.seconds == pytest.approx(3.0, rel=0.02)
        assert backprop.goals[0].seconds_ratio == 1.0
        assert backprop.val_accuracy_at_equal_seconds is not None
        assert backprop.equal_seconds == pytest.approx(600 * 0.0025, rel=0.02)  # of no-signal
        assert summaries["no-signal"].goals[0].hit_fraction == 0.0

    def test_one_run_without_a_clock_and_no_clock_counts(self, tmp_path):
        out = take_clocks_away(write_fake_records(tmp_path), arms=("no-signal",))
        records = read(out)
        assert not any(record.clocked for record in records.values() if record.kind == "run")
        run = records["runs/backprop-s2"]
        assert run.snapshots[-1].seconds == run.snapshots[0].seconds + run.finished["seconds"]
        assert run.snapshots[-1].seconds != 600 * 0.005 * 1.02  # what its clock said

    def test_with_clocks_nothing_changes(self):
        records = [make_record(10.0, 97.0), make_record(10.0, 98.0, arm="other")]
        assert with_derived_seconds(records) == records

    def test_every_case_has_the_pace_of_its_own_timing(self):
        records = [
            *case("small", clocked=False, pace=0.1),
            *case("large", clocked=False, pace=0.4),
            *case("clocked", clocked=True, pace=0.9),
            *case("untimed", clocked=False, pace=None),
        ]
        derived = with_derived_seconds(records)
        ends = {r.case: r.snapshots[-1].seconds for r in derived if r.kind == "run"}
        assert math.isnan(ends.pop("untimed"))
        assert ends == pytest.approx({"small": 1.0, "large": 4.0, "clocked": 1.0})
        assert [r.name for r in derived] == [r.name for r in records]

    def test_the_page_says_so(self, tmp_path):
        out = take_clocks_away(write_fake_records(tmp_path))
        text = write_report(out).read_text(encoding="utf-8")
        assert "time is iterations x median time of an iteration." in text
        assert "no run&#39;s clock is used" in text
        records = read(out)
        tables = all_tables(summarize(records.values()), records.values())
        assert "seconds are iterations x median time of an iteration" in to_markdown(tables[0])


class TestNotMeasured:
    def test_no_number_that_needs_seconds(self, untimed):
        for summary in summarize(untimed.values()):
            numbers = summary.to_json()
            unknown = [key for key in numbers if "seconds" in key or key.startswith("time_")]
            unknown += ["speedup_per_iteration", "speedup_per_stage_update", "examples_per_second"]
            unknown.remove("cold_seconds")
            told = {key: numbers[key] for key in unknown if numbers[key] is not None}
            told.pop("seconds_from", None)  # an arm that never ran has lost no clock
            assert told == {}
            assert {goal.seconds_ratio for goal in summary.goals} <= {None}

    def test_what_needs_none_is_as_it_was(self, untimed, unclocked):
        for ours, theirs in zip(
            summarize(untimed.values()), summarize(unclocked.values()), strict=True
        ):
            assert ours.val_accuracy_at_equal_iterations == theirs.val_accuracy_at_equal_iterations
            assert [g.hit_fraction for g in ours.goals] == [g.hit_fraction for g in theirs.goals]
            assert [g.examples for g in ours.goals] == [g.examples for g in theirs.goals]

    def test_tables_have_dashes_and_no_misses(self, untimed):
        records = list(untimed.values())
        arms, *_ = all_tables(summarize(records), records)
        [backprop] = [row for row in arms.rows if row[0] == "backprop"]
        assert backprop[4:] == (MISSING,) * 5
        [no_signal] = [row for row in arms.rows if row[0] == "no signal"]
        assert no_signal[5:7] == ("missed", "missed")
        assert all(point.seconds is None for point in vary_iterations(records))

    def test_an_arm_that_was_not_timed_beside_others_that_were(self, tmp_path):
        out = take_clocks_away(write_fake_records(tmp_path))
        events = out / "throughput" / "events.jsonl"
        lines = events.read_text().splitlines(keepends=True)
        events.write_text("".join(line for line in lines if '"arm": "backprop"' not in line))
        summaries = {s.arm: s for s in summarize(read(out).values())}
        backprop, no_signal = summaries["backprop"], summaries["no-signal"]
        assert (backprop.seconds, backprop.seconds_per_iteration) == (None, None)
        assert backprop.seconds_from is None
        assert no_signal.seconds_per_iteration == pytest.approx(0.0025, rel=0.02)
        assert no_signal.time_ratio is None
        assert summaries["cdni-linear"].goals[0].seconds_ratio is None
        assert no_signal.equal_seconds == pytest.approx(600 * 0.0025, rel=0.02)

    def test_the_report_is_written(self, tmp_path):
        out = take_clocks_away(write_fake_records(tmp_path, num_rounds=0))
        text = write_report(out).read_text(encoding="utf-8")
        assert "time was not measured." in text
        records = list(read(out).values())
        drawn = curves(records, summarize(records))
        assert set(drawn["arms"][0]["median"]["seconds"]) == {None}
        assert accuracy_svg(drawn).startswith("<?xml")
