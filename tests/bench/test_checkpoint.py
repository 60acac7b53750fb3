import pytest
import torch

from synthgrad.bench.running import checkpoint
from synthgrad.bench.running.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint
from synthgrad.errors import RecordError


def test_a_checkpoint_comes_back(tmp_path):
    state = {"w": torch.randn(3), "n": 4, "nested": {"x": [1.5, None, "text"]}}
    save_checkpoint(tmp_path, state)
    loaded = load_checkpoint(tmp_path)
    torch.testing.assert_close(loaded.pop("w"), state.pop("w"), rtol=0, atol=0)
    assert loaded == state


def test_none_is_none(tmp_path):
    assert load_checkpoint(tmp_path) is None
    remove_checkpoint(tmp_path)


def test_removing_leaves_nothing(tmp_path):
    save_checkpoint(tmp_path, {"n": 1})
    remove_checkpoint(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("disk full")])
def test_a_failed_write_keeps_the_old_one(tmp_path, monkeypatch, error):
    save_checkpoint(tmp_path, {"n": 1})

    def fail(state, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr(checkpoint.torch, "save", fail)
    with pytest.raises(RecordError, match="disk full"):
        save_checkpoint(tmp_path, {"n": 2})
    monkeypatch.undo()
    assert load_checkpoint(tmp_path) == {"n": 1}


def test_a_damaged_file_is_named(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.zeros(100)})
    path = tmp_path / checkpoint.CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RecordError, match=r"checkpoint\.pt is damaged"):
        load_checkpoint(tmp_path)


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"evil": print}, tmp_path / checkpoint.CHECKPOINT_FILE)
    with pytest.raises(RecordError, match="damaged"):
        load_checkpoint(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot write"):
        save_checkpoint(tmp_path / "file", {"n": 1})
