"""The command line, called in this process on data of a few kilobytes."""

import json

import pytest
import torch

import synthgrad.cli as cli
from bench.tiny import tiny_data
from synthgrad.bench.running import training
from synthgrad.compiler import missing_compiler
from synthgrad.data import Dataset, Split
from synthgrad.errors import DataNotFoundError
from synthgrad.experiments import bisong2017

ARMS = ("backprop", "no-signal", "dni-linear", "cdni-linear", "cdni-mirror", "cdni-mirror-p02")
SMALL = [
    *("--preset", "smoke", "--iterations", "4", "--snapshot-every", "2", "--width", "8"),
    *("--batch-size", "8", "--threads", "1"),
]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Let the experiment load tiny data; like MNIST they have ten classes."""
    small = tiny_data()

    def ten_classes(split: Split) -> Split:
        return Split(pixels=split.pixels, labels=torch.arange(len(split)) % 10)

    data = Dataset(
        name="tiny",
        train=ten_classes(small.train),
        validation=ten_classes(small.validation),
        test=ten_classes(small.test),
        num_classes=10,
    )
    monkeypatch.setattr(bisong2017, "load", lambda name, data_dir: data)


def run(out, *more, arms=ARMS):
    return cli.main(["run", "bisong2017", "--out", str(out), *SMALL, "--arms", *arms, *more])


def report(capsys, out, *options):
    capsys.readouterr()
    assert cli.main(["report", str(out), *options]) == 0
    return capsys.readouterr().out


def test_run_then_report_as_json(tmp_path, capsys):
    assert run(tmp_path / "D") == 0
    printed = capsys.readouterr().out
    assert "cDNI (mirror), p = 0.2" in printed
    assert f"report: {tmp_path / 'D' / 'report.html'}" in printed
    assert (tmp_path / "D" / "report.html").is_file()
    objects = json.loads(report(capsys, tmp_path / "D", "--format", "json"))
    assert [found["arm"] for found in objects] == list(ARMS)
    keys = {
        "arm",
        "num_seeds",
        "iterations",
        "seconds_per_iteration",
        "examples_per_second",
        "stage_updates_per_second",
        "test_accuracy",
        "seconds_to_goal",
        "examples_to_goal",
        "claim",
    }
    for found in objects:
        assert keys <= set(found)
        assert found["num_seeds"] == 1
        assert found["iterations"] == 4
        assert found["seconds_per_iteration"] > 0
        assert 0 <= found["test_accuracy"] <= 100
        assert found["seconds_to_goal"] is None
    by_arm = {found["arm"]: found for found in objects}
    verdicts = {claim["verdict"] for claim in by_arm["cdni-mirror"]["claim"]}
    assert verdicts <= {"reproduced", "not reproduced", "not comparable"}
    assert by_arm["cdni-mirror"]["claim"]
    assert by_arm["cdni-mirror-p02"]["claim"]
    assert by_arm["cdni-mirror-p02"]["stage_updates_per_second"] > 0


def test_report_as_table_and_as_page(tmp_path, capsys):
    assert run(tmp_path, arms=("backprop", "cdni-mirror", "cdni-mirror-p02")) == 0
    assert "cDNI (mirror)" in report(capsys, tmp_path)
    (tmp_path / "report.html").unlink()
    assert report(capsys, tmp_path, "--format", "html").strip() == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").is_file()


def test_the_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "bisong2017", *SMALL, "--arms", "backprop"]) == 0
    assert (tmp_path / "runs/bisong2017-smoke/runs/backprop-s0/run.json").is_file()


def test_the_experiment_may_come_last(tmp_path):
    command = ["run", "--out", str(tmp_path), *SMALL, "bisong2017", "--arms", "backprop"]
    assert cli.main(command) == 0


def test_presets_are_defaults_and_options_override_them(tmp_path):
    assert run(tmp_path, "--seeds", "7", "8", arms=("backprop",)) == 0
    folder = tmp_path / "runs/backprop-s8"
    config = json.loads((folder / "run.json").read_text())["config"]
    assert config["iterations"] == 4
    assert config["depth"] == 4
    assert config["compile_cache"] is True  # the preset's, and not the class's
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["backprop-s7", "backprop-s8"]


def test_ctrl_c_and_the_same_command_again(tmp_path, capsys, monkeypatch):
    calls = []
    advance = training.advance

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 5:  # backprop needs three
            raise KeyboardInterrupt
        return advance(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "advance", interrupted)
        assert run(tmp_path, arms=("backprop", "cdni-mirror-p02")) == cli.INTERRUPTED
    message = capsys.readouterr().err
    assert "interrupted" in message
    assert f"synthgrad run bisong2017 --out {tmp_path}" in message
    objects = json.loads(report(capsys, tmp_path, "--format", "json"))
    assert {found["arm"]: found["status"] for found in objects} == {
        "backprop": "finished",
        "cdni-mirror-p02": "interrupted",
    }
    assert run(tmp_path, arms=("backprop", "cdni-mirror-p02")) == 0
    objects = json.loads(report(capsys, tmp_path, "--format", "json"))
    assert [found["status"] for found in objects] == ["finished", "finished"]


def test_missing_data_are_rows(tmp_path, capsys, monkeypatch):
    def load(name, data_dir):
        raise DataNotFoundError("CIFAR-10 was not found.\nPut these files here.")

    monkeypatch.setattr(bisong2017, "load", load)
    assert (
        run(tmp_path, "--dataset", "cifar10", arms=("backprop", "cdni-mirror", "cdni-mirror-p02"))
        == 0
    )
    assert "Put these files here." in capsys.readouterr().out
    objects = json.loads(report(capsys, tmp_path, "--format", "json"))
    assert [found["status"] for found in objects] == ["unavailable"] * 3
    assert {found["reason"] for found in objects} == {"data not found: cifar10"}


def test_nothing_but_nan_is_exit_code_1(tmp_path, capsys):
    assert run(tmp_path, "--learning-rate", "1e38", arms=("backprop",)) == cli.FAILED
    (found,) = json.loads(report(capsys, tmp_path, "--format", "json"))
    assert found["status"] == "failed"
    assert "loss is" in found["reason"]
    assert "at iteration" in found["reason"]
    assert found["test_accuracy"] is None


def test_a_diverged_arm_is_a_row_among_others(tmp_path, monkeypatch):
    make_arm = bisong2017.make_arm

    def diverging(name, config):
        from dataclasses import replace

        rate = 1e38 if name == "cdni-mirror-p02" else config.learning_rate
        return make_arm(name, replace(config, learning_rate=rate))

    monkeypatch.setattr(bisong2017, "make_arm", diverging)
    assert run(tmp_path, arms=("backprop", "cdni-mirror-p02")) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "bisong2016"], "no experiment 'bisong2016'; the names are bisong2017"),
        (["run", "--preset", "smoke"], "no experiment '--preset'"),
        (["run", "bisong2017", "--preset", "fast"], "no preset 'fast'"),
        (["run", "bisong2017", "--preset=fast"], "no preset 'fast'"),
        (["run", "bisong2017", "--depth", "1"], "depth=1 must be 2 or more"),
        (["report", "nowhere"], "nowhere is no folder"),
        (["report", "."], "holds no run"),
        (["run", "bisong2017", "--tuned", "nowhere"], "nowhere is no folder"),
        (["data", "check", "imagenet"], "no data set 'imagenet'"),
        (["data", "get"], "needs a name"),
        (["tune", "bisong2017", "--preset", "smoke", "--grid"], "--grid is empty"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(
    arguments, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == cli.USAGE
    error = capsys.readouterr().err
    assert error.startswith("synthgrad: ")
    assert message in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["run", "bisong2017", "--depth", "x"], ["fly"], []])
def test_what_cannot_be_parsed(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_another_config_in_the_same_folder(tmp_path, capsys):
    assert run(tmp_path, arms=("backprop",)) == 0
    assert run(tmp_path, "--depth", "5", arms=("backprop",)) == cli.USAGE
    assert "config.depth was 4, is 5" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "out", arms=("backprop",)) == cli.USAGE
    assert "choose another --out" in capsys.readouterr().err


def test_a_damaged_record_is_named_and_the_rest_reported(tmp_path, capsys):
    assert run(tmp_path, arms=("backprop", "no-signal")) == 0
    (tmp_path / "runs/no-signal-s0/run.json").write_text("{")
    capsys.readouterr()
    assert cli.main(["report", str(tmp_path), "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert "runs/no-signal-s0/run.json: damaged" in captured.err
    assert [found["arm"] for found in json.loads(captured.out)] == ["backprop"]


def test_tune_and_run_with_what_it_found(tmp_path, capsys):
    tuned, out = tmp_path / "tuned", tmp_path / "out"
    arms = ["backprop", "cdni-mirror-p02"]
    command = ["tune", "bisong2017", "--out", str(tuned), *SMALL, "--arms", *arms]
    assert cli.main([*command, "--grid", "1e-2", "1e38"]) == 0
    printed = capsys.readouterr().out
    assert "best" in printed
    assert "0.01" in printed
    assert f"--tuned {tuned}" in printed
    assert run(out, "--tuned", str(tuned), arms=arms) == 0
    for arm in arms:
        config = json.loads((out / f"runs/{arm}-s0/run.json").read_text())["config"]
        assert config["learning_rate"] == 1e-2
    assert {p.name for p in (tuned / "tune").iterdir()} == {
        f"{arm}-s1000-lr{rate}" for arm in arms for rate in ("0.01", "1e+38")
    }


def test_tuning_seeds_may_not_be_reported(tmp_path, capsys):
    command = ["tune", "bisong2017", "--out", str(tmp_path / "T"), *SMALL, "--arms", "backprop"]
    assert cli.main([*command, "--grid", "1e-2"]) == 0
    options = ["--tuned", str(tmp_path / "T"), "--seeds", "1000", "--tune-seeds", "5"]
    assert run(tmp_path / "out", *options, arms=("backprop",)) == cli.USAGE
    assert "tuned on seeds [1000]" in capsys.readouterr().err


def test_a_folder_without_tuning(tmp_path, capsys):
    assert run(tmp_path, arms=("backprop",)) == 0
    assert run(tmp_path / "out", "--tuned", str(tmp_path), arms=("backprop",)) == cli.USAGE
    assert "holds no finished run of `synthgrad tune`" in capsys.readouterr().err


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    assert run(tmp_path, "--tensorboard", arms=("cdni-mirror-p02",)) == 0
    assert list((tmp_path / "tensorboard/cdni-mirror-p02-s0").iterdir())


def test_list(capsys):
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "bisong2017" in printed
    assert "smoke, quick, full, paper" in printed
    assert "cdni-mirror-p02" in printed


def test_data(capsys, tmp_path):
    assert cli.main(["data", "list", "--data-dir", str(tmp_path)]) == 0
    assert "mnist: " in capsys.readouterr().out
    assert cli.main(["data", "check", "mnist"]) == 0
    assert "55,000 training, 5,000 validation and 10,000 test" in capsys.readouterr().out


def test_help_names_the_presets_values(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", "bisong2017", "--preset", "paper", "--help"])
    assert caught.value.code == 0
    assert "500000" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler uses what torch deprecates
def test_the_smoke_preset_with_every_arm(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()  # the real MNIST
    assert cli.main(["run", "bisong2017", "--preset", "smoke", "--out", str(tmp_path)]) == 0
    objects = json.loads(report(capsys, tmp_path, "--format", "json"))
    assert [found["arm"] for found in objects] == list(bisong2017.LABELS)
    status = {found["arm"]: found["status"] for found in objects}
    compiled = "unavailable" if missing_compiler("cpu") else "finished"
    assert status.pop("backprop-compiled") == compiled
    assert set(status.values()) == {"finished"}
