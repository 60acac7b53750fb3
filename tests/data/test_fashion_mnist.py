import gzip

import pytest
from fake_files import write_fashion_mnist

from synthgrad.data import load
from synthgrad.data.fashion_mnist import FILES, REMOTE
from synthgrad.data.mnist_like import IDX_NAMES
from synthgrad.errors import CorruptDataError


def gzip_all(folder):
    for name in IDX_NAMES:
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()


@pytest.mark.parametrize("subfolder", ["", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("gzipped", [False, True])
def test_files_are_read_wherever_they_are_usual(tmp_path, monkeypatch, subfolder, gzipped):
    write_fashion_mnist(tmp_path / subfolder, monkeypatch)
    if gzipped:
        gzip_all(tmp_path / subfolder)
    dataset = load("fashion-mnist", tmp_path)
    assert dataset.name == "Fashion-MNIST"
    assert dataset.test.labels.tolist() == [0, 1, 2]


def test_another_data_set_in_the_same_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        write_fashion_mnist(tmp_path, patch)
    with pytest.raises(CorruptDataError, match="Fashion-MNIST: train-images-idx3-ubyte is not the"):
        load("fashion-mnist", tmp_path)


def test_truncated_gzip_is_named(tmp_path, monkeypatch):
    write_fashion_mnist(tmp_path, monkeypatch)
    gzip_all(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CorruptDataError, match=r"train-images-idx3-ubyte\.gz"):
        load("fashion-mnist", tmp_path)


def test_downloads_bear_the_names_that_are_searched_for():
    assert tuple(remote.file_name for remote in REMOTE) == FILES.layouts[0]
    assert all(url.startswith("https://") for remote in REMOTE for url in remote.urls)
