"""A text file as a sequence of characters, for models that predict the next one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synthgrad.errors import ConfigError, CorruptDataError, DataNotFoundError


@dataclass(frozen=True, kw_only=True, eq=False)
class CharText:
    """A text as numbers.

    Attributes:
        tokens: int64, shape (num_characters,); each the position of a character in `vocabulary`.
        vocabulary: The different characters of the text, in the order of Unicode.
    """

    tokens: Tensor
    vocabulary: str

    @classmethod
    def of(cls, text: str) -> CharText:
        """Return `text` as numbers, with the vocabulary of just the characters in it.

        Example:
            >>> from synthgrad.data import CharText
            >>> CharText.of("banana")
            CharText(tokens=tensor([1, 0, 2, 0, 2, 0]), vocabulary='abn')
        """
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        vocabulary, tokens = np.unique(codes, return_inverse=True)
        return cls(
            tokens=torch.from_numpy(tokens.astype(np.int64)),
            vocabulary="".join(chr(code) for code in vocabulary),
        )

    def split(self, fraction: float = 0.1) -> tuple[CharText, CharText]:
        """Hold out the end of the text, for validation; the vocabulary stays that of the whole.

        Args:
            fraction: How much of the text is held out, above 0 and below 1.

        Returns:
            The text to train on and the text held out.

        Raises:
            ConfigError: The fraction leaves either part without a character.

        Example:
            >>> from synthgrad.data import CharText
            >>> train, validation = CharText.of("to be or not").split(0.25)
            >>> train.decode(train.tokens), validation.decode(validation.tokens)
            ('to be or ', 'not')
        """
        num_held_out = round(fraction * len(self.tokens))
        if not 0 < num_held_out < len(self.tokens):
            raise ConfigError(
                f"a fraction of {fraction} holds out {num_held_out} of {len(self.tokens)} "
                "characters; both parts must have some"
            )
        num_train = len(self.tokens) - num_held_out
        train, held_out = self.tokens[:num_train], self.tokens[num_train:]
        return replace(self, tokens=train), replace(self, tokens=held_out)

    def encode(self, text: str) -> Tensor:
        """Return the tokens of `text`, int64, shape (num_characters,).

        Raises:
            ConfigError: A character is not in the vocabulary.
        """
        positions = {character: token for token, character in enumerate(self.vocabulary)}
        unknown = sorted(set(text) - positions.keys())
        if unknown:
            raise ConfigError(f"the vocabulary does not have {unknown}; it is {self.vocabulary!r}")
        return torch.tensor([positions[character] for character in text], dtype=torch.int64)

    def decode(self, tokens: Tensor) -> str:
        """Return the text of `tokens`, int64, shape (num_characters,)."""
        return "".join(self.vocabulary[token] for token in tokens.tolist())


def read_text(path: Path) -> CharText:
    """Read a text file in UTF-8, every character as it stands.

    Args:
        path: The file.

    Returns:
        The text and its vocabulary.

    Raises:
        DataNotFoundError: There is no such file.
        CorruptDataError: The file is empty, or is not UTF-8.
    """
    return CharText.of(read_characters(path))


def read_characters(path: Path) -> str:
    """Return the characters of a text file in UTF-8, at least one; raises as `read_text` does."""
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise DataNotFoundError(f"there is no text file {path}") from error
    except UnicodeDecodeError as error:
        raise CorruptDataError(f"{path} is not a text in UTF-8: {error}") from error
    if not text:
        raise CorruptDataError(f"{path} is empty")
    return text
