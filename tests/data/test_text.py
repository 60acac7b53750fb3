import pytest
import torch

from synthgrad.data import read_text
from synthgrad.errors import ConfigError, CorruptDataError, DataNotFoundError


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("bäca\r\n𝄞a".encode())
    return read_text(path)


def test_tokens_are_positions_in_the_sorted_vocabulary(text):
    assert text.vocabulary == "\n\rabcä𝄞"
    assert text.tokens.tolist() == [3, 5, 4, 2, 1, 0, 6, 2]
    assert text.tokens.dtype == torch.int64


def test_decode_undoes_encode(text):
    assert text.decode(text.tokens) == "bäca\r\n𝄞a"
    assert text.decode(text.encode("abba")) == "abba"
    assert text.encode("").dtype == torch.int64


def test_character_outside_the_vocabulary_is_named(text):
    with pytest.raises(ConfigError, match=r"does not have \['x', 'y'\]"):
        text.encode("ayxa")


def test_missing_empty_or_foreign_file_is_named(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"missing\.txt"):
        read_text(tmp_path / "missing.txt")
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(CorruptDataError, match=r"empty\.txt is empty"):
        read_text(tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(CorruptDataError, match=r"latin\.txt is not a text in UTF-8"):
        read_text(tmp_path / "latin.txt")


def test_split_holds_out_the_end_with_the_same_vocabulary(text):
    train, held_out = text.split(0.25)
    assert train.decode(train.tokens) + held_out.decode(held_out.tokens) == "bäca\r\n𝄞a"
    assert len(held_out.tokens) == 2
    assert train.vocabulary == held_out.vocabulary == text.vocabulary


@pytest.mark.parametrize("fraction", [-0.5, 0.0, 0.01, 0.99, 1.0])
def test_split_that_leaves_nothing_is_refused(text, fraction):
    with pytest.raises(ConfigError, match=f"a fraction of {fraction} holds out"):
        text.split(fraction)
