"""The cost benchmark runs, and counts what can be counted without a clock."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

import synthgrad as sg

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "recurrent_cost.py"


@pytest.fixture(scope="module")
def cost():
    spec = importlib.util.spec_from_file_location("recurrent_cost", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_the_smallest_run(cost, tmp_path, capsys):
    cost.main(["--smoke", "--out", str(tmp_path / "cost.json")])
    record = json.loads((tmp_path / "cost.json").read_text())
    found = record["results"]
    assert [row["horizon"] for row in found["same_horizon"]] == [1, 3]
    assert [(row["horizon"], row["length"]) for row in found["whole_sequence"]] == [
        (1, 9),
        (1, 12),
        (3, 9),
        (3, 12),
    ]
    for row in (*found["same_horizon"], *found["whole_sequence"]):
        low, high = row["time"]["quartiles"]
        assert 0 < low <= row["time"]["ratio"] <= high
    assert (tmp_path / "cost.svg").read_text().startswith("<?xml")
    assert "T = 3 for 12 steps" in capsys.readouterr().out


def test_bytes_grow_with_a_chunk_and_not_with_the_number_of_chunks(cost):
    setting = cost.Setting(units=64, batch_size=16)
    saved = {}
    for num_steps in (3, 9, 27):
        signal = sg.SyntheticGradient(synthesizer="linear")
        chunk = cost.Contestant(setting, signal, num_steps, whole=False)
        for _ in range(2):
            chunk.step()
        saved[num_steps] = chunk.saved_bytes()
        for _ in range(5):
            chunk.step()
        assert chunk.saved_bytes() == saved[num_steps]
    assert saved[3] < saved[9] < saved[27]


def test_bound(cost):
    """By torch's counter, on the same network out of matrix products alone."""
    from torch.utils.flop_counter import FlopCounterMode

    setting = cost.Setting(units=6, features=4, classes=3, batch_size=5)
    found = {}
    for signal in (sg.SyntheticGradient(synthesizer="linear"), sg.NoSignal()):
        chunk = cost.Contestant(setting, signal, 4, whole=False)
        lstm = chunk.rnn.core
        cell = torch.nn.LSTMCell(4, 6)
        cell.load_state_dict(
            {name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()}
        )
        chunk.rnn = sg.recurrent.TruncatedBPTT(cell, horizon=4, signal=signal)
        for _ in range(2):
            chunk.loss().backward()
        with FlopCounterMode(display=False) as counter:
            chunk.loss().backward()
        # Two operations a multiplication.
        found[type(signal)] = counter.get_total_flops() / 2 / setting.batch_size
    synthetic, truncated = found[sg.SyntheticGradient], found[sg.NoSignal]
    with_signal = cost.multiplications(setting, 4, signal=True)
    without = cost.multiplications(setting, 4, signal=False)
    assert with_signal - without == synthetic - truncated - 4 * 6 * 6
    assert without == truncated + 4 * 6 * 6
