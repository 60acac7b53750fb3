"""Maps on paper: representations layer by layer, losses beside implied ones, ratios over sizes.

They are pure functions from numbers to SVG text; `synthgrad.diagnostics` computes such numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from synthgrad.bench.figures.canvas import draw
from synthgrad.bench.figures.data import Json

Matrix = Sequence[Sequence[float]]

_COLORS = "cividis"  # looks the same to color-blind eyes, and in gray
_NUM_LEVELS = 12
_AROUND_ONE = "PuOr"  # two sides that color-blind eyes tell apart
_MAX_COLUMNS = 3


def rdm_svg(
    rdms: Mapping[str, Mapping[str, Matrix]],
    separation: Mapping[str, Mapping[str, float]] | None = None,
) -> str:
    """Draw representational dissimilarity matrices: a row an arm, a column a layer.

    All share one scale, from 0 (dark, alike) to 2. Examples should be sorted by class, so that
    classes show as dark blocks along the diagonal.

    Args:
        rdms: by the arm's label and the layer's name, [N, N] as nested lists. A layer that an arm
            lacks stays empty.
        separation: a number to print below each, such as `diagnostics.class_separation`.

    Returns:
        The SVG file's text.
    """
    layers = list(dict.fromkeys(layer for arm in rdms.values() for layer in arm))
    if not layers:
        return draw(lambda figure: None, height=1.0)
    side = 6.4 / max(len(layers), 2)
    rows = len(rdms) * (side + (0.25 if separation else 0.05))

    def content(figure: Figure) -> None:
        grid: Any = figure.subplots(len(rdms), len(layers), squeeze=False)
        image: Any = None
        for row, (label, arm) in enumerate(rdms.items()):
            for column, layer in enumerate(layers):
                axis: Axes = grid[row][column]
                _bare(axis)
                if row == 0:
                    axis.set_title(layer)
                if column == 0:
                    axis.set_ylabel(label)
                if layer in arm:
                    image = axis.imshow(
                        _numbers(arm[layer]), cmap=_COLORS, vmin=0, vmax=2, interpolation="none"
                    )
                number = (separation or {}).get(label, {}).get(layer)
                if number is not None:
                    axis.set_xlabel(f"{number:.2f}")
        bar = figure.colorbar(image, ax=list(grid.flat), location="right", fraction=0.03)
        bar.set_label("1 - correlation")

    return draw(content, height=0.35 + rows)


def surface_svg(
    a: Sequence[float],
    b: Sequence[float],
    true: Matrix,
    implied: Matrix,
    labels: tuple[str, str] = ("a", "b"),
) -> str:
    """Draw a loss and the loss that a synthesizer implies as contour maps side by side.

    Both have the levels of the true loss; where the implied one leaves them, its map has the color
    of the nearest. The cross marks the activation itself.

    Args:
        a: coordinates along the first direction.
        b: coordinates along the second direction.
        true: [len(a), len(b)]; what is not finite stays empty.
        implied: likewise.
        labels: of the two directions.

    Returns:
        The SVG file's text.
    """
    loss = _numbers(true)
    known = loss[np.isfinite(loss)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    # A flat loss has no range; its map is one color.
    levels = np.linspace(low, high if high > low else low + max(1.0, abs(low)), _NUM_LEVELS)

    def content(figure: Figure) -> None:
        axes: list[Axes] = list(figure.subplots(1, 2, sharex=True, sharey=True))
        filled: Any = None
        for axis, title, numbers in zip(
            axes,
            ("true loss", "implied by the synthesizer"),
            (loss, _numbers(implied)),
            strict=True,
        ):
            axis.set_title(title)
            axis.grid(visible=False)
            axis.set_aspect("equal")
            axis.set_xlabel(labels[0])
            # Contours take the horizontal axis last.
            heights = np.ma.masked_invalid(numbers.T)
            filled = axis.contourf(a, b, heights, levels=levels, cmap=_COLORS, extend="both")
            axis.contour(filled, colors="#f2f2f2", linewidths=0.4)
            axis.plot([0], [0], marker="+", color="#f5642f", markersize=8)
        axes[0].set_ylabel(labels[1])
        figure.colorbar(filled, ax=axes, location="right", fraction=0.03, format="%.3g")

    return draw(content, height=3.4)


def heat_maps_svg(data: Json) -> str:
    """Draw ratios over two sizes, a panel a group: a number a cell, its color the side of 1.

    All panels share one scale, logarithmic and the same to both sides of 1.

    Args:
        data: "x_label", "y_label", and "panels", each with "title", "x" and "y" (the sizes, rising)
            and "values": a row a `y`, an entry an `x`, None where nothing was measured.

    Returns:
        The SVG file's text.
    """
    panels = data["panels"]
    if not panels:
        return draw(lambda figure: None, height=1.0)
    columns = min(len(panels), _MAX_COLUMNS)
    rows = -(-len(panels) // columns)
    logs = [np.log2(np.asarray(panel["values"], dtype=np.float64)) for panel in panels]
    known = np.concatenate([values[np.isfinite(values)] for values in logs])
    reach = max(0.1, float(np.abs(known).max())) if known.size else 1.0

    def content(figure: Figure) -> None:
        grid: Any = figure.subplots(rows, columns, squeeze=False)
        axes: list[Axes] = list(grid.flat)
        for axis, panel, values in zip(axes, panels, logs, strict=False):
            axis.grid(visible=False)
            axis.imshow(
                np.ma.masked_invalid(values),
                cmap=_AROUND_ONE,
                vmin=-reach,
                vmax=reach,
                aspect="auto",
                origin="lower",
                interpolation="none",
            )
            for (row, column), value in np.ndenumerate(values):
                if np.isfinite(value):
                    # Dark cells lie at the ends of the scale.
                    color = "#ffffff" if abs(value) > 0.7 * reach else "#1f1f1f"
                    text = f"{2**value:.2f}"
                    axis.text(column, row, text, ha="center", va="center", color=color)
            axis.set_title(panel["title"])
            axis.set_xticks(range(len(panel["x"])), [str(x) for x in panel["x"]])
            axis.set_yticks(range(len(panel["y"])), [str(y) for y in panel["y"]])
            axis.set_xlabel(data["x_label"])
            axis.set_ylabel(data["y_label"])
        for axis in axes[len(panels) :]:
            axis.set_visible(False)

    return draw(content, height=0.3 + 2.2 * rows)


def _numbers(matrix: Matrix) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(matrix, dtype=np.float64)


def _bare(axis: Axes) -> None:
    axis.grid(visible=False)
    axis.xaxis.set_major_locator(NullLocator())
    axis.yaxis.set_major_locator(NullLocator())
    for spine in axis.spines.values():
        spine.set_visible(False)
