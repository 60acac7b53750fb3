"""What several seeds of one number come to: a median and its extremes, as text and as a line."""

import statistics
from collections.abc import Sequence

from synthgrad.bench.figures.panels import Line
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.table import Table

MIN_SEEDS = 3
"""With fewer no verdict is given."""


def text(values: Sequence[float], digits: int = 3, *, signed: bool = False) -> str:
    """Return the median with the least and the most.

    Example:
        >>> text([0.5, 0.25, 1.0], 2), text([0.5, 0.25], 2, signed=True), text([0.5])
        ('0.50 [0.25, 1.00]', '+0.38 [+0.25, +0.50]', '0.500')
    """
    numbers = [statistics.median(values), min(values), max(values)]
    middle, low, high = (f"{number:{'+' if signed else ''}.{digits}f}" for number in numbers)
    return middle if len(values) == 1 else f"{middle} [{low}, {high}]"


def line(label: str, x: Sequence[float], values: Sequence[Sequence[float]]) -> Line:
    """Return the medians as a line, in a band from the least to the most.

    Args:
        label: of the line.
        x: positions.
        values: at each position, one a seed.
    """
    return Line(
        label=label,
        x=x,
        y=[statistics.median(column) for column in values],
        low=[min(column) for column in values],
        high=[max(column) for column in values],
    )


def missing_table(records: Sequence[RunRecord]) -> Table:
    """Return what was not measured, and why."""
    return Table(
        title="Not measured",
        columns=("Record", "Why"),
        rows=tuple((record.name, record.reason) for record in records if record.reason),
        num_text_columns=2,
    )
