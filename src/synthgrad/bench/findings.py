"""What an experiment found, as data: verdicts, tables and pictures, a pure function of its records.

An experiment that is more than one comparison of arms, or that measures something other than
training runs, says with this what its page and its tables show.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from synthgrad.bench.figures.data import Json
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.claims import Claim
from synthgrad.bench.scoring.table import Table, list_claims
from synthgrad.errors import ConfigError

# What each kind's data are: panels.py for lines and dots, chrome_trace.py for a time line, and the
# arguments of maps.py for the others.
Kind = Literal["lines", "dots", "dissimilarities", "surfaces", "heat-maps", "timeline"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One figure.

    Args:
        name: of its files, figures/NAME.svg and figures/NAME.json: a-z, 0-9 and "-".
        title: one line above it.
        kind: how it is drawn: one of `KINDS`.
        data: the numbers that it shows, as that kind wants them.
        note: what a reader must know to read it.

    Raises:
        ConfigError: the name cannot be a file's, or there is no such kind.
    """

    name: str
    title: str
    kind: Kind
    data: Json
    note: str = ""

    def __post_init__(self) -> None:
        """Check the name and the kind."""
        if not self.name or not set(self.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-"):
            raise ConfigError(f"a picture's name is made of a-z, 0-9 and '-', not {self.name!r}")
        if self.kind not in KINDS:
            raise ConfigError(f"Picture(kind={self.kind!r}): one of {', '.join(KINDS)}")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that an experiment shows of its records, in the order of its page."""

    claims: tuple[Claim, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()

    def all_tables(self) -> list[Table]:
        """Return the tables that have rows, the claims as the last one."""
        tables = [*self.tables, list_claims(self.claims)]
        return [table for table in tables if table.rows]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as one object."""
        return {
            "claims": [claim.to_json() for claim in self.claims],
            "tables": [
                {"title": table.title, "columns": table.columns, "rows": table.rows}
                for table in self.tables
            ],
            "figures": {picture.name: picture.data for picture in self.pictures},
        }


FindingsFunction = Callable[[Sequence[RunRecord]], Findings]
"""From the records of an experiment, of all its cases, to what they show."""
