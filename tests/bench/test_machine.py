import getpass
import json
import platform
import re
import subprocess
from types import SimpleNamespace

import pytest
import torch

from synthgrad.bench.records import machine
from synthgrad.bench.records.machine import describe_git, describe_machine, describe_packages


def git(folder, *args):
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", *identity, *args], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_the_machine_is_described_without_names_or_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    described = describe_machine()
    assert described["num_cores"] >= 1
    assert described["torch_threads"] == torch.get_num_threads()
    assert described["gpu"] is None
    text = json.dumps([described, describe_packages(), describe_git(tmp_path)])
    words = set(re.findall(r"[\w.-]+", text))
    assert not words & {platform.node(), getpass.getuser()}
    assert str(tmp_path) not in text


def test_a_system_without_proc_leaves_gaps_and_does_not_fail(tmp_path):
    assert machine._first_value(str(tmp_path / "missing"), "model name") is None


def test_the_first_value_of_a_key_is_taken(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Fast CPU: 2\n\nmodel name\t: other\n")
    assert machine._first_value(str(path), "model name") == "Fast CPU: 2"


@pytest.fixture
def a_gpu(monkeypatch):
    properties = SimpleNamespace(name="Fast GPU", total_memory=2**30, uuid="1234")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


@pytest.mark.usefixtures("a_gpu")
def test_the_settings_of_a_gpu_are_told_and_unknown_ones_are_none(monkeypatch):
    commands = []

    def output(command, cwd=None):
        commands.append(command)
        return "550.1, 1200, 1980, [N/A], 700.00"

    monkeypatch.setattr(machine, "_output", output)
    gpu = describe_machine("cuda:0")["gpu"]
    assert commands[0][-1] == "--id=GPU-1234"
    assert gpu == {
        "name": "Fast GPU",
        "memory_bytes": 2**30,
        "cuda": torch.version.cuda,
        "driver": "550.1",
        "clock_mhz": 1200.0,
        "max_clock_mhz": 1980.0,
        "memory_clock_mhz": None,
        "power_limit_w": 700.0,
    }


def test_a_gpu_that_is_not_there_is_not_described(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert describe_machine("cuda")["gpu"] is None


@pytest.mark.usefixtures("a_gpu")
def test_a_gpu_without_nvidia_smi_is_still_described(monkeypatch):
    monkeypatch.setenv("PATH", "")
    gpu = describe_machine("cuda:0")["gpu"]
    assert gpu["name"] == "Fast GPU"
    assert gpu["driver"] is None
    assert gpu["power_limit_w"] is None


def test_packages_name_what_decides_the_numbers():
    packages = describe_packages()
    assert packages["python"] == platform.python_version()
    assert packages["torch"] == torch.__version__
    assert {"synthgrad", "numpy"} <= packages.keys()


def test_a_commit_and_a_change_to_it_are_told(repository):
    clean = describe_git(repository)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (repository / "notes.txt").write_text("untracked files are no change")
    assert describe_git(repository) == clean
    (repository / "code.py").write_text("x = 2\n")
    assert describe_git(repository) == {**clean, "dirty": True}


def test_a_folder_installed_inside_anothers_repository_has_no_commit(repository):
    installed = repository / "venv" / "synthgrad"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert describe_git(installed) == {"commit": None, "dirty": None}


def test_no_repository_no_commit_and_no_git_are_none(tmp_path, monkeypatch):
    unknown = {"commit": None, "dirty": None}
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_git(tmp_path) == unknown
    git(tmp_path, "init")
    assert describe_git(tmp_path) == unknown
    monkeypatch.setenv("PATH", "")
    assert describe_git(tmp_path) == unknown
