import gzip

import numpy as np
import pytest
from fake_files import idx_bytes

from synthgrad.data import read_idx
from synthgrad.data.idx import parse_idx
from synthgrad.errors import CorruptDataError

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("gzipped", [False, True])
def test_file_comes_back_as_it_was_written(tmp_path, gzipped):
    path = tmp_path / ("numbers.gz" if gzipped else "numbers")
    path.write_bytes(gzip.compress(idx_bytes(ARRAY)) if gzipped else idx_bytes(ARRAY))
    np.testing.assert_array_equal(read_idx(path), ARRAY, strict=True)


@pytest.mark.parametrize(
    ("code", "dtype"), [(0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")]
)
def test_every_type_of_the_format_is_read(code, dtype):
    values = np.array([-3, 0, 100], dtype=dtype)
    np.testing.assert_array_equal(parse_idx(idx_bytes(values, code), source="x"), values)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has 0 bytes; an IDX file begins"),
        (b"\0\0\x08", "has 3 bytes"),
        (b"\x1f\x8b\x08\x01" + bytes(8), "is not an IDX file: it begins with 1f8b08"),
        (b"\0\0\x07\x01" + bytes(8), "is not an IDX file: it begins with 000007"),
        (b"\0\0\x08\0", "states 0 dimensions"),
        (b"\0\0\x08\x03" + bytes(11), "states 3 dimensions and has 15 bytes"),
        (idx_bytes(ARRAY)[:-1], r"has 39 bytes; for its shape \(2, 3, 4\) it must have exactly 40"),
        (idx_bytes(ARRAY) + b"\0", "has 41 bytes"),
        (b"\0\0\x08\x03" + b"\xff" * 12, r"has 16 bytes; .* it must have exactly"),
    ],
)
def test_broken_format_is_named(data, message):
    with pytest.raises(CorruptDataError, match=f"^some-file {message}"):
        parse_idx(data, source="some-file")


def test_damaged_gzip_is_named(tmp_path):
    packed = gzip.compress(idx_bytes(ARRAY))
    truncated, foreign = tmp_path / "truncated.gz", tmp_path / "foreign.gz"
    truncated.write_bytes(packed[:-9])
    foreign.write_bytes(b"<html>not found</html>")
    for path in (truncated, foreign):
        with pytest.raises(CorruptDataError, match=f"{path.name} .* cannot be unpacked"):
            read_idx(path)


def test_flipped_byte_in_gzip_is_noticed(tmp_path):
    packed = bytearray(gzip.compress(idx_bytes(ARRAY)))
    packed[12] ^= 0xFF
    path = tmp_path / "flipped.gz"
    path.write_bytes(packed)
    with pytest.raises(CorruptDataError):
        read_idx(path)
