"""What every figure on paper is drawn on: its look, its width, and its bytes.

Only Matplotlib's object-oriented interface is used, so no backend is chosen and nothing global
stays changed. The same numbers give the same bytes.
"""

import io
from collections.abc import Callable
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

_LOOK: dict[str, Any] = {
    "svg.hashsalt": "synthgrad",  # ids inside the SVG would be random without it
    "text.parse_math": False,  # a label is text, whatever stands in it
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "axes.titlesize": 8.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#8a8a8a",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.6,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.markersize": 4.5,
}
_WIDTH = 7.2  # inches: the text width of a page


def draw(content: Callable[[Figure], None], *, height: float) -> str:
    """Return an SVG file's text.

    Args:
        content: puts axes into the figure and draws.
        height: in inches; the width is that of a page's text.
    """
    text = io.StringIO()
    with matplotlib.style.context(["default", _LOOK]):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        content(figure)
        # Neither a date nor Matplotlib's version: they would change the bytes and not the picture.
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def make_logarithmic(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Make one or both directions logarithmic, with plain numbers as labels.

    Matplotlib's own labels there are formulas, which this canvas would show as their source.
    """
    for wanted, axis, set_scale in (
        (x, axes.xaxis, axes.set_xscale),
        (y, axes.yaxis, axes.set_yscale),
    ):
        if wanted:
            set_scale("log")
            axis.set_major_formatter(LogFormatter())
            axis.set_minor_formatter(LogFormatter())
