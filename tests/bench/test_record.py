import errno
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_records import write_fake_records
from hypothesis import given
from hypothesis import strategies as st

from synthgrad.bench.records.record import RecordWriter, read_records
from synthgrad.errors import ConfigError, RecordError

SNAPSHOT = {"seconds": 1.0, "examples": 100, "stage_updates": 40, "val_accuracy": 97.5}


def a_run(**changes):
    run = {
        "kind": "run",
        "experiment": "demo",
        "arm": "backprop",
        "label": "Backprop",
        "seed": 0,
        "preset": "smoke",
        "config": {"iterations": 30, "widths": (256, 256)},
    }
    return run | changes


def write(folder, *events, **changes):
    """Write a record whose events are given as (name, values)."""
    with RecordWriter(folder, a_run(**changes)) as record:
        for name, values in events:
            record.event(name, **values)
    return folder


def snapshot(iteration, **changes):
    return "snapshot", {**SNAPSHOT, "iteration": iteration} | changes


def rewrite(path, **changes):
    """Change keys of a run.json; None takes a key away."""
    run = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: value for k, value in run.items() if value is not None}))


def read_one(out):
    [record], problems = read_records(out)
    return record, problems


class TestWriting:
    def test_two_writers_at_once_are_refused_and_the_first_goes_on(self, tmp_path):
        with RecordWriter(tmp_path / "a", a_run()) as first:
            with pytest.raises(RecordError, match="is being written by another process"):
                RecordWriter(tmp_path / "a", a_run())
            first.event("finished")
        with RecordWriter(tmp_path / "a", a_run()) as later:
            assert later.resumes
        assert read_one(tmp_path)[0].status == "finished"

    def test_what_was_written_is_read_back(self, tmp_path):
        write(
            tmp_path / "runs/backprop-s0",
            ("facts", {"flops_per_iteration": 12}),
            snapshot(0, val_accuracy=9.0),
            snapshot(10, train_loss=0.25),
            ("finished", {"iteration": 10, "seconds": 2.0, "test_accuracy": 97.0}),
        )
        assert (tmp_path / "runs/backprop-s0/events.jsonl").read_text().count("\n") == 4
        record, problems = read_one(tmp_path)
        assert problems == []
        assert record.folder == tmp_path / "runs/backprop-s0"
        assert record.name == "runs/backprop-s0"
        assert (record.kind, record.experiment, record.preset) == ("run", "demo", "smoke")
        assert (record.arm, record.label, record.seed) == ("backprop", "Backprop", 0)
        assert record.config == {"iterations": 30, "widths": [256, 256]}
        assert record.facts == {"flops_per_iteration": 12}
        assert [snap.iteration for snap in record.snapshots] == [0, 10]
        assert record.snapshots[1].val_accuracy == 97.5
        assert record.snapshots[1].train_loss == 0.25
        assert record.finished is not None
        assert record.finished["test_accuracy"] == 97.0
        assert (record.status, record.reason) == ("finished", "")

    def test_run_json_says_where_and_when(self, tmp_path):
        write(tmp_path / "a")
        run = json.loads((tmp_path / "a/run.json").read_text())
        assert run["schema"] == "1.0"
        assert run["protocol"] == "1.0"
        assert run["argv"][0] == "synthgrad"
        assert {"git", "machine", "packages"} <= run.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", run["started"])
        assert sorted(os.listdir(tmp_path / "a")) == ["events.jsonl", "run.json"]

    def test_every_event_is_on_disk_as_soon_as_it_is_told(self, tmp_path):
        with RecordWriter(tmp_path / "a", a_run()) as record:
            record.event("warmup", cold_seconds=0.5)
            [line] = (tmp_path / "a/events.jsonl").read_text().splitlines()
        event = json.loads(line)
        assert (event["event"], event["cold_seconds"]) == ("warmup", 0.5)
        assert event["time"].endswith("+00:00")

    def test_what_is_not_finite_is_null_and_read_as_nan(self, tmp_path):
        losses = {"train_loss": math.nan, "val_loss": math.inf, "val_accuracy": -math.inf}
        write(tmp_path / "a", snapshot(10, **losses))
        text = (tmp_path / "a/events.jsonl").read_text()
        assert text.count("null") == 3
        [snap] = read_one(tmp_path)[0].snapshots
        assert all(math.isnan(getattr(snap, name)) for name in losses)

    def test_scalars_of_torch_and_numpy_are_numbers(self, tmp_path):
        write(tmp_path / "a", ("probe", {"a": torch.tensor(0.5), "b": np.int64(3), "c": (1, 2)}))
        [event] = read_one(tmp_path)[0].events
        assert (event["a"], event["b"], event["c"]) == (0.5, 3, [1, 2])

    def test_other_types_are_refused_before_anything_is_written(self, tmp_path):
        with RecordWriter(tmp_path / "a", a_run()) as record:
            with pytest.raises(ConfigError, match="of type object"):
                record.event("probe", value=object())
            with pytest.raises(ConfigError, match="'time'"):
                record.event("probe", time=3)
        assert (tmp_path / "a/events.jsonl").read_bytes() == b""

    @pytest.mark.parametrize("key", ["kind", "experiment", "arm", "seed", "config"])
    def test_run_json_must_say_which_run_it_is(self, tmp_path, key):
        run = {name: value for name, value in a_run().items() if name != key}
        with pytest.raises(ConfigError, match=f"'{key}' is missing"):
            RecordWriter(tmp_path / "a", run)
        assert not (tmp_path / "a").exists()

    def test_a_throughput_record_needs_neither_arm_nor_seed(self, tmp_path):
        run = {"kind": "throughput", "experiment": "demo", "config": {}}
        block = {"round": 0, "arm": "a", "iterations": 5, "seconds": 0.5, "examples": 50}
        with RecordWriter(tmp_path / "throughput", run) as record:
            record.event("block", **block, stage_updates=20, threads=1)
        read, problems = read_one(tmp_path)
        assert problems == []
        assert read.blocks[0].seconds == 0.5

    def test_a_crash_while_run_json_is_written_leaves_no_run_json(self, tmp_path, monkeypatch):
        def fail(self, target):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(RecordError, match=r"run\.json: Input/output error"):
            RecordWriter(tmp_path / "a", a_run())
        assert not (tmp_path / "a/run.json").exists()


class TestGoingOn:
    def test_the_same_run_goes_on_and_run_json_stays_as_it_was(self, tmp_path):
        write(tmp_path / "a", snapshot(0), snapshot(10), ("interrupted", {"iteration": 13}))
        before = (tmp_path / "a/run.json").read_bytes()
        with RecordWriter(tmp_path / "a", a_run(preset="quick", label="other")) as record:
            assert record.resumes
            record.event("resumed", iteration=10)
            record.event("finished", iteration=30, seconds=3.0)
        assert (tmp_path / "a/run.json").read_bytes() == before
        read, problems = read_one(tmp_path)
        assert (read.status, problems) == ("finished", [])

    def test_a_new_run_does_not_resume(self, tmp_path):
        with RecordWriter(tmp_path / "a", a_run()) as record:
            assert not record.resumes

    def test_another_config_is_refused_with_the_keys_that_differ(self, tmp_path):
        folder = write(tmp_path / "a", snapshot(0))
        other = {"iterations": 60, "widths": [256, 256], "depth": 4}
        with pytest.raises(RecordError) as caught:
            RecordWriter(folder, a_run(config=other, seed=1))
        message = str(caught.value)
        assert "seed was 0, is 1" in message
        assert "config.iterations was 30, is 60" in message
        assert "config.depth was None, is 4" in message
        assert "widths" not in message
        assert "--out" in message

    def test_a_damaged_run_json_is_not_overwritten(self, tmp_path):
        folder = write(tmp_path / "a", snapshot(0))
        (folder / "run.json").write_text('{"schema": "1.')
        with pytest.raises(RecordError, match="damaged"):
            RecordWriter(folder, a_run())
        assert (folder / "run.json").read_text() == '{"schema": "1.'

    def test_what_a_resumed_run_goes_through_again_counts_once(self, tmp_path):
        write(
            tmp_path / "a",
            snapshot(0),
            snapshot(10),
            ("alignment", {"iteration": 20, "interfaces": {}}),
            snapshot(20, val_accuracy=50.0),
            ("interrupted", {"iteration": 25}),
            ("resumed", {"iteration": 10}),
            snapshot(20, val_accuracy=60.0),
        )
        record, _ = read_one(tmp_path)
        assert [snap.val_accuracy for snap in record.snapshots] == [97.5, 97.5, 60.0]
        assert record.of_kind("alignment") == []
        assert record.reason == "interrupted at iteration 20"

    def test_a_torn_line_is_not_written_on_into(self, tmp_path):
        folder = write(tmp_path / "a", snapshot(0))
        with (folder / "events.jsonl").open("a") as file:
            file.write('{"event": "snapshot", "iterat')
        write(folder, ("resumed", {"iteration": 0}), snapshot(10))
        record, problems = read_one(tmp_path)
        assert problems == []
        assert [snap.iteration for snap in record.snapshots] == [0, 10]


class FullFile:
    """A file on a full disk: it takes `room` bytes and then fails, or tells how few it took."""

    def __init__(self, file, room, short=False):
        self.file, self.room, self.short = file, room, short

    def write(self, data):
        written = self.file.write(data[: self.room])
        if self.short:
            return written
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self):
        self.file.close()


class TestFullAndReadOnly:
    @pytest.mark.parametrize("room", [0, 20])
    @pytest.mark.parametrize("short", [False, True])
    def test_a_full_disk_keeps_what_was_written(self, tmp_path, room, short):
        with RecordWriter(tmp_path / "a", a_run()) as record:
            record.event("snapshot", iteration=0, **SNAPSHOT)
            record._file = FullFile(record._file, room, short)
            with pytest.raises(RecordError, match="No space left on device; free some space"):
                record.event("snapshot", iteration=10, **SNAPSHOT)
        read, problems = read_one(tmp_path)
        assert problems == []
        assert [snap.iteration for snap in read.snapshots] == [0]
        assert read.status == "interrupted"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_disk_that_really_is_full(self, tmp_path):
        folder = write(tmp_path / "a")
        (folder / "events.jsonl").unlink()
        (folder / "events.jsonl").symlink_to("/dev/full")
        with (
            RecordWriter(folder, a_run()) as record,
            pytest.raises(RecordError, match="No space left"),
        ):
            record.event("snapshot", iteration=0, **SNAPSHOT)

    def test_events_after_the_disk_has_room_again_are_readable(self, tmp_path):
        with RecordWriter(tmp_path / "a", a_run()) as record:
            file = record._file
            record._file = FullFile(file, room=20)
            with pytest.raises(RecordError):
                record.event("snapshot", iteration=0, **SNAPSHOT)
            record._file = file
            record.event("snapshot", iteration=10, **SNAPSHOT)
            record.event("finished", iteration=10, seconds=1.0)
        read, problems = read_one(tmp_path)
        assert [snap.iteration for snap in read.snapshots] == [10]
        # The line that the full disk tore is lost, and said to be.
        [problem] = problems
        assert str(problem).startswith("a/events.jsonl: line 1 skipped")

    def test_a_full_disk_at_the_start_is_a_record_error(self, tmp_path, monkeypatch):
        def fail(self, *args, **kwargs):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "write_text", fail)
        with pytest.raises(RecordError, match="No space left"):
            RecordWriter(tmp_path / "a", a_run())

    def test_a_read_only_folder_is_a_record_error(self, tmp_path, monkeypatch):
        def fail(self, *args, **kwargs):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(Path, "mkdir", fail)
        with pytest.raises(RecordError, match="Read-only file system; choose another --out"):
            RecordWriter(tmp_path / "a", a_run())

    def test_a_folder_without_write_permission_is_a_record_error(self, tmp_path):
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        tmp_path.chmod(0o555)
        with pytest.raises(RecordError, match="Permission denied"):
            RecordWriter(tmp_path / "a", a_run())

    def test_a_file_in_the_way_is_a_record_error(self, tmp_path):
        (tmp_path / "a").write_text("in the way")
        with pytest.raises(RecordError, match="choose another --out"):
            RecordWriter(tmp_path / "a" / "b", a_run())


class TestStatus:
    @pytest.mark.parametrize(
        ("events", "status", "reason"),
        [
            ([], "interrupted", "interrupted at iteration 0"),
            ([snapshot(20)], "interrupted", "interrupted at iteration 20"),
            ([("interrupted", {"iteration": 7})], "interrupted", "interrupted at iteration 7"),
            ([("finished", {"iteration": 30, "seconds": 1.0})], "finished", ""),
            ([("failed", {"reason": "NaN", "iteration": 3})], "failed", "NaN"),
            ([("failed", {})], "failed", "no reason recorded"),
            ([("unavailable", {"reason": "no compiler"})], "unavailable", "no compiler"),
            ([("unavailable", {}), ("facts", {})], "interrupted", "interrupted at iteration 0"),
            ([("finished", {"iteration": 30}), ("surprise", {})], "finished", ""),
            (
                [("failed", {"iteration": 9}), ("resumed", {"iteration": 5})],
                "interrupted",
                "interrupted at iteration 5",
            ),
        ],
    )
    def test_the_status_follows_from_the_events(self, tmp_path, events, status, reason):
        write(tmp_path / "a", *events)
        record, problems = read_one(tmp_path)
        assert (record.status, record.reason, problems) == (status, reason, [])
        assert (record.finished is not None) == (status == "finished")

    def test_facts_of_an_event_go_before_those_of_run_json(self, tmp_path):
        facts = {"num_stages": 4, "memory_bytes": 1}
        write(tmp_path / "a", ("facts", {"memory_bytes": 2}), facts=facts)
        assert read_one(tmp_path)[0].facts == {"num_stages": 4, "memory_bytes": 2}


class TestDamage:
    @pytest.fixture
    def out(self, tmp_path):
        return write_fake_records(tmp_path / "out", num_seeds=1)

    def test_a_whole_folder_has_no_problem(self, out):
        records, problems = read_records(out)
        assert problems == []
        assert len(records) == 7
        assert [record.name for record in records[:2]] == [
            "runs/backprop-s0",
            "runs/backprop-compiled-s0",
        ]

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b'{"schema": "1.', "Unterminated string"),
            (b"", "Expecting value"),
            (b"\x80\x81garbage", "codec can't decode"),
            (b"[1, 2]", "no object"),
            (b"{}", "is missing"),
        ],
    )
    def test_a_damaged_run_json_is_named_and_the_rest_is_read(self, out, content, told):
        (out / "runs/cdni-linear-s0/run.json").write_bytes(content)
        records, problems = read_records(out)
        assert len(records) == 6
        [problem] = problems
        assert problem.path == "runs/cdni-linear-s0/run.json"
        assert problem.message.startswith("damaged, run skipped: ")
        assert told in problem.message

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"seed": None}, "'seed'"),
            ({"arm": 3}, "'arm'"),
            ({"config": []}, "'config'"),
            ({"facts": 1}, "'facts'"),
            ({"facts": {"memory_bytes": "many"}}, "'memory_bytes' is 'many'"),
            ({"label": 3}, "'label'"),
            ({"started": None}, "'started'"),
            ({"schema": "2.0"}, "schema 2.0; this version of synthgrad reads 1.0"),
        ],
    )
    def test_a_run_json_that_lacks_something_says_what(self, out, changes, told):
        rewrite(out / "runs/backprop-s0/run.json", **changes)
        records, [problem] = read_records(out)
        assert len(records) == 6
        assert told in problem.message

    def test_a_newer_minor_schema_with_more_keys_is_read(self, out):
        rewrite(out / "runs/backprop-s0/run.json", schema="1.7", novelty={"a": 1})
        records, problems = read_records(out)
        assert (len(records), problems) == (7, [])

    def test_a_missing_run_json_is_a_problem_and_missing_events_are_none(self, out):
        (out / "runs/backprop-s0/run.json").unlink()
        (out / "runs/no-signal-s0/events.jsonl").unlink()
        records, [problem] = read_records(out)
        assert problem.path == "runs/backprop-s0/run.json"
        assert "No such file" in problem.message
        assert str(out) not in str(problem)
        [unborn] = [record for record in records if record.arm == "no-signal"]
        assert (unborn.status, unborn.events) == ("interrupted", ())

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ('{"event": "snapshot", "iteration": 5}', "'seconds' is missing"),
            ('{"event": "snapshot", "iteration": "5"}', "'iteration' is '5', not a number"),
            ('{"event": "snapshot", "iteration": true}', "not a number"),
            ('{"event": "block", "round": 1}', "'arm' is missing"),
            (
                '{"event": "block", "arm": "a", "round": 1, "iterations": 0, "seconds": 1}',
                "must be above 0",
            ),
            ('{"event": "finished", "iteration": 5, "seconds": [1]}', "'seconds' is [1]"),
            ('{"event": "facts", "memory_bytes": "many"}', "'memory_bytes' is 'many'"),
            ('{"event": "resumed"}', "'iteration' is missing"),
            ('{"event": 3}', "no object with an 'event'"),
            ("[]", "no object with an 'event'"),
            ('{"event": "snap', "Unterminated string"),
            ("\x00\x00", "Expecting value"),
        ],
    )
    def test_a_damaged_line_is_named_and_the_others_are_read(self, out, line, told):
        path = out / "runs/backprop-s0/events.jsonl"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:4], line, *lines[4:]]) + "\n")
        records, [problem] = read_records(out)
        assert problem.path == "runs/backprop-s0/events.jsonl"
        assert problem.message.startswith("line 5 skipped: ")
        assert told in problem.message
        assert len(records[0].snapshots) == 13
        assert records[0].status == "finished"

    def test_every_one_of_several_damaged_lines_is_named(self, out):
        path = out / "runs/backprop-s0/events.jsonl"
        path.write_text("{\n[\n" + path.read_text())
        _, problems = read_records(out)
        assert [problem.message.split(":")[0] for problem in problems] == [
            "line 1 skipped",
            "line 2 skipped",
        ]

    def test_a_folder_that_cannot_be_entered_is_named(self, out, monkeypatch):
        scandir = os.scandir

        def locked(path):
            if str(path).endswith("runs"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", locked)
        records, [problem] = read_records(out)
        assert [record.name for record in records] == ["throughput"]
        assert str(problem) == "runs: folder skipped: Permission denied"

    def test_unknown_events_and_keys_are_ignored(self, out):
        path = out / "runs/backprop-s0/events.jsonl"
        path.write_text('{"event": "novelty", "x": [1]}\n\n' + path.read_text())
        records, problems = read_records(out)
        assert problems == []
        assert records[0].status == "finished"

    def test_a_torn_end_is_a_problem_only_where_the_run_had_ended(self, out):
        for name in ("runs/backprop-s0", "runs/cdni-mirror-p0.2-s0"):
            with (out / name / "events.jsonl").open("a") as file:
                file.write('{"event": "snap')
        records, [problem] = read_records(out)
        assert problem.path == "runs/backprop-s0/events.jsonl"
        assert {r.arm: r.status for r in records}["backprop"] == "finished"

    @given(cut=st.integers(0, 4000))
    def test_a_run_killed_at_any_byte_is_readable_without_a_problem(self, tmp_path_factory, cut):
        out = tmp_path_factory.mktemp("cut")
        write_fake_records(out, num_seeds=1, num_rounds=0)
        path = out / "runs/cdni-linear-s0/events.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole[:cut])
        records, problems = read_records(out)
        assert problems == []
        [record] = [record for record in records if record.arm == "cdni-linear"]
        complete = whole[:cut].count(b"\n")
        # A line that lacks nothing but its end is whole.
        assert len(record.events) in (complete, complete + 1)


class TestMixing:
    def test_records_of_two_protocol_majors_are_refused(self, tmp_path):
        write(tmp_path / "a")
        write(tmp_path / "b", seed=1)
        rewrite(tmp_path / "b/run.json", protocol="2.1")
        with pytest.raises(RecordError, match=r"1\.0 \(a\), 2\.1 \(b\)"):
            read_records(tmp_path)

    def test_records_of_two_protocol_minors_are_read(self, tmp_path):
        write(tmp_path / "a")
        write(tmp_path / "b", seed=1)
        rewrite(tmp_path / "b/run.json", protocol="1.1")
        records, problems = read_records(tmp_path)
        assert (len(records), problems) == (2, [])

    def test_an_arms_run_with_another_config_is_set_aside_and_named(self, tmp_path):
        write(tmp_path / "a-s0", seed=0, config={"iterations": 30, "seed": 0})
        write(tmp_path / "a-s1", seed=1, config={"iterations": 60, "seed": 1})
        write(tmp_path / "b-s1", seed=1, arm="b", config={"iterations": 30})
        records, [problem] = read_records(tmp_path)
        assert [record.name for record in records] == ["a-s0", "b-s1"]
        assert str(problem) == (
            "a-s1/run.json: differs from a-s0, skipped: config.iterations was 30, is 60"
        )

    def test_runs_of_tune_may_differ(self, tmp_path):
        write(tmp_path / "a", kind="tune", config={"learning_rate": 1e-3})
        write(tmp_path / "b", kind="tune", config={"learning_rate": 1e-2})
        records, problems = read_records(tmp_path)
        assert (len(records), problems) == (2, [])

    def test_a_missing_folder_is_a_record_error(self, tmp_path):
        with pytest.raises(RecordError, match="is no folder"):
            read_records(tmp_path / "missing")

    def test_an_empty_folder_holds_nothing(self, tmp_path):
        assert read_records(tmp_path) == ([], [])

    def test_a_single_run_folder_can_be_read(self, tmp_path):
        record, _ = read_one(write(tmp_path / "runs/backprop-s0"))
        assert record.name == "."


def test_each_file_is_read_once(tmp_path, monkeypatch):
    write_fake_records(tmp_path, num_seeds=5)
    opened = []
    original = Path.read_bytes

    def counted(path):
        opened.append(path)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    records, _ = read_records(tmp_path)
    assert len(opened) == len(set(opened)) == 2 * len(records)


def test_going_on_with_other_code_is_told(tmp_path, monkeypatch):
    run = {"kind": "run", "experiment": "e", "arm": "a", "seed": 0, "config": {}}
    with RecordWriter(tmp_path / "r", run) as writer:
        writer.event("interrupted", iteration=3)
    with RecordWriter(tmp_path / "r", run) as writer:
        writer.event("resumed", iteration=3)
    assert not read_records(tmp_path)[1]
    with RecordWriter(tmp_path / "r", run | {"git": {"commit": "other", "dirty": False}}) as writer:
        writer.event("resumed", iteration=3)
    (problem,) = read_records(tmp_path)[1]
    assert "went on with other git" in str(problem)


def test_the_timing_of_another_network_is_set_aside(tmp_path):
    for name, width in (("a", 256), ("b", 512)):
        config = {"width": width, "device": "cpu"}
        run = {"kind": "run", "experiment": "e", "arm": "x", "seed": 0, "config": config}
        with RecordWriter(tmp_path / name / "runs" / "x-s0", run) as writer:
            writer.event("finished", iteration=1)
        timing = {"kind": "throughput", "experiment": "e", "config": config | {"rounds": 9}}
        with RecordWriter(tmp_path / name / "throughput", timing) as writer:
            writer.event("finished", iteration=1)
    records, problems = read_records(tmp_path)
    assert {record.config["width"] for record in records} == {256}
    assert len(records) == 2
    assert all("config.width was 256, is 512" in str(problem) for problem in problems)


def test_arms_of_different_lengths_are_not_compared(tmp_path):
    for arm, iterations in (("x", 1000), ("y", 3000)):
        config = {"iterations": iterations, "learning_rate": iterations / 1e6}
        run = {"kind": "run", "experiment": "e", "arm": arm, "seed": 0, "config": config}
        with RecordWriter(tmp_path / arm, run) as writer:
            writer.event("finished", iteration=1)
    records, (problem,) = read_records(tmp_path)
    assert [record.arm for record in records] == ["x"]
    assert "config.iterations was 1000, is 3000" in str(problem)
