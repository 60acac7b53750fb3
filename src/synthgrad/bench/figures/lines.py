"""Lines in panels: anything over anything, one line a method."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from synthgrad.bench.figures.canvas import draw, make_logarithmic
from synthgrad.bench.figures.data import Json
from synthgrad.bench.figures.style import arm_style

_MAX_COLUMNS = 3


def lines_svg(data: Json) -> str:
    """Draw what `lines_data` returned; return the SVG file's text."""
    panels = data["panels"]
    labels = list(dict.fromkeys(line["label"] for panel in panels for line in panel["lines"]))
    columns = min(len(panels), _MAX_COLUMNS)
    rows = -(-len(panels) // columns)

    def fill(figure: Figure) -> None:
        axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for axis, panel in zip(axes, panels, strict=False):
            _draw_panel(axis, panel, labels)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        handles = [_handle(labels.index(label)) for label in labels]
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))

    legend = 0.22 * -(-len(labels) // 4)
    return draw(fill, height=0.4 + legend + (3.0 if columns == 1 else 2.3) * rows)


def _draw_panel(axis: Axes, panel: Json, labels: list[str]) -> None:
    for height in panel["marks"]:
        axis.axhline(height, color="#8a8a8a", linewidth=0.8)
    make_logarithmic(axis, x=panel["log_x"], y=panel["log_y"])
    for line in panel["lines"]:
        style = arm_style(labels.index(line["label"]))
        heights = [_drawn(y, log=panel["log_y"]) for y in line["y"]]
        axis.plot(
            line["x"],
            heights,
            color=style.light,
            linestyle=style.linestyle,
            marker=style.marker,
            markevery=max(1, len(heights) // 8),
            linewidth=1.4,
        )
        if line["low"]:
            low, high = ([_drawn(y, log=panel["log_y"]) for y in line[k]] for k in ("low", "high"))
            axis.fill_between(line["x"], low, high, color=style.light, alpha=0.15, linewidth=0)
    axis.set_title(panel["title"])
    axis.set_xlabel(panel["x_label"])
    axis.set_ylabel(panel["y_label"])


def _drawn(height: float | None, *, log: bool) -> float:
    """Return a height as it can be drawn: NaN leaves a gap, as does what has no logarithm."""
    return float("nan") if height is None or (log and height <= 0) else height


def _handle(index: int) -> Line2D:
    style = arm_style(index)
    return Line2D([], [], color=style.light, linestyle=style.linestyle, marker=style.marker)
