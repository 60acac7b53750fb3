"""Studies: tasks with records of their own, one after the other and in processes."""

import io
import multiprocessing
import os
import signal
import time
from functools import partial

import pytest
import torch
from rich.console import Console

from synthgrad.bench.records.reading import read_records
from synthgrad.bench.running.tasks import Task, run_tasks
from synthgrad.bench.scoring.summary import summarize
from synthgrad.errors import ConfigError, DataNotFoundError, DivergedError

CONFIG = {"device": "cpu", "size": 3}


def measure(values, log=None):
    """Yield an event with random numbers; append a line to the log, where there is one."""
    if log is not None:
        with open(log, "a", encoding="utf-8") as file:
            file.write("x")
    yield {"event": "facts", "note": "small"}
    yield {"event": "measured", "values": list(values), "iteration": [0, 1], "other": float("nan")}
    yield {"event": "drawn", "draws": torch.rand(3).tolist()}


def fail(error):
    yield {"event": "measured", "values": [1]}
    raise error


def die():
    yield {"event": "measured", "values": [1]}
    os.kill(os.getpid(), signal.SIGKILL)


def terminate_the_parent():
    yield {"event": "measured", "values": [1]}
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(600)


def misname(name):
    yield {"event": name}


def task(name, work=None, seed=0, **options):
    work = work or partial(measure, (1.0, 2.0))
    return Task(name=name, arm="linear", label="Linear", seed=seed, measure=work, options=options)


def run(tasks, out, console=None, **values):
    console = console or quiet()
    return run_tasks("study", "test", CONFIG, tasks, out, console=console, **values)


def quiet():
    return Console(file=io.StringIO(), width=100)


def read(out):
    records, problems = read_records(out)
    assert problems == []
    return {record.name: record for record in records}


def told(out):
    return {
        name: [{key: event[key] for key in event if key != "time"} for event in record.events]
        for name, record in read(out).items()
    }


def test_each_task_leaves_a_record(tmp_path):
    console = quiet()
    outcome = run([task("a/s0", width=3), task("b", seed=1, width=4)], tmp_path, console)
    assert outcome.runs == {"finished": 2}
    assert console.file.getvalue().splitlines() == [
        "a/s0: finished: 3 events",
        "b: finished: 3 events",
    ]
    records = read(tmp_path)
    assert set(records) == {"runs/a/s0", "runs/b"}  # and their configs differ
    record = records["runs/b"]
    assert (record.kind, record.experiment, record.preset) == ("study", "study", "test")
    assert (record.arm, record.label, record.seed) == ("linear", "Linear", 1)
    assert record.config == {**CONFIG, "width": 4}
    assert record.status == "finished"
    assert record.clocked
    assert record.facts == {"note": "small"}
    [event] = record.of_kind("measured")
    assert (event["values"], event["iteration"], event["other"]) == ([1.0, 2.0], [0, 1], None)
    assert record.iterations_reached == 0
    assert summarize(records.values()) == []


def test_what_is_finished_is_kept_and_the_rest_starts_anew(tmp_path, capsys):
    log, console = tmp_path / "log", quiet()
    work = partial(measure, (1.0,), log)
    broken = partial(fail, ValueError("no such layer"))
    first = run([task("kept", work), task("broken", broken)], tmp_path / "out")
    assert first.runs == {"finished": 1, "crashed": 1}
    assert not first.succeeded
    assert "no such layer" in capsys.readouterr().err
    assert read(tmp_path / "out")["runs/broken"].reason == "ValueError: no such layer"
    again = run([task("kept", work), task("broken", work)], tmp_path / "out", console)
    assert again.runs == {"finished": 2}
    assert log.read_text() == "xx"  # once for each
    assert "kept: finished before, kept in" in console.file.getvalue()
    record = read(tmp_path / "out")["runs/broken"]
    assert record.status == "finished"
    assert len(record.of_kind("measured")) == 1  # what the first attempt said is forgotten


def test_an_interruption_is_recorded_and_gone_on_with(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run([task("a", partial(fail, KeyboardInterrupt())), task("b")], tmp_path)
    assert read(tmp_path)["runs/a"].status == "interrupted"
    assert run([task("a"), task("b")], tmp_path).runs == {"finished": 2}
    assert len(read(tmp_path)["runs/a"].of_kind("measured")) == 1


def test_what_diverged_is_kept(tmp_path):
    diverging = task("a", partial(fail, DivergedError("loss is NaN at iteration 3")))
    assert run([diverging], tmp_path).runs == {"failed": 1}
    record = read(tmp_path)["runs/a"]
    assert (record.status, record.reason) == ("failed", "loss is NaN at iteration 3")
    assert run([task("a")], tmp_path).runs == {"failed": 1}


def test_data_that_are_not_here_are_asked_for_again(tmp_path):
    console = quiet()
    missing = partial(fail, DataNotFoundError("CIFAR-10 was not found. Searched:\n  /somewhere"))
    outcome = run([task("a", missing)], tmp_path, console)
    assert outcome.runs == {"unavailable": 1}
    assert outcome.succeeded
    assert "/somewhere" in console.file.getvalue()
    record = read(tmp_path)["runs/a"]
    assert (record.status, record.reason) == ("unavailable", "CIFAR-10 was not found")
    assert run([task("a")], tmp_path).runs == {"finished": 1}


def test_the_callers_random_numbers_are_left_alone(tmp_path):
    before = torch.get_rng_state()
    run([task("a"), task("b"), task("c", seed=1)], tmp_path)
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)
    draws = {name: record.of_kind("drawn")[0]["draws"] for name, record in read(tmp_path).items()}
    assert draws["runs/a"] == draws["runs/b"] != draws["runs/c"]


@pytest.mark.parametrize("name", ["finished", "resumed", None])
def test_events_that_are_not_the_tasks_to_send(tmp_path, capsys, name):
    assert run([task("a", partial(misname, name))], tmp_path).runs == {"crashed": 1}
    assert "give it a name" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "a b", "../a", "a/b/c", "/a", "a/", ".hidden"])
def test_names_that_cannot_be_folders(name):
    with pytest.raises(ConfigError, match="a task's name"):
        task(name)


def test_a_name_twice(tmp_path):
    with pytest.raises(ConfigError, match="twice: a"):
        run([task("a"), task("b"), task("a")], tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_sent_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(ConfigError, match=r"^b cannot be sent to another process.*processes=1"):
        run([task("a"), task("b", lambda: iter(()))], tmp_path, processes=2)
    assert not list(tmp_path.iterdir())


def test_processes_share_the_tasks_and_one_that_dies_costs_one(tmp_path, capfd):
    tasks = [task("a"), task("dead", die), task("b"), task("broken", partial(fail, ValueError()))]
    console = quiet()
    outcome = run(tasks, tmp_path / "shared", console, processes=2)
    assert outcome.runs == {"finished": 2, "crashed": 2}
    assert "dead: crashed: its process was killed by SIGKILL" in console.file.getvalue()
    records = read(tmp_path / "shared")
    assert not any(record.clocked for record in records.values())
    assert records["runs/dead"].status == "interrupted"
    assert records["runs/broken"].reason == "ValueError: "
    tasks = [task(each.name) for each in tasks]
    assert run(tasks, tmp_path / "shared").runs == {"finished": 4}
    assert run(tasks, tmp_path / "alone").runs == {"finished": 4}
    shared, alone = told(tmp_path / "shared"), told(tmp_path / "alone")
    assert {name: shared[name] for name in ("runs/a", "runs/b")} == {
        name: alone[name] for name in ("runs/a", "runs/b")
    }
    assert "ValueError" in capfd.readouterr().err


def test_sigterm_stops_every_process(tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    stopped, other = task("stopped", terminate_the_parent), task("other", partial(time.sleep, 600))
    with pytest.raises(KeyboardInterrupt):
        run([stopped, other], tmp_path, processes=2)
    assert not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert len(read(tmp_path)["runs/stopped"].of_kind("interrupted")) == 1
