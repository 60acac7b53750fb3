"""Dots in rows: one number a method, every seed, its interval, and the paper's number beside it."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from synthgrad.bench.figures.canvas import draw, make_logarithmic
from synthgrad.bench.figures.data import Json

_MAX_COLUMNS = 3
_OURS = "#226fb3"
_PAPER = "#f5642f"


def dots_svg(data: Json) -> str:
    """Draw what `dots_data` returned; return the SVG file's text."""
    panels = data["panels"]
    columns = min(len(panels), _MAX_COLUMNS)
    num_rows = -(-len(panels) // columns)
    tallest = max(len(panel["rows"]) for panel in panels)
    has_paper = any(row["paper"] is not None for panel in panels for row in panel["rows"])

    def fill(figure: Figure) -> None:
        axes = figure.subplots(num_rows, columns, squeeze=False).ravel().tolist()
        for axis, panel in zip(axes, panels, strict=False):
            _draw_panel(axis, panel)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        if has_paper:
            handles = [
                Line2D([], [], linestyle="none", marker="o", color=_OURS),
                Line2D([], [], linestyle="none", marker="D", color=_PAPER, fillstyle="none"),
            ]
            figure.legend(handles, ["ours", "the paper"], loc="outside lower center", ncols=2)

    return draw(fill, height=0.6 + (0.9 + 0.24 * tallest) * num_rows)


def _draw_panel(axis: Axes, panel: Json) -> None:
    for position in panel["marks"]:
        axis.axvline(position, color="#8a8a8a", linewidth=0.8)
    make_logarithmic(axis, x=panel["log_x"])
    for place, row in enumerate(panel["rows"]):
        if row["low"] is not None and row["high"] is not None:
            axis.plot([row["low"], row["high"]], [place, place], color=_OURS, linewidth=1.2)
        axis.plot(
            row["points"],
            [place] * len(row["points"]),
            linestyle="none",
            marker="|",
            markersize=8,
            color=_OURS,
            alpha=0.45,
        )
        if row["value"] is not None:
            axis.plot(row["value"], place, marker="o", color=_OURS, markersize=6)
        if row["paper"] is not None:
            axis.plot(row["paper"], place, marker="D", color=_PAPER, fillstyle="none", markersize=6)
    axis.set_yticks(range(len(panel["rows"])), [row["label"] for row in panel["rows"]])
    axis.set_ylim(len(panel["rows"]) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")
    axis.set_title(panel["title"])
    axis.set_xlabel(panel["x_label"])
