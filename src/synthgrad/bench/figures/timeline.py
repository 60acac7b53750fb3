"""When each rank did what: a row a rank, a panel a method, drawn from a Chrome trace."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from synthgrad.bench.figures.canvas import draw
from synthgrad.bench.figures.data import Json

_MAX_COLUMNS = 2
# Waiting is white, so that it shows as what is missing.
_COLORS = {
    "forward": "#226fb3",
    "backward": "#f5642f",
    "predict": "#4c3299",
    "fit": "#054817",
    "send": "#808080",
}
_OTHER = "#d6d6d6"


def timeline_svg(data: Json) -> str:
    """Draw what `chrome_trace.trace` returned; return the SVG file's text."""
    labels = {e["pid"]: e["args"]["name"] for e in data["traceEvents"] if e["ph"] == "M"}
    spans = [e for e in data["traceEvents"] if e["ph"] == "X"]
    num_ranks = 1 + max((e["tid"] for e in spans), default=0)
    columns = min(max(len(labels), 1), _MAX_COLUMNS)
    rows = -(-max(len(labels), 1) // columns)

    def fill(figure: Figure) -> None:
        axes: list[Axes] = (
            figure.subplots(rows, columns, squeeze=False, sharex=True).ravel().tolist()
        )
        for axis, (pid, label) in zip(axes, labels.items(), strict=False):
            _draw_method(axis, [e for e in spans if e["pid"] == pid], num_ranks)
            axis.set_title(label)
        for axis in axes[-columns:]:
            axis.set_xlabel("milliseconds")
        for axis in axes[len(labels) :]:
            axis.set_visible(False)
        patches = [Patch(color=color, label=kind) for kind, color in _COLORS.items()]
        figure.legend(handles=patches, loc="outside lower center", ncols=len(patches))

    return draw(fill, height=0.5 + (0.55 + 0.22 * num_ranks) * rows)


def _draw_method(axis: Axes, spans: Sequence[Json], num_ranks: int) -> None:
    for kind in dict.fromkeys(e["name"] for e in spans if not e["name"].startswith("wait")):
        for rank in range(num_ranks):
            bars = [
                (e["ts"] / 1e3, e["dur"] / 1e3)
                for e in spans
                if e["name"] == kind and e["tid"] == rank
            ]
            axis.broken_barh(bars, (rank - 0.4, 0.8), color=_COLORS.get(kind, _OTHER), linewidth=0)
    axis.set_ylim(num_ranks - 0.5, -0.5)
    axis.set_yticks(range(num_ranks), [f"rank {rank}" for rank in range(num_ranks)])
    axis.grid(visible=False)
