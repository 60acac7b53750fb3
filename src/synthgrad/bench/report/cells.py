"""What stands in the page's tables: cells that know how to be sorted and where they come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from urllib.parse import quote

from synthgrad.bench.records.reading import EVENTS_FILE


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell.

    Args:
        text: what is read.
        sort: what the column is sorted by; None sorts last, whatever the direction.
        href: the record that a number comes from, or the list of its records.
        note: a smaller line below: an interval, say.
    """

    text: str
    sort: float | None = None
    href: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """The head of a column; neighbors of the same group stand under one common heading."""

    title: str
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """The cells of one arm.

    Args:
        index: the arm's place in the experiment, which decides its look.
        label: its name.
        note: what has to be said of the whole row: how many seeds, or why there are none.
        cells: one for each column.
    """

    index: int
    label: str
    note: str
    cells: Sequence[Cell]


@dataclass(frozen=True, kw_only=True)
class ArmTable:
    """A table with one row an arm."""

    columns: Sequence[Column]
    rows: Sequence[ArmRow]

    def groups(self) -> list[tuple[str, int]]:
        """Return the common headings from left to right, with how many columns each spans."""
        runs = groupby(column.group for column in self.columns)
        return [(group, len(list(members))) for group, members in runs]

    def starts_group(self, position: int) -> bool:
        """Tell whether the column at `position` is the first of its group."""
        groups = [column.group for column in self.columns]
        return position == 0 or groups[position] != groups[position - 1]


def record_link(name: str, file: str = EVENTS_FILE) -> str:
    """Return the link from the page to a file of a record.

    Args:
        name: the record's folder below the page's, with slashes.
        file: the file in it.
    """
    return quote(f"{name}/{file}")


def records_link(names: Sequence[str], anchor: str) -> str:
    """Return where a number comes from: its one record, or the place where its records are listed.

    Args:
        names: the records' folders below the page's.
        anchor: the id of the list.
    """
    return record_link(names[0]) if len(names) == 1 else f"#{anchor}"
