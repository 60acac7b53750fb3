import importlib.util
from pathlib import Path

import pytest
from fake_files import idx_files

from synthgrad.data.mnist import unpack
from synthgrad.errors import CorruptDataError

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_mnist.py"


@pytest.fixture(scope="module")
def make_mnist():
    spec = importlib.util.spec_from_file_location("make_mnist", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_archive_gives_back_what_was_packed_and_is_the_same_at_any_time(make_mnist, monkeypatch):
    contents = idx_files()
    packed = make_mnist.pack(contents)
    assert unpack(packed) == contents
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert make_mnist.pack(contents) == packed


def test_file_that_is_not_the_published_one_is_refused(make_mnist, tmp_path):
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_files()["t10k-labels-idx1-ubyte"])
    with pytest.raises(CorruptDataError, match="t10k-labels-idx1-ubyte is not the published file"):
        make_mnist.read(tmp_path, "t10k-labels-idx1-ubyte")
