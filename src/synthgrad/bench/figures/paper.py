"""Figures for a paper or a README, as SVG: the same numbers as in the page, drawn by Matplotlib."""

from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator, StrMethodFormatter

from synthgrad.bench.figures.canvas import draw
from synthgrad.bench.figures.data import Json
from synthgrad.bench.figures.style import Style

_ERRORS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 90]
_TENS = [10, 20, 30, 40, 50, 60, 70, 80, 90]
_LOSSES = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]
_SECONDS = [step * 10**power for power in range(-3, 6) for step in (1, 2, 5)]
_RATIOS = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 50]
_MAX_INTERFACES = 4


def accuracy_svg(curves: Json) -> str:
    """Draw validation accuracy against iterations and against seconds, side by side.

    The axis is logarithmic in the error, so 97 and 98 percent are as far apart as 50 and 67.

    Args:
        curves: what `data.curves` returns.

    Returns:
        The SVG file's text.
    """
    return draw(lambda figure: _draw_curves(figure, curves, "val_accuracy"), height=3.3)


def loss_svg(curves: Json) -> str:
    """Draw validation loss against iterations and against seconds, side by side.

    Args:
        curves: what `data.curves` returns.

    Returns:
        The SVG file's text.
    """
    return draw(lambda figure: _draw_curves(figure, curves, "val_loss"), height=3.3)


def alignment_svg(alignment: Json) -> str:
    """Draw cosine and relative error of the first interfaces' signals against iterations.

    Args:
        alignment: what `data.alignment` returns.

    Returns:
        The SVG file's text.
    """
    return draw(lambda figure: _draw_alignment(figure, alignment), height=4.2)


def timing_svg(timing: Json) -> str:
    """Draw each arm's seconds per iteration over backprop's, every round a point.

    Args:
        timing: what `data.timing` returns.

    Returns:
        The SVG file's text.
    """
    rows = len(timing["arms"])
    return draw(lambda figure: _draw_timing(figure, timing), height=0.8 + 0.36 * rows)


def accounting_svg(accounting: Json) -> str:
    """Draw each arm's time over backprop's twice: per iteration and per stage update.

    Args:
        accounting: what `data.accounting` returns.

    Returns:
        The SVG file's text.
    """
    rows = len(accounting["arms"])
    return draw(lambda figure: _draw_accounting(figure, accounting), height=1.1 + 0.36 * rows)


def _draw_curves(figure: Figure, curves: Json, metric: str) -> None:
    axes: list[Axes] = list(figure.subplots(1, 2, sharey=True))
    _prepare_heights(axes[0], curves, metric)
    for axis, x in zip(axes, ("iteration", "seconds"), strict=True):
        for arm in curves["arms"]:
            for seed in arm["seeds"]:
                _line(axis, *_points(seed, x, metric), arm, faint=True)
            _line(axis, *_points(arm["median"], x, metric), arm)
    axes[0].set_xlabel("iterations")
    axes[0].set_xlim(left=0)
    axes[1].set_xlabel("training seconds")
    _logarithmic(axes[1], _SECONDS)
    _legend(figure, curves)


def _prepare_heights(axis: Axes, curves: Json, metric: str) -> None:
    """Scale and label the vertical axis for what will be drawn."""
    seeds = [seed for arm in curves["arms"] for seed in arm["seeds"]]
    heights = [height for seed in seeds for height in _points(seed, "iteration", metric)[1]]
    known = [height for height in heights if height is not None]
    least, most = min(known, default=1), max(known, default=1)
    if metric.endswith("accuracy"):
        axis.set_ylabel("validation accuracy (%)")
        ticks = _ERRORS if least < 10 else _TENS  # tens where all that is drawn is below 90 %
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(FixedLocator(ticks))
        axis.yaxis.set_major_formatter(FixedFormatter([f"{100 - error:g}" for error in ticks]))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.invert_yaxis()
    else:
        axis.set_ylabel("validation loss")
        if most > 4 * least:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(FixedLocator(_LOSSES))
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.yaxis.set_minor_locator(NullLocator())


def _draw_alignment(figure: Figure, alignment: Json) -> None:
    names = alignment["interfaces"][:_MAX_INTERFACES]
    grid = figure.subplots(2, max(len(names), 1), sharex=True, sharey="row", squeeze=False)
    rows = (("cosine", "cosine"), ("relative_error", "relative error"))
    for row, (metric, title) in enumerate(rows):
        for axis, name in zip(grid[row], names, strict=False):
            for arm in alignment["arms"]:
                if name in arm["interfaces"]:
                    median = arm["interfaces"][name]["median"]
                    _line(axis, median["iteration"], median[metric], arm)
            axis.axhline({"cosine": 0, "relative_error": 1}[metric], color="#8a8a8a", linewidth=0.8)
        grid[row][0].set_ylabel(title)
    for axis, name in zip(grid[0], names, strict=False):
        axis.set_title(name)
    for axis in grid[1]:
        axis.set_xlabel("iterations")
    _legend(figure, alignment)


def _draw_timing(figure: Figure, timing: Json) -> None:
    axis = figure.subplots()
    for row, arm in enumerate(timing["arms"]):
        style = _style(arm)
        axis.plot(
            arm["ratios"],
            [row] * len(arm["ratios"]),
            linestyle="none",
            marker="|",
            markersize=10,
            color=style.light,
            alpha=0.25,
        )
        axis.plot(
            arm["median"],
            row,
            marker=style.marker,
            color=style.light,
            markersize=8,
            markeredgecolor="white",
        )
    axis.set_xlabel("seconds per iteration over backprop's, round by round")
    _rows_of_arms(axis, timing)


def _draw_accounting(figure: Figure, accounting: Json) -> None:
    axis = figure.subplots()
    # Open rings around filled diamonds: both are seen where the two numbers are the same.
    markers: dict[str, dict[str, Any]] = {
        "per_iteration": {"marker": "o", "color": "#226fb3", "fillstyle": "none", "markersize": 9},
        "per_stage_update": {"marker": "D", "color": "#f5642f", "markersize": 5},
    }
    for row, arm in enumerate(accounting["arms"]):
        axis.plot([arm[key] for key in markers], [row, row], color="#b5b5b5", zorder=1)
        for key, look in markers.items():
            axis.plot(arm[key], row, **look)
    axis.set_xlabel("time over backprop's (left of 1: less time than backprop)")
    _rows_of_arms(axis, accounting)
    handles = [Line2D([], [], linestyle="none", **look) for look in markers.values()]
    labels = [key.replace("_", " ") for key in markers]
    figure.legend(handles, labels, loc="outside upper center", ncols=2)


def _rows_of_arms(axis: Axes, figure_data: Json) -> None:
    """Name the rows, the first arm on top, on a logarithmic axis of ratios with a line at 1."""
    axis.set_yticks(range(len(figure_data["arms"])), [arm["label"] for arm in figure_data["arms"]])
    axis.set_ylim(len(figure_data["arms"]) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")
    # The line first: a logarithmic axis of one value only has no width.
    axis.axvline(1, color="#1f1f1f", linewidth=0.8, zorder=1)
    _logarithmic(axis, _RATIOS)


def _logarithmic(axis: Axes, ticks: list[float]) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _line(axis: Axes, x: Any, y: Any, arm: Json, *, faint: bool = False) -> None:
    style = _style(arm)
    if faint:
        axis.plot(x, y, color=style.light, linewidth=0.5, alpha=0.35)
    else:
        axis.plot(
            x,
            y,
            color=style.light,
            linestyle=style.linestyle,
            marker=style.marker,
            markevery=max(1, len(x) // 6),
            linewidth=1.4,
        )


def _points(columns: Json, x: str, metric: str) -> tuple[list[Any], list[Any]]:
    """Return what is drawn of a curve.

    An accuracy is drawn as its error, 100 % as 99.9 %; against the logarithm of seconds, which has
    no zero, a curve begins after the start.
    """
    values = columns[metric]
    if metric.endswith("accuracy"):
        values = [None if value is None else max(100 - value, _ERRORS[0]) for value in values]
    kept = [i for i, iteration in enumerate(columns["iteration"]) if x != "seconds" or iteration]
    return [columns[x][i] for i in kept], [values[i] for i in kept]


def _legend(figure: Figure, figure_data: Json) -> None:
    arms = figure_data["arms"]
    handles = [
        Line2D([], [], color=style.light, linestyle=style.linestyle, marker=style.marker)
        for style in map(_style, arms)
    ]
    labels = [cast(str, arm["label"]) for arm in arms]
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(arms), 4))


def _style(arm: Json) -> Style:
    return Style(**arm["style"])
