"""What the pictures of findings show, as data: panels of lines, and panels of dots in rows.

`lines.py` and `dots.py` draw it; the data alone need no plotting library.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from synthgrad.bench.figures.data import Json


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line: points from left to right; None leaves a gap.

    Args:
        label: in the legend; lines of the same label look alike and stand there once.
        x: positions.
        y: heights.
        low: lower ends of a band around the line.
        high: its upper ends.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes.

    Args:
        title: above it.
        x_label: what is to the right, with its unit.
        y_label: what is upward, with its unit.
        lines: what is drawn.
        log_x: whether the horizontal axis is logarithmic.
        log_y: whether the vertical one is.
        marks: heights of thin horizontal lines: chance, a limit.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False
    marks: Sequence[float] = ()


def lines_data(panels: Sequence[Panel]) -> Json:
    """Return panels as the JSON of a picture of kind "lines"."""
    return {"panels": [asdict(panel) for panel in panels]}


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One row.

    Args:
        label: of the row.
        value: the number; None where it was not measured.
        points: the numbers of the single seeds.
        low: lower end of the value's interval.
        high: its upper end.
        paper: the paper's number, where it has one.
    """

    label: str
    value: float | None
    points: Sequence[float] = ()
    low: float | None = None
    high: float | None = None
    paper: float | None = None


@dataclass(frozen=True, kw_only=True)
class Dots:
    """One pair of axes with rows of dots.

    Args:
        title: above it.
        x_label: what the number is, with its unit.
        rows: from the top down.
        log_x: whether the axis is logarithmic.
        marks: positions of thin vertical lines: chance, a limit, backprop.
    """

    title: str
    x_label: str
    rows: Sequence[Dot]
    log_x: bool = False
    marks: Sequence[float] = ()


def dots_data(panels: Sequence[Dots]) -> Json:
    """Return panels as the JSON of a picture of kind "dots"."""
    return {"panels": [asdict(panel) for panel in panels]}
