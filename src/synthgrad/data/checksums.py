"""Checksums: what was read is what was published, or nothing is trained on it."""

from __future__ import annotations

import hashlib

from synthgrad.errors import CorruptDataError


def sha256(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def verify_sha256(data: bytes, expected: str, *, source: str, mend: str) -> None:
    """Do nothing if `data` has the expected checksum, else raise.

    Args:
        data: The bytes that were read.
        expected: Their published SHA-256.
        source: The file's name, for the message.
        mend: What the user can do about it, a sentence.

    Raises:
        CorruptDataError: The checksum is another.
    """
    got = sha256(data)
    if got != expected:
        raise CorruptDataError(
            f"{source} is not the published file ({len(data):,} bytes):\n"
            f"  SHA-256 expected {expected}\n"
            f"  SHA-256 got      {got}\n"
            f"{mend}"
        )
