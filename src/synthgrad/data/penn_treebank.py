"""Penn Treebank as characters, from the user's own files: its licence lets nobody ship it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synthgrad.data.text import CharText, read_characters
from synthgrad.errors import CorruptDataError, DataNotFoundError

_PARTS = ("train", "valid", "test")
_WORD_FILES = tuple(f"ptb.{part}.txt" for part in _PARTS)
_CHARACTER_FILES = tuple(f"ptb.char.{part}.txt" for part in _PARTS)


@dataclass(frozen=True, kw_only=True, eq=False)
class PennTreebank:
    """The three parts of Penn Treebank, with one vocabulary.

    Attributes:
        train: The text to train on.
        validation: The text on which choices are made.
        test: The text that is read once, for the final number.
    """

    train: CharText
    validation: CharText
    test: CharText


def read_penn_treebank(folder: Path) -> PennTreebank:
    """Read Mikolov's version of Penn Treebank, as words or as characters.

    Either `ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt`, a sentence a line, or
    `ptb.char.train.txt` and so on, in which spaces separate the characters and `_` stands for a
    space. Both give the same text: the words of a sentence with one space between them, no space
    at either end, and one line break after every sentence; the mark for rare words stays as its
    five characters `<unk>`. Where both are present the words are read.

    Args:
        folder: Holds the files.

    Returns:
        The three texts, whose vocabulary holds the characters of all three.

    Raises:
        DataNotFoundError: The folder holds neither set of files completely.
        CorruptDataError: A file is empty or not UTF-8, or a character file holds longer words.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from synthgrad.data import read_penn_treebank
        >>> with TemporaryDirectory() as name:
        ...     for part in ("train", "valid", "test"):
        ...         _ = (Path(name) / f"ptb.{part}.txt").write_text(f" the {part} \\n")
        ...     bank = read_penn_treebank(Path(name))
        >>> bank.validation.decode(bank.validation.tokens)
        'the valid\\n'

    Source:
        T. Mikolov et al., "Subword language modeling with neural networks", 2012.
    """
    if all((folder / name).is_file() for name in _WORD_FILES):
        texts = [_from_words(folder / name) for name in _WORD_FILES]
    elif all((folder / name).is_file() for name in _CHARACTER_FILES):
        texts = [_from_characters(folder / name) for name in _CHARACTER_FILES]
    else:
        missing = [name for name in _WORD_FILES if not (folder / name).is_file()]
        raise DataNotFoundError(
            f"Penn Treebank was not found: {folder} lacks {', '.join(missing)}. Put "
            f"{', '.join(_WORD_FILES)} there, or {', '.join(_CHARACTER_FILES)}; synthgrad cannot "
            "fetch them, because Penn Treebank is licensed by the Linguistic Data Consortium."
        )
    whole = CharText.of("".join(texts))
    ends = [len(texts[0]), len(texts[0]) + len(texts[1])]
    train, validation, test = (
        CharText(tokens=tokens, vocabulary=whole.vocabulary)
        for tokens in whole.tokens.tensor_split(ends)
    )
    return PennTreebank(train=train, validation=validation, test=test)


def _from_words(path: Path) -> str:
    return "".join(" ".join(line.split()) + "\n" for line in _lines(path))


def _from_characters(path: Path) -> str:
    sentences: list[str] = []
    for number, line in enumerate(_lines(path), start=1):
        characters = line.split()
        for character in characters:
            if len(character) > 1:
                raise CorruptDataError(
                    f"{path}, line {number}, holds {character!r}; characters must stand alone, "
                    "with spaces between them"
                )
        sentences.append(" ".join("".join(characters).replace("_", " ").split()) + "\n")
    return "".join(sentences)


def _lines(path: Path) -> list[str]:
    # Not splitlines(), which breaks lines at characters other than the line break, too.
    return read_characters(path).removesuffix("\n").split("\n")
