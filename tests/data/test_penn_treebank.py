import pytest

from synthgrad.data import read_penn_treebank
from synthgrad.errors import CorruptDataError, DataNotFoundError

WORDS = {
    "ptb.train.txt": " no <unk> was N \n mr. b said \n",
    "ptb.valid.txt": " a b \n",
    "ptb.test.txt": " z \n",
}
CHARACTERS = {
    "ptb.char.train.txt": "n o _ < u n k > _ w a s _ N \n m r . _ b _ s a i d _\n",
    "ptb.char.valid.txt": "a _ b\n",
    "ptb.char.test.txt": "z\n",
}


def write(folder, contents):
    for name, text in contents.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("files", [WORDS, CHARACTERS])
def test_both_forms_give_the_same_texts(tmp_path, files):
    bank = read_penn_treebank(write(tmp_path, files))
    parts = (bank.train, bank.validation, bank.test)
    texts = ["no <unk> was N\nmr. b said\n", "a b\n", "z\n"]
    assert [part.decode(part.tokens) for part in parts] == texts
    assert {part.vocabulary for part in parts} == {"".join(sorted(set("".join(texts))))}


def test_only_line_breaks_end_a_sentence(tmp_path):
    bank = read_penn_treebank(write(tmp_path, WORDS | {"ptb.test.txt": "a\x0bb\n"}))
    assert bank.test.decode(bank.test.tokens) == "a b\n"


def test_missing_files_are_named(tmp_path):
    write(tmp_path, {"ptb.train.txt": "a", "ptb.char.train.txt": "a"})
    with pytest.raises(DataNotFoundError, match=r"lacks ptb\.valid\.txt, ptb\.test\.txt\. Put"):
        read_penn_treebank(tmp_path)


def test_words_in_a_file_of_characters_are_refused(tmp_path):
    write(tmp_path, CHARACTERS | {"ptb.char.valid.txt": "a b\nc the\n"})
    with pytest.raises(CorruptDataError, match=r"ptb\.char\.valid\.txt, line 2, holds 'the'"):
        read_penn_treebank(tmp_path)


def test_empty_or_foreign_file_is_named(tmp_path):
    write(tmp_path, WORDS | {"ptb.valid.txt": ""})
    with pytest.raises(CorruptDataError, match=r"ptb\.valid\.txt is empty"):
        read_penn_treebank(tmp_path)
    (tmp_path / "ptb.valid.txt").write_bytes(b"caf\xe9")
    with pytest.raises(CorruptDataError, match=r"ptb\.valid\.txt is not a text in UTF-8"):
        read_penn_treebank(tmp_path)
