"""The benchmark over a capped link: its rows, and that no network is left behind."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "pipeline_link.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("pipeline_link", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def block(arm, number, seconds):
    return {
        "event": "block",
        "arm": arm,
        "round": number,
        "iterations": 2,
        "seconds": seconds,
        "examples": 8,
        "stage_updates": 4,
        "bytes": [600, 400],
    }


def test_a_row_is_a_method_against_backprop_in_the_same_launch(benchmark):
    events = [
        block(arm, number, seconds)
        for number in range(3)
        for arm, seconds in (("backprop", 3.0), ("cdni", 1.5))
    ]
    events += [block(arm, 0, 6.0) for arm in benchmark.METHODS[1:-1]]
    rows = {row["method"]: row for row in benchmark.summarize(events, 100)}
    assert rows["cdni"]["over_backprop"] == 2.0
    assert rows["cdni"]["blocks"] == 3
    assert rows["cdni"]["bytes_a_batch"] == 500.0
    assert rows["ddp"]["over_backprop"] == 0.5
    assert {row["rate_mbit"] for row in rows.values()} == {100}


def test_no_network_is_left_behind(benchmark):
    if reason := benchmark.why_not():
        pytest.skip(reason)

    def there():
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
        return [space for space in benchmark.SPACES if space in listed.stdout]

    with benchmark.joined(50):
        assert there() == [*benchmark.SPACES]
        shown = ["ip", "netns", "exec", benchmark.SPACES[0], "tc", "qdisc", "show"]
        assert "rate 50Mbit" in subprocess.run(shown, capture_output=True, text=True).stdout
    assert not there()
    with pytest.raises(RuntimeError), benchmark.joined(50):
        raise RuntimeError
    assert not there()
