import os
import pickle

import numpy as np
import pytest
from fake_files import cifar_records, python2_batch

from synthgrad.data.cifar_pickle import read_pickled_batch
from synthgrad.errors import CorruptDataError

RECORDS = cifar_records(3, seed=0)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def test_batch_as_python_2_wrote_it():
    labels, pixels = read_pickled_batch(python2_batch(RECORDS), source="batch")
    assert labels == RECORDS[:, 0].tolist()
    np.testing.assert_array_equal(pixels, RECORDS[:, 1:], strict=True)


def test_fake_batch_is_one_that_numpy_itself_can_read():
    content = pickle.loads(python2_batch(RECORDS), encoding="bytes")
    np.testing.assert_array_equal(content[b"data"], RECORDS[:, 1:], strict=True)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["alone", "labels", "data"])
def test_pickle_that_runs_code_is_refused(tmp_path, protocol, place):
    victim = tmp_path / "created"
    call = Call(os.mkdir, str(victim))
    content = call if place == "alone" else {"labels": [], "data": RECORDS, place: call}
    data = pickle.dumps(content, protocol)
    with pytest.raises(CorruptDataError, match="refused, because it asks for"):
        read_pickled_batch(data, source="batch")
    assert not victim.exists()

    pickle.loads(data)
    assert victim.exists(), "the pickle must be one that does harm where it is let"


@pytest.mark.parametrize(
    "name", ["builtins\neval", "numpy\nload", "numpy\ndtype.mro", "os\nsystem"]
)
def test_names_that_a_batch_does_not_need_are_refused(name):
    with pytest.raises(CorruptDataError, match="may be malicious"):
        read_pickled_batch(b"c" + name.encode() + b"\n.", source="batch")


def test_pickle_cannot_spoil_the_reader_for_the_next_file():
    state = pickle.dumps((None, {"__setstate__": 5, "__init__": 5, "func": 5}), protocol=2)[2:-1]
    for name in ("numpy.core.multiarray\n_reconstruct", "numpy\ndtype", "numpy\nndarray"):
        with pytest.raises(CorruptDataError):
            read_pickled_batch(b"c" + name.encode() + b"\n" + state + b"b.", source="bad")
    labels, _ = read_pickled_batch(python2_batch(RECORDS), source="good")
    assert labels == RECORDS[:, 0].tolist()


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {},
        {"labels": [1]},
        {"labels": 7, "data": RECORDS},
        {"labels": [1], "data": b"pixels"},
        {"labels": [1], "data": RECORDS.astype(np.int64)},
        {"labels": [1], "data": RECORDS[0]},
        {"labels": [1], "data": np.asfortranarray(RECORDS)},
        {"labels": [1], "data": np.array([[None]])},
    ],
)
def test_pickle_of_something_else_is_refused(content):
    with pytest.raises(CorruptDataError, match=r"^batch"):
        read_pickled_batch(pickle.dumps(content, protocol=3), source="batch")


def test_array_that_was_never_filled_is_refused():
    made_without_init = b"cnumpy.core.multiarray\n_reconstruct\n)\x81"
    data = b"\x80\x02}(U\x06labels](K\x01eU\x04data" + made_without_init + b"u."
    with pytest.raises(CorruptDataError, match="is not a CIFAR-10 batch"):
        read_pickled_batch(data, source="batch")


@pytest.mark.parametrize("length", [0, 1, 50, 200, -1])
def test_truncated_pickle_is_refused(length):
    with pytest.raises(CorruptDataError, match=r"^batch cannot be read as a pickle"):
        read_pickled_batch(python2_batch(RECORDS)[:length], source="batch")


def test_array_whose_bytes_are_too_few_is_refused():
    data = python2_batch(RECORDS).replace(b"(K\x01M\x03\x00", b"(K\x01M\x04\x00")
    with pytest.raises(CorruptDataError, match=r"^batch cannot be read"):
        read_pickled_batch(data, source="batch")
