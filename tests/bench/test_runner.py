"""Whole experiments of tiny arms, through the records on disk."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from test_job import tiny_job
from tiny import tiny_arm, tiny_data, tiny_plan

from synthgrad.bench.records.reading import read_records
from synthgrad.bench.report.measured import describe_conditions
from synthgrad.bench.running import runner, training
from synthgrad.bench.running.runner import run_job, tune_job
from synthgrad.bench.running.throughput import ThroughputPlan
from synthgrad.bench.running.tuning import best_rates, trials
from synthgrad.bench.scoring.summary import summarize
from synthgrad.errors import ConfigError, CorruptDataError, DataNotFoundError, RecordError


def run(out, console=None, **values):
    return run_job(tiny_job(**values), out, console=console or quiet())


def quiet():
    return Console(file=io.StringIO(), width=100)


def files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def records(out):
    found, problems = read_records(out)
    assert problems == []
    return {record.name: record for record in found}


def test_records_say_whether_a_rate_was_tuned(tmp_path):
    arms = (tiny_arm("backprop"), tiny_arm("cdni", tuned=True))
    run(tmp_path, arms=arms, seeds=(0,), throughput=ThroughputPlan(rounds=0))
    found = records(tmp_path)
    assert {name: found[f"runs/{name}-s0"].tuned for name in ("backprop", "cdni")} == {
        "backprop": False,
        "cdni": True,
    }
    # What was recorded before it was is untuned, and no stranger to what says so.
    path = tmp_path / "runs/backprop-s0/run.json"
    before = json.loads(path.read_text())
    del before["tuned"]
    path.write_text(json.dumps(before))
    assert not records(tmp_path)["runs/backprop-s0"].tuned
    facts = describe_conditions(list(records(tmp_path).values()))["Runs"]
    assert facts["learning rates"] == "tuned for some arms and not for others"
    run(tmp_path, arms=arms, seeds=(0, 1), throughput=ThroughputPlan(rounds=0))
    assert len(records(tmp_path)) == 4


def test_a_whole_experiment(tmp_path):
    console = quiet()
    outcome = run(tmp_path, console)
    assert outcome.runs == {"finished": 9}
    assert outcome.succeeded
    found = records(tmp_path)
    names = {f"runs/{arm}-s{seed}" for arm in ("backprop", "cdni", "cdni-p05") for seed in range(3)}
    assert set(found) == {*names, "throughput"}
    assert all(record.status == "finished" for record in found.values())
    assert found["runs/cdni-s1"].config["iterations"] == 12
    assert found["runs/cdni-s1"].facts["threads"] == 1
    assert len(found["throughput"].blocks) == 2 * 3
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 9  # off a terminal, a line a run
    assert lines[0].startswith("backprop-s0: finished: ")
    summaries = summarize(found.values())
    assert [summary.arm for summary in summaries] == ["backprop", "cdni", "cdni-p05"]
    assert [summary.num_seeds for summary in summaries] == [3, 3, 3]
    assert all(summary.time_ratio for summary in summaries)


def test_arms_start_from_the_same_weights_and_see_the_same_batches(tmp_path, monkeypatch):
    losses = {}
    advance = training.advance

    def noted(learner, batches, num_iterations):
        found, num_updates = advance(learner, batches, num_iterations)
        losses.setdefault(learner.decoupled is None, found[0].item())
        return found, num_updates

    monkeypatch.setattr(training, "advance", noted)
    run(tmp_path, arms=(tiny_arm("backprop"), tiny_arm("cdni")), seeds=(4,))
    assert losses[True] == losses[False]


def test_what_is_finished_is_kept(tmp_path):
    run(tmp_path)
    before, console = files(tmp_path), quiet()
    outcome = run(tmp_path, console)
    assert files(tmp_path) == before
    assert outcome.runs == {"finished": 9}
    assert console.file.getvalue().count("finished before, kept in") == 9


def test_more_seeds_are_added(tmp_path):
    run(tmp_path, seeds=(0,))
    before = files(tmp_path)
    run(tmp_path, seeds=(0, 1))
    after = files(tmp_path)
    assert before.items() <= after.items()
    assert len(records(tmp_path)) == 7


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"config": {"dataset": "tiny", "iterations": 13}}, "iterations"),
        ({"threads": 2}, "threads"),
        ({"throughput": ThroughputPlan(rounds=3, block_iterations=1)}, "rounds"),
        ({"arms": (tiny_arm("backprop", options={"learning_rate": 2}),)}, "arms"),
    ],
)
def test_another_config_is_refused(tmp_path, values, key):
    run(tmp_path, seeds=(0,))
    before = files(tmp_path)
    with pytest.raises(RecordError, match=rf"config\.{key}"):
        run(tmp_path, seeds=(0,), **values)
    assert files(tmp_path) == before


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="choose another --out"):
        run(tmp_path / "file" / "out")


def test_a_diverged_run_stops_and_the_others_go_on(tmp_path):
    arms = (tiny_arm("backprop"), tiny_arm("cdni", learning_rate=1e38), tiny_arm("no-signal"))
    outcome = run(tmp_path, arms=arms, seeds=(0, 1))
    assert outcome.runs == {"finished": 4, "failed": 2}
    assert outcome.succeeded
    record = records(tmp_path)["runs/cdni-s0"]
    assert record.status == "failed"
    assert "loss is" in record.reason
    assert "at iteration" in record.reason
    assert record.snapshots[0].iteration == 0
    (cdni,) = (s for s in summarize(records(tmp_path).values()) if s.arm == "cdni")
    assert cdni.status == "failed"
    assert cdni.test_accuracy is None


def test_nothing_but_divergence_is_no_success(tmp_path):
    assert not run(tmp_path, arms=(tiny_arm(learning_rate=1e38),), seeds=(0,)).succeeded


@pytest.mark.parametrize("threads", [1, "best"])
def test_a_crash_is_told_and_the_others_go_on(tmp_path, capsys, monkeypatch, threads):
    def build(seed, data):
        raise ValueError("no such layer")

    monkeypatch.setattr(runner, "thread_counts", lambda: (1,))
    arms, console = (tiny_arm("cdni", build=build), tiny_arm("backprop")), quiet()
    outcome = run(tmp_path, console, arms=arms, seeds=(0,), threads=threads)
    assert outcome.runs == {"finished": 1, "crashed": 1}
    assert not outcome.succeeded
    assert "no such layer" in capsys.readouterr().err
    assert "cdni: not timed: ValueError: no such layer" in console.file.getvalue()
    assert records(tmp_path)["runs/cdni-s0"].reason == "ValueError: no such layer"
    assert {block.arm for block in records(tmp_path)["throughput"].blocks} == {"backprop"}


def test_an_arm_that_cannot_run_here_is_a_row(tmp_path):
    arms = (tiny_arm("backprop"), tiny_arm("cdni", missing=lambda: "no C++ compiler"))
    outcome = run(tmp_path, arms=arms, seeds=(0, 1))
    assert outcome.runs == {"finished": 2, "unavailable": 2}
    assert outcome.succeeded
    cdni = summarize(records(tmp_path).values())[1]
    assert (cdni.status, cdni.reason) == ("unavailable", "no C++ compiler")
    assert {block.arm for block in records(tmp_path)["throughput"].blocks} == {"backprop"}


def test_an_arm_that_can_run_later_is_run_then(tmp_path):
    unavailable = (tiny_arm("backprop", missing=lambda: "no C++ compiler"),)
    run(tmp_path, arms=unavailable, seeds=(0,))
    run(tmp_path, arms=(tiny_arm("backprop"),), seeds=(0,))
    assert records(tmp_path)["runs/backprop-s0"].status == "finished"


def test_missing_data_are_rows_and_no_crash(tmp_path):
    def load():
        raise DataNotFoundError("Tiny was not found. Put it here.")

    console = quiet()
    outcome = run(tmp_path, console, load=load, seeds=(0,))
    assert outcome.runs == {"unavailable": 3}
    assert {s.reason for s in summarize(records(tmp_path).values())} == {"data not found: tiny"}
    assert "Put it here." in console.file.getvalue()
    run(tmp_path, seeds=(0,))
    assert all(s.status == "finished" for s in summarize(records(tmp_path).values()))


def test_damaged_data_are_an_error(tmp_path):
    def load():
        raise CorruptDataError("truncated")

    with pytest.raises(CorruptDataError):
        run(tmp_path, load=load)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="--device cpu"):
        run(tmp_path, device="cuda")


def interrupt_at(monkeypatch, module, name, call):
    """Let the `call`-th call of a function end as with Ctrl-C."""
    original, calls = getattr(module, name), []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, interrupted)


def scores(out):
    return {
        name: [(s.iteration, s.val_loss, s.train_loss, s.stage_updates) for s in record.snapshots]
        for name, record in records(out).items()
        if name != "throughput"
    }


@pytest.mark.parametrize("call", [1, 5, 12])
def test_interrupted_and_gone_on_with(tmp_path, monkeypatch, call):
    run(tmp_path / "whole", seeds=(0, 1))
    with monkeypatch.context() as patch:
        interrupt_at(patch, training, "advance", call)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", seeds=(0, 1))
    interrupted = [r for r in records(tmp_path / "out").values() if r.status == "interrupted"]
    assert {r.name for r in interrupted} == {"throughput", interrupted[-1].name}
    assert run(tmp_path / "out", seeds=(0, 1)).runs == {"finished": 6}
    assert scores(tmp_path / "out") == scores(tmp_path / "whole")
    assert not list((tmp_path / "out").rglob("checkpoint*"))


def test_the_timing_goes_on_with_the_next_round(tmp_path, monkeypatch):
    plan = ThroughputPlan(rounds=4, block_iterations=1)
    with monkeypatch.context() as patch:
        interrupt_at(patch, runner.TimedArm, "time_block", 8)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, seeds=(0,), throughput=plan)
    timing = records(tmp_path)["throughput"]
    assert timing.status == "interrupted"
    assert timing.events[-1]["iteration"] == 2
    run(tmp_path, seeds=(0,), throughput=plan)
    timing = records(tmp_path)["throughput"]
    assert timing.status == "finished"
    assert [block.round for block in timing.blocks] == [0, 0, 0, 1, 1, 1, 2, 3, 3, 3]


def test_each_arm_keeps_its_best_number_of_threads(tmp_path, monkeypatch):
    times = iter([{1: 2.0, 2: 1.0}, {1: 1.0, 2: 2.0}, {1: 3.0, 2: 1.0}])
    monkeypatch.setattr(runner, "calibrate", lambda build, counts: next(times))
    # Short, because two threads on a busy machine wait for each other in every operation.
    short = {"threads": "best", "plan": tiny_plan(iterations=1, warmup_steps=1)}
    short["throughput"] = ThroughputPlan(rounds=1, block_iterations=1)
    run(tmp_path, seeds=(0,), **short)
    found = records(tmp_path)
    expected = {"backprop": 2, "cdni": 1, "cdni-p05": 2}
    assert {b.arm: b.threads for b in found["throughput"].blocks} == expected
    assert {a: found[f"runs/{a}-s0"].facts["threads"] for a in expected} == expected
    calibrations = found["throughput"].of_kind("calibration")
    assert calibrations[1]["seconds_per_iteration"] == {"1": 1.0, "2": 2.0}
    run(tmp_path, seeds=(0, 1), **short)  # asks for no more calibrations
    assert records(tmp_path)["runs/cdni-s1"].facts["threads"] == 1


def test_a_real_calibration(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "thread_counts", lambda: (1,))
    run(tmp_path, seeds=(0,), arms=(tiny_arm("cdni"),), threads="best")
    (calibration,) = records(tmp_path)["throughput"].of_kind("calibration")
    assert calibration["threads"] == 1
    assert list(calibration["seconds_per_iteration"]) == ["1"]


def test_tuning(tmp_path):
    jobs = {
        rate: tiny_job(
            arms=tuple(
                tiny_arm(name, learning_rate=rate, options={"learning_rate": rate})
                for name in ("backprop", "cdni")
            ),
            seeds=(100, 101),
        )
        for rate in (1e-4, 1e-2, 1e38)
    }
    outcome = tune_job(jobs, tmp_path, console=quiet())
    assert outcome.runs == {"finished": 8, "failed": 4}
    found = records(tmp_path)
    assert f"tune/cdni-s101-lr{1e-4:g}" in found
    assert all(record.kind == "tune" for record in found.values())
    assert all("test_accuracy" not in (r.finished or {}) for r in found.values())
    tried = trials(found.values())
    assert len(tried) == 6
    assert best_rates(tried) == {"backprop": 1e-2, "cdni": 1e-2}


def test_records_name_no_path_of_the_machine(tmp_path):
    run(tmp_path, seeds=(0,))
    run_file = json.loads((tmp_path / "runs/backprop-s0/run.json").read_text())
    del run_file["argv"]
    assert str(Path.home()) not in json.dumps(run_file)
    assert str(tmp_path) not in json.dumps(run_file)


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    job = tiny_job(arms=(tiny_arm("cdni"),), seeds=(0,))
    run_job(job, tmp_path / "with", console=quiet(), tensorboard=True)
    run_job(job, tmp_path / "without", console=quiet())
    assert list((tmp_path / "with/tensorboard/cdni-s0").glob("events*"))
    assert scores(tmp_path / "with") == scores(tmp_path / "without")


def test_waking_torch_changes_nothing_random():
    before = torch.get_rng_state()
    runner._wake(torch.device("cpu"))
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)
    assert tiny_data().name == "tiny"


def test_what_crashed_is_tried_again_and_what_diverged_is_kept(tmp_path, capsys):
    def build(seed, data):
        raise MemoryError("not now")

    run(tmp_path, arms=(tiny_arm("backprop", build=build),), seeds=(0,))
    again = run(tmp_path, arms=(tiny_arm("backprop"),), seeds=(0,))
    assert again.runs == {"finished": 1}
    assert records(tmp_path)["runs/backprop-s0"].status == "finished"
    capsys.readouterr()


@pytest.mark.parametrize("device", ["banana", "cuda:7"])
def test_a_device_that_is_not_there_writes_nothing(tmp_path, device):
    with pytest.raises(ConfigError, match=f"device='{device}' cannot be used"):
        run(tmp_path, device=device)
    assert not list(tmp_path.iterdir())
