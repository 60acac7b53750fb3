"""tinyshakespeare, out of the package itself: a character model needs no network to be tried."""

from __future__ import annotations

import lzma
from importlib.resources import files
from pathlib import Path

from synthgrad.data.checksums import verify_sha256
from synthgrad.data.text import CharText
from synthgrad.errors import CorruptDataError, DataNotFoundError

TEXT_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
"""Of the text as published."""

_MEND = "Install synthgrad again."


def load_tinyshakespeare(path: Path | None = None) -> CharText:
    """Load 1,115,394 characters of Shakespeare's plays, with a vocabulary of 65.

    It is a small text: a model of a few hundred units begins to learn it by heart within some
    passes. Use it to compare methods, and `CharText.split` to hold out its end.

    Args:
        path: The text, compressed with XZ; the package's own by default.

    Returns:
        The text.

    Raises:
        CorruptDataError: The file is truncated or changed.
        DataNotFoundError: The file is not there.

    Example:
        >>> from synthgrad.data import load_tinyshakespeare
        >>> text = load_tinyshakespeare()
        >>> len(text.tokens), len(text.vocabulary), text.decode(text.tokens[:14])
        (1115394, 65, 'First Citizen:')
    """
    folder = Path(str(files("synthgrad.data")))
    path = path or folder / "tinyshakespeare" / "tinyshakespeare.txt.xz"
    try:
        text = lzma.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{path} is missing. {_MEND}") from error
    except lzma.LZMAError as error:
        raise CorruptDataError(f"{path} is damaged: {error}. {_MEND}") from error
    verify_sha256(text, TEXT_SHA256, source=str(path), mend=_MEND)
    return CharText.of(text.decode("ascii"))
