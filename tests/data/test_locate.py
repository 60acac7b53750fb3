from pathlib import Path

import pytest

from synthgrad.data.locate import FileSet, cache_folder, find_files
from synthgrad.errors import DataNotFoundError


@pytest.fixture
def wanted(tmp_path):
    return FileSet(
        name="some-set",
        title="Some Set",
        layouts=(("a.gz", "b.gz"), ("a", "b")),
        subfolders=("some-set", "."),
        system_folders=(tmp_path / "system",),
        hint="Ask a friend.",
    )


def fill(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_named_folder_comes_before_cache_and_system(tmp_path, wanted):
    fill(tmp_path / "system", "a", "b")
    assert find_files(wanted, tmp_path / "mine") == [tmp_path / "system" / n for n in "ab"]
    fill(cache_folder() / "some-set", "a", "b")
    assert find_files(wanted, tmp_path / "mine") == [cache_folder() / "some-set" / n for n in "ab"]
    fill(tmp_path / "mine", "a", "b")
    assert find_files(wanted, tmp_path / "mine") == [tmp_path / "mine" / n for n in "ab"]
    assert find_files(wanted) == [cache_folder() / "some-set" / n for n in "ab"]


def test_files_of_two_layouts_are_not_mixed(tmp_path, wanted):
    fill(tmp_path, "a.gz", "b")
    with pytest.raises(DataNotFoundError, match=r"lacks b\.gz\n.* lacks a\n"):
        find_files(wanted, tmp_path)
    fill(tmp_path, "b.gz")
    assert find_files(wanted, tmp_path) == [tmp_path / "a.gz", tmp_path / "b.gz"]


def test_error_says_which_files_to_put_where(tmp_path, wanted):
    with pytest.raises(DataNotFoundError) as error:
        find_files(wanted, tmp_path)
    assert str(error.value) == "\n".join(
        [
            "Some Set was not found. Searched:",
            f"  {tmp_path}",
            f"  {cache_folder()} (no such folder)",
            f"  {tmp_path / 'system'} (no such folder)",
            "Put these files",
            "  a.gz b.gz",
            "or these",
            "  a b",
            f"into {tmp_path / 'some-set'},",
            "or into any folder that you name with --data-dir,",
            "or fetch them with `synthgrad data get some-set`, which needs a network.",
            "Ask a friend.",
        ]
    )
