import pickle

import numpy as np
import pytest
from fake_files import cifar_records, python2_batch

from synthgrad.data import cifar10, load
from synthgrad.data import dataset as dataset_module
from synthgrad.data.checksums import sha256
from synthgrad.errors import CorruptDataError

NUM_RECORDS = 4
BATCHES = [cifar_records(NUM_RECORDS, seed) for seed in range(6)]
BINARY_NAMES, PYTHON_NAMES = cifar10.FILES.layouts


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS_PER_BATCH", NUM_RECORDS)
    monkeypatch.setattr(dataset_module, "NUM_VALIDATION", 5)


def write_binary(folder):
    folder.mkdir(parents=True)
    for name, batch in zip(BINARY_NAMES, BATCHES, strict=True):
        (folder / name).write_bytes(batch.tobytes())
    return folder


def write_python(folder, protocol=None):
    folder.mkdir(parents=True)
    for name, batch in zip(PYTHON_NAMES, BATCHES, strict=True):
        labels = batch[:, 0].tolist()
        content = {"labels": labels, "data": np.ascontiguousarray(batch[:, 1:])}
        data = pickle.dumps(content, protocol) if protocol else python2_batch(batch)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("layout", ["binary", "python 2", "python 3"])
def test_both_layouts_give_the_same_data_set(tmp_path, layout):
    if layout == "binary":
        write_binary(tmp_path / "cifar-10-batches-bin")
    else:
        write_python(tmp_path / "cifar-10-batches-py", 3 if layout == "python 3" else None)
    dataset = load("cifar10", tmp_path)
    train = np.concatenate(BATCHES[:5])
    assert dataset.train.labels.tolist() == train[:15, 0].tolist()
    assert dataset.validation.labels.tolist() == train[15:, 0].tolist()
    assert dataset.input_shape == (3, 32, 32)
    np.testing.assert_array_equal(
        dataset.test.pixels.numpy(), BATCHES[5][:, 1:].reshape(-1, 3, 32, 32)
    )


@pytest.mark.parametrize("write", [write_binary, write_python])
def test_name_says_which_copy_it_is(tmp_path, monkeypatch, write):
    write(tmp_path / "cifar10")
    assert load("cifar10", tmp_path).name == "CIFAR-10 (unverified copy)"

    labels = np.concatenate([batch[:, 0] for batch in BATCHES])
    monkeypatch.setattr(cifar10, "JPEG_COPY_LABELS_SHA256", sha256(labels.tobytes()))
    assert load("cifar10", tmp_path).name == "CIFAR-10 (JPEG copy)"

    published = tuple(sha256(batch.tobytes()) for batch in BATCHES)
    monkeypatch.setattr(cifar10, "BATCH_SHA256", published)
    assert load("cifar10", tmp_path).name == "CIFAR-10"


@pytest.mark.parametrize("extra", [-1, 1, 3073])
def test_batch_of_the_wrong_length_is_refused(tmp_path, extra):
    folder = write_binary(tmp_path / "cifar10")
    data = BATCHES[2].tobytes()
    (folder / "data_batch_3.bin").write_bytes(data[:extra] if extra < 0 else data + bytes(extra))
    with pytest.raises(
        CorruptDataError, match=r"data_batch_3\.bin has .* bytes; .* exactly 12,292"
    ):
        load("cifar10", tmp_path)


def test_pickled_batch_of_the_wrong_length_is_refused(tmp_path):
    folder = write_python(tmp_path / "cifar10")
    (folder / "data_batch_3").write_bytes(python2_batch(BATCHES[2][:3]))
    with pytest.raises(CorruptDataError, match="data_batch_3 has 3 labels"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("layout", ["binary", "python"])
def test_label_out_of_range_is_refused(tmp_path, layout):
    batch = BATCHES[1].copy()
    batch[2, 0] = 10
    if layout == "binary":
        (write_binary(tmp_path / "cifar10") / "data_batch_2.bin").write_bytes(batch.tobytes())
    else:
        (write_python(tmp_path / "cifar10") / "data_batch_2").write_bytes(python2_batch(batch))
    with pytest.raises(CorruptDataError, match=r"data_batch_2.* has the label 10 at record 2"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("label", [-1, 256, "cat", None])
def test_label_that_is_no_byte_is_refused(tmp_path, label):
    folder = write_python(tmp_path / "cifar10")
    content = {"labels": [0, 1, label, 3], "data": np.ascontiguousarray(BATCHES[0][:, 1:])}
    (folder / "data_batch_1").write_bytes(pickle.dumps(content, protocol=3))
    with pytest.raises(CorruptDataError, match="data_batch_1 has a label that is not a number"):
        load("cifar10", tmp_path)


def test_downloaded_members_are_the_files_that_are_searched_for():
    (remote,) = cifar10.REMOTE
    assert remote.members == tuple(f"cifar-10-batches-bin/{name}" for name in BINARY_NAMES)
    assert all(url.startswith("https://") for url in remote.urls)
