"""How an arm looks, everywhere the same: in the report page, in its legends and on paper.

The eight colors were searched for: in each theme every pair stays apart (OKLab distance above 0.09
for normal, deuteranope and protanope eyes, 0.07 for tritanope ones), and each has a contrast of at
least 3 to 1 with its background. Dashes and markers tell the arms apart without any color.
"""

from dataclasses import dataclass
from typing import Literal

_LIGHT = ("#1f1f1f", "#808080", "#815b0b", "#f5642f", "#872c53", "#226fb3", "#054817", "#4c3299")
_DARK = ("#f2f2f2", "#949494", "#d6da4d", "#f09121", "#fdacc8", "#21abfc", "#368844", "#8c5cde")

# Plotly's names; lengths of dashes and gaps in widths of the line.
_DASHES: dict[str, tuple[float, ...]] = {
    "solid": (),
    "dash": (5, 2),
    "dot": (1.2, 1.5),
    "dashdot": (6, 2, 1.2, 2),
    "longdash": (9, 2.5),
    "longdashdot": (10, 2, 1.2, 2),
}
# Plotly's names; Matplotlib's marker, and a path around (15, 6) for the legends of the page.
_SYMBOLS = {
    "circle": ("o", "M11 6a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"),
    "square": ("s", "M11.5 2.5h7v7h-7z"),
    "diamond": ("D", "M15 1l5 5l-5 5l-5 -5z"),
    "triangle-up": ("^", "M15 1.5l4.5 8h-9z"),
    "cross": ("P", "M13.5 1.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"),
    "x": ("X", "M15 4l2.5-2.5 2 2-2.5 2.5 2.5 2.5-2 2-2.5-2.5-2.5 2.5-2-2 2.5-2.5-2.5-2.5 2-2z"),
    "triangle-down": ("v", "M15 10.5l4.5 -8h-9z"),
    "star": ("*", "M15 .5l1.6 3.8h3.9l-3.1 2.6 1.2 4-3.6-2.4-3.6 2.4 1.2-4-3.1-2.6h3.9z"),
}


@dataclass(frozen=True, kw_only=True)
class Style:
    """The look of one arm.

    Args:
        light: color on a light background, as `#rrggbb`.
        dark: color on a dark background.
        dash: line style, in Plotly's words.
        symbol: marker, in Plotly's words.
    """

    light: str
    dark: str
    dash: str
    symbol: str

    @property
    def linestyle(self) -> Literal["solid"] | tuple[float, tuple[float, ...]]:
        """The line style in Matplotlib's words."""
        lengths = _DASHES[self.dash]
        return (0, lengths) if lengths else "solid"

    @property
    def marker(self) -> str:
        """The marker in Matplotlib's words."""
        return _SYMBOLS[self.symbol][0]

    @property
    def dash_array(self) -> str:
        """The line style in SVG's words, for a line 2 wide that is only 30 long."""
        return " ".join(f"{1.1 * length:.3g}" for length in _DASHES[self.dash]) or "none"

    @property
    def marker_path(self) -> str:
        """The marker as a path of an SVG 30 wide and 12 high."""
        return _SYMBOLS[self.symbol][1]


def arm_style(index: int) -> Style:
    """Return the look of the arm at `index` in the experiment's order.

    The first 24 arms differ; from the 25th on looks repeat.
    """
    return Style(
        light=_LIGHT[index % len(_LIGHT)],
        dark=_DARK[index % len(_DARK)],
        dash=list(_DASHES)[index % len(_DASHES)],
        symbol=list(_SYMBOLS)[index % len(_SYMBOLS)],
    )
