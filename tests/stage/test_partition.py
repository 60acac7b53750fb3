"""The best contiguous partition, against every partition there is."""

import itertools
import random

import pytest

from synthgrad.errors import ConfigError
from synthgrad.stage.partition import partition


def parts(costs: list[float], cuts: list[int], of_cuts: list[float]) -> list[float]:
    extra = [*(of_cuts[cut - 1] for cut in cuts), 0.0]
    bounds = itertools.pairwise([0, *cuts, len(costs)])
    return [sum(costs[a:b]) + more for (a, b), more in zip(bounds, extra, strict=True)]


@pytest.mark.parametrize("with_cuts", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_no_partition_is_better(seed: int, with_cuts: bool) -> None:
    draw = random.Random(seed)
    count = draw.randint(1, 9)
    costs = [float(draw.randint(0, 6)) for _ in range(count)]  # whole numbers: sums are exact
    of_cuts = [float(draw.randint(0, 6)) if with_cuts else 0.0 for _ in range(count)]
    number = draw.randint(1, count)
    every = [list(cuts) for cuts in itertools.combinations(range(1, count), number - 1)]

    def worth(cuts: list[int]) -> tuple[float, float, list[int]]:
        found = parts(costs, cuts, of_cuts)
        return max(found), sum(cost**2 for cost in found), cuts

    assert partition(costs, number, of_cuts=of_cuts if with_cuts else None) == min(every, key=worth)


@pytest.mark.parametrize(
    ("costs", "number"), [([1.0], 2), ([1.0], 0), ([-1.0, 2.0], 1), ([float("nan"), 1.0], 1)]
)
def test_what_cannot_be_cut_is_refused(costs: list[float], number: int) -> None:
    with pytest.raises(ConfigError):
        partition(costs, number)
