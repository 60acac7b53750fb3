"""A text file as a sequence of characters, for models that predict the next one."""

from __future__ import annotations

from dataclasses import dataclass
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
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise DataNotFoundError(f"there is no text file {path}") from error
    except UnicodeDecodeError as error:
        raise CorruptDataError(f"{path} is not a text in UTF-8: {error}") from error
    if not text:
        raise CorruptDataError(f"{path} is empty")
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    vocabulary, tokens = np.unique(codes, return_inverse=True)
    return CharText(
        tokens=torch.from_numpy(tokens.astype(np.int64)),
        vocabulary="".join(chr(code) for code in vocabulary),
    )
