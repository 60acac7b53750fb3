"""Downloads with pinned checksums; without a network they end in an error, not in a crash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synthgrad.errors import DataNotFoundError


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A published file.

    Attributes:
        file_name: Its name on disk.
        urls: Where it is published, tried in this order; HTTPS.
        sha256: Its checksum, as it is downloaded.
        members: For a tar archive, the files to take out of it; the archive is then deleted.
    """

    file_name: str
    urls: tuple[str, ...]
    sha256: str
    members: tuple[str, ...] = ()


def fetch(remote: RemoteFile, folder: Path) -> None:
    """Download a file into `folder`, verify it, and unpack it if it is an archive.

    Args:
        remote: What to download.
        folder: Where to; made if need be.

    Raises:
        DataNotFoundError: No address gave the published file (no network, say, or another
            checksum), or the folder cannot be written.
    """
    # pooch brings an HTTP library with it, which only a download should have to wait for.
    import pooch

    unpack = pooch.Untar(members=list(remote.members), extract_dir=".") if remote.members else None
    reasons: list[str] = []
    for url in remote.urls:
        try:
            pooch.retrieve(
                url,
                known_hash=f"sha256:{remote.sha256}",
                fname=remote.file_name,
                path=folder,
                processor=unpack,
            )
        # An HTTP error is an OSError, like a full disk; a wrong checksum is a ValueError.
        except (OSError, ValueError) as error:
            reasons.append(f"  {url}: {error}")
            continue
        if remote.members:
            (folder / remote.file_name).unlink()
        return
    raise DataNotFoundError(
        "\n".join([f"{remote.file_name} could not be downloaded to {folder}:", *reasons])
    )
