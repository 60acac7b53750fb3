import lzma
from importlib.resources import files

import pytest

from synthgrad.data import load_tinyshakespeare
from synthgrad.data.tinyshakespeare import TEXT_SHA256
from synthgrad.errors import CorruptDataError, DataNotFoundError


def test_package_holds_the_whole_text():
    text = load_tinyshakespeare()
    # 40,000 line breaks and the last words of the published file.
    assert (text.tokens == text.vocabulary.index("\n")).sum().item() == 40_000
    assert text.decode(text.tokens[-24:]) == "Whiles thou art waking.\n"
    assert "".join(sorted(set(text.vocabulary))) == text.vocabulary


def test_damaged_changed_or_missing_file_is_named(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"none\.xz is missing"):
        load_tinyshakespeare(tmp_path / "none.xz")
    path = tmp_path / "text.xz"
    path.write_bytes(b"not packed")
    with pytest.raises(CorruptDataError, match=r"text\.xz is damaged"):
        load_tinyshakespeare(path)
    path.write_bytes(lzma.compress(b"To be, or not to be")[:-5])
    with pytest.raises(CorruptDataError, match=r"text\.xz is damaged"):
        load_tinyshakespeare(path)
    path.write_bytes(lzma.compress(b"To be, or not to be"))
    with pytest.raises(CorruptDataError, match=r"text\.xz is not the published file"):
        load_tinyshakespeare(path)


def test_license_lies_beside_the_text():
    license = (files("synthgrad.data") / "tinyshakespeare" / "LICENSE.md").read_text()
    assert "public domain" in license
    assert TEXT_SHA256 in license
