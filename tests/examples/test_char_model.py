"""The example learns, writes, and goes on from its checkpoint with the same numbers."""

import importlib.util
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "examples" / "char_model.py"
SMALL = ["--horizon=4", "--batch-size=4", "--units=16", "--rate=0.02", "--sample=30"]


@pytest.fixture
def char_model():
    spec = importlib.util.spec_from_file_location("char_model", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("abcdé\n" * 80, encoding="utf-8")
    return path


def arguments(text, checkpoint, steps, every=1000):
    return [
        str(text),
        f"--steps={steps}",
        f"--checkpoint={checkpoint}",
        f"--checkpoint-every={every}",
        *SMALL,
    ]


def test_it_is_short():
    assert len(FILE.read_text().splitlines()) < 100


def test_it_learns_and_writes(char_model, text, tmp_path, capsys):
    bits = char_model.main(arguments(text, tmp_path / "c.pt", 400))
    assert bits < 0.5, "the text repeats itself; a guess takes 2.6 bits"
    assert "abcdé\nabcdé" in capsys.readouterr().out


def test_the_same_numbers_after_an_interruption(char_model, text, tmp_path):
    # 31 chunks a pass: the interruption is in the midst of the second.
    whole, halves = tmp_path / "whole.pt", tmp_path / "halves.pt"
    bits = char_model.main(arguments(text, whole, 45))
    char_model.main(arguments(text, halves, 38))
    assert char_model.main(arguments(text, halves, 45)) == bits
    one, other = (torch.load(path, weights_only=True) for path in (whole, halves))
    torch.testing.assert_close(one["model"], other["model"], rtol=0, atol=0)
    torch.testing.assert_close(one["optimizer"], other["optimizer"], rtol=0, atol=0)
    torch.testing.assert_close(one["carry"], other["carry"], rtol=0, atol=0)


def test_without_a_text_it_is_shakespeare(char_model, tmp_path, capsys):
    arguments = ["--steps=2", f"--checkpoint={tmp_path / 'c.pt'}", *SMALL]
    assert 5 < char_model.main(arguments) < 7, "log2(65) is 6.02"
    assert capsys.readouterr().out.rstrip("\n")
