"""What is drawn of the figures' data: evenly fewer seeds and points, and fewer digits.

The files beside the report keep everything. A figure of 500 runs is as quick to draw as one of 5,
in a browser above all, and easier to read.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from synthgrad.bench.figures.data import Json

MAX_SEEDS = 10
"""The most seeds of one arm that are drawn one by one; medians are over all."""

_MAX_MEDIAN_POINTS = 200
_MAX_SEED_POINTS = 3000  # of all seeds of all arms, in one plot
_MAX_ROUNDS = 300
_DIGITS = 6

T = TypeVar("T")


def thin(numbers: Mapping[str, Json]) -> dict[str, Json]:
    """Return the figures' data with what is drawn of it.

    Args:
        numbers: what the functions of `data` return, by their names.
    """
    thinners = {"curves": _thin_curves, "alignment": _thin_alignment, "timing": _thin_timing}
    return {
        name: thinners[name](figure) if name in thinners else figure
        for name, figure in numbers.items()
    }


def _thin_curves(curves: Json) -> Json:
    arms = curves["arms"]
    return {"arms": [{**arm, **_thin_series(arm, len(arms))} for arm in arms]}


def _thin_alignment(alignment: Json) -> Json:
    arms: list[Json] = []
    for arm in alignment["arms"]:
        series = {
            name: _thin_series(interface, len(alignment["arms"]))
            for name, interface in arm["interfaces"].items()
        }
        arms.append({**arm, "interfaces": series})
    return {**alignment, "arms": arms}


def _thin_timing(timing: Json) -> Json:
    arms = [
        {**arm, **{name: _evenly(arm[name], _MAX_ROUNDS) for name in ("rounds", "ratios")}}
        for arm in timing["arms"]
    ]
    return {**timing, "arms": arms}


def _thin_series(series: Json, num_arms: int) -> Json:
    seeds = _evenly(series["seeds"], MAX_SEEDS)
    num_points = max(2, _MAX_SEED_POINTS // max(1, num_arms * len(seeds)))
    return {
        "median": _thin_columns(series["median"], _MAX_MEDIAN_POINTS),
        "seeds": [_thin_columns(seed, num_points) for seed in seeds],
    }


def _thin_columns(columns: Json, num_points: int) -> Json:
    return {
        name: _rounded(_evenly(values, num_points)) if isinstance(values, list) else values
        for name, values in columns.items()
    }


def _evenly(values: Sequence[T], most: int) -> list[T]:
    """Return at most `most` of the values, evenly, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _rounded(values: Sequence[Any]) -> list[Any]:
    return [float(f"{v:.{_DIGITS}g}") if isinstance(v, float) else v for v in values]
