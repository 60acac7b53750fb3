"""Where the files of a data set are looked for, and what is said when they are nowhere.

The order is: the folder the user names (`--data-dir`), the user's cache, the folders in which
the system's packages put them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs

from synthgrad.errors import DataNotFoundError


@dataclass(frozen=True, kw_only=True)
class FileSet:
    """The files of one data set, and where they may lie.

    Attributes:
        name: The data set's key, and the name of its folder in the cache.
        title: The data set's name in messages.
        layouts: Each a complete set of file names; the first that is found is taken.
        subfolders: Where to look below a searched folder; "." is the folder itself.
        system_folders: Where the packages of a system put the files.
        hint: Another way to come by the files, a sentence.
    """

    name: str
    title: str
    layouts: tuple[tuple[str, ...], ...]
    subfolders: tuple[str, ...]
    system_folders: tuple[Path, ...] = ()
    hint: str


def cache_folder() -> Path:
    """Return the folder that downloads go to, one subfolder a data set."""
    return platformdirs.user_cache_path("synthgrad") / "data"


def find_files(wanted: FileSet, data_dir: Path | None = None) -> list[Path]:
    """Find a complete set of a data set's files.

    Args:
        wanted: Which files.
        data_dir: The folder to search first.

    Returns:
        The paths, in the order in which the layout names them.

    Raises:
        DataNotFoundError: No searched folder holds a complete set; the message says which files
            to put where.
    """
    searched = [*([data_dir] if data_dir else []), cache_folder(), *wanted.system_folders]
    incomplete: list[str] = []
    for folder in [root / subfolder for root in searched for subfolder in wanted.subfolders]:
        for layout in wanted.layouts:
            paths = [folder / name for name in layout]
            missing = [path.name for path in paths if not path.is_file()]
            if not missing:
                return paths
            if len(missing) < len(paths):
                incomplete.append(f"  {folder} lacks {', '.join(missing)}")
    raise DataNotFoundError("\n".join(_explain(wanted, searched, incomplete)))


def _explain(wanted: FileSet, searched: list[Path], incomplete: list[str]) -> list[str]:
    sets = [" ".join(layout) for layout in wanted.layouts]
    lines = [f"{wanted.title} was not found. Searched:"]
    lines += [f"  {folder}{'' if folder.is_dir() else ' (no such folder)'}" for folder in searched]
    if incomplete:
        lines += ["Found only in part:", *incomplete]
    lines += ["Put these files", f"  {sets[0]}"]
    for other in sets[1:]:
        lines += ["or these", f"  {other}"]
    lines += [
        f"into {searched[0] / wanted.name},",
        "or into any folder that you name with --data-dir,",
        f"or fetch them with `synthgrad data get {wanted.name}`, which needs a network.",
        wanted.hint,
    ]
    return lines
