import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pooch
import pytest
import requests
from fake_files import checksums, idx_files

from synthgrad.data import cifar10, fashion_mnist, get, registry
from synthgrad.data.checksums import sha256
from synthgrad.data.download import RemoteFile, fetch
from synthgrad.errors import DataNotFoundError

MIRRORS = ("https://first.example/file", "https://second.example/file")


class FakeNetwork:
    """Stands in for pooch's HTTP downloader: serves what it was given, remembers what it saw."""

    def __init__(self):
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []

    def __call__(self, url, output_file, pooch, check_only=False):
        self.asked.append(url)
        if url not in self.pages:
            raise requests.exceptions.ConnectionError("Network is unreachable")
        Path(output_file).write_bytes(self.pages[url])


@pytest.fixture
def network(monkeypatch):
    network = FakeNetwork()
    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar: network)
    return network


def test_published_file_is_kept(tmp_path, network):
    network.pages[MIRRORS[0]] = b"content"
    fetch(RemoteFile(file_name="f", urls=MIRRORS, sha256=sha256(b"content")), tmp_path / "new")
    assert (tmp_path / "new" / "f").read_bytes() == b"content"
    assert network.asked == [MIRRORS[0]]


def test_next_address_is_tried(tmp_path, network):
    network.pages = {MIRRORS[0]: b"an error page", MIRRORS[1]: b"content"}
    fetch(RemoteFile(file_name="f", urls=MIRRORS, sha256=sha256(b"content")), tmp_path)
    assert (tmp_path / "f").read_bytes() == b"content"


def test_file_with_another_checksum_is_not_kept(tmp_path, network):
    network.pages = dict.fromkeys(MIRRORS, b"tampered")
    with pytest.raises(DataNotFoundError, match="hash"):
        fetch(RemoteFile(file_name="f", urls=MIRRORS, sha256=sha256(b"content")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_the_named_members_leave_an_archive(tmp_path, network):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("inner/wanted.bin", "inner/other.bin", "../outside.bin"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    network.pages[MIRRORS[0]] = buffer.getvalue()
    remote = RemoteFile(
        file_name="a.tar.gz",
        urls=MIRRORS,
        sha256=sha256(buffer.getvalue()),
        members=("inner/wanted.bin",),
    )
    fetch(remote, tmp_path / "in")
    found = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert [str(path) for path in found] == ["in/inner/wanted.bin"]


@pytest.mark.parametrize(
    ("name", "module"), [("fashion-mnist", fashion_mnist), ("cifar10", cifar10)]
)
def test_without_a_network_the_error_says_what_to_do(tmp_path, network, name, module):
    with pytest.raises(DataNotFoundError) as error:
        get(name, tmp_path)
    assert network.asked == list(module.REMOTE[0].urls)
    message = str(error.value)
    assert "Network is unreachable" in message
    assert f"into {tmp_path / name}" in message
    assert all(file_name in message for file_name in module.FILES.layouts[0])


def test_folder_that_cannot_be_written_is_the_same_error(tmp_path, network):
    (tmp_path / "file").touch()
    with pytest.raises(DataNotFoundError, match="could not be downloaded"):
        fetch(RemoteFile(file_name="f", urls=MIRRORS, sha256="0" * 64), tmp_path / "file" / "sub")


def test_get_downloads_what_is_missing_and_then_finds_it(tmp_path, network, monkeypatch):
    contents = idx_files()
    published = checksums(contents)
    remote = tuple(
        RemoteFile(file_name=name, urls=(f"https://x/{name}",), sha256=published[name])
        for name in contents
    )
    source = replace(registry._SOURCES["fashion-mnist"], remote=remote)
    monkeypatch.setitem(registry._SOURCES, "fashion-mnist", source)
    network.pages = {f"https://x/{name}": data for name, data in contents.items()}
    paths = get("fashion-mnist", tmp_path)
    assert [path.parent for path in paths] == [tmp_path / "fashion-mnist"] * 4
    assert len(network.asked) == 4
    assert get("fashion-mnist", tmp_path) == paths
    assert len(network.asked) == 4
