from importlib.resources import files

import numpy as np
import pytest
from fake_files import checksums, idx_bytes, idx_files

from synthgrad.data import dataset as dataset_module
from synthgrad.data import load, mnist
from synthgrad.data.checksums import sha256
from synthgrad.data.mnist_like import dataset_from_idx
from synthgrad.errors import CorruptDataError, DataNotFoundError


@pytest.fixture(scope="module")
def digits():
    return load("mnist")


def test_shapes_of_the_real_thing(digits):
    assert digits.name == "MNIST"
    assert digits.input_shape == (1, 28, 28)
    assert digits.num_classes == 10
    splits = (digits.train, digits.validation, digits.test)
    assert [len(split) for split in splits] == [55_000, 5_000, 10_000]


def test_class_counts_of_the_real_thing(digits):
    train = digits.train.labels.bincount() + digits.validation.labels.bincount()
    assert train.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert digits.test.labels.bincount().tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


def test_archive_holds_the_published_files(digits):
    contents = mnist.unpack(mnist.archive_path().read_bytes())
    found = {name: sha256(data) for name, data in contents.items()}
    assert found["train-images-idx3-ubyte"].startswith("ba891046e6505d7a")
    assert found["t10k-images-idx3-ubyte"].startswith("0fa7898d509279e4")
    assert found == mnist.IDX_SHA256
    pixels = np.frombuffer(contents["train-images-idx3-ubyte"], np.uint8, offset=16)
    np.testing.assert_array_equal(digits.train.pixels[0].numpy().ravel(), pixels[: 28 * 28])


def test_license_lies_beside_the_archive():
    text = (files("synthgrad.data") / "mnist" / "LICENSE.md").read_text(encoding="utf-8")
    assert "creativecommons.org/licenses/by-sa/3.0" in text
    assert all(checksum in text for checksum in mnist.IDX_SHA256.values())


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_damaged_archive_is_refused(tmp_path, damage):
    packed = mnist.archive_path().read_bytes()
    changed = packed[:5000] + bytes([packed[5000] ^ 1]) + packed[5001:]
    data = {"truncated": packed[:-1000], "changed": changed, "empty": b""}[damage]
    path = tmp_path / "mnist.tar.xz"
    path.write_bytes(data)
    with pytest.raises(CorruptDataError) as error:
        mnist.load_mnist(path)
    for part in (str(path), f"expected {mnist.ARCHIVE_SHA256}", f"got      {sha256(data)}"):
        assert part in str(error.value)


def test_missing_archive_is_named(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"mnist\.tar\.xz is missing"):
        mnist.load_mnist(tmp_path / "mnist.tar.xz")


def build(contents):
    return dataset_from_idx("Some", contents, sha256=checksums(contents), mend="Fetch it again.")


def test_four_idx_files_become_a_data_set(monkeypatch):
    monkeypatch.setattr(dataset_module, "NUM_VALIDATION", 2)
    dataset = build(idx_files())
    assert dataset.input_shape == (1, 4, 5)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (4, 2, 3)
    assert dataset.validation.labels.tolist() == [4, 5]


def test_changed_idx_file_is_refused():
    contents = idx_files()
    published = checksums(contents)
    contents["t10k-labels-idx1-ubyte"] = contents["t10k-labels-idx1-ubyte"][:-1] + b"\x07"
    with pytest.raises(CorruptDataError, match="t10k-labels-idx1-ubyte is not the published file"):
        dataset_from_idx("Some", contents, sha256=published, mend="Fetch it again.")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1-ubyte", [0, 1, 2, 10, 4, 5], "the label 10 at position 3"),
        ("train-labels-idx1-ubyte", [0, 1, 2], r"must be uint8 of shape \(6,\)"),
        ("train-images-idx3-ubyte", [0, 1, 2], "images must be uint8 of shape"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(name, array, message):
    contents = idx_files()
    contents[name] = idx_bytes(np.array(array, dtype=np.uint8))
    with pytest.raises(CorruptDataError, match=f"Some: {name} .*{message}"):
        build(contents)
