"""Where to cut a row of costs, so that the costliest part is as cheap as can be."""

import itertools
import math
from collections.abc import Sequence

from synthgrad.errors import ConfigError


def partition(
    costs: Sequence[float], num_parts: int, *, of_cuts: Sequence[float] | None = None
) -> list[int]:
    """Return the indices at which the parts 1, 2, ... begin, in the best contiguous partition.

    Best is the least cost of the costliest part, exactly; among several such partitions the one
    whose costs are most alike (the least sum of squares), and then the one with the earliest cuts.

    Args:
        costs: 0 or more each, in the order of the row.
        num_parts: none of them is empty.
        of_cuts: for each cost, what a cut after it adds to the part that ends there; infinity where
            there can be none.

    Raises:
        ConfigError: there are fewer costs than parts, a cost is negative or not finite, or there
            are fewer places for cuts than cuts.

    Example:
        >>> partition([4.0, 1.0, 1.0, 1.0, 3.0], 3)
        [1, 4]
    """
    count = len(costs)
    if not 1 <= num_parts <= count:
        raise ConfigError(f"{count} costs cannot make {num_parts} parts, none of them empty.")
    ends = [*(of_cuts or [0.0] * count)[: count - 1], 0.0]
    bad = [c for c in costs if not (math.isfinite(c) and c >= 0)]
    if bad := [*bad, *(c for c in ends if not c >= 0)]:
        raise ConfigError(f"a cost is {bad[0]}; costs must be finite and 0 or more.")
    until = [0.0, *itertools.accumulate(costs)]

    def solve(limit: float, measure: int) -> tuple[float, list[int]]:
        """Minimize the maximum (measure 0) or the sum of squares (1) of parts up to a limit."""
        best: list[tuple[float, list[int]] | None] = [(0.0, []), *[None] * count]
        for part in range(1, num_parts + 1):
            following: list[tuple[float, list[int]] | None] = [None] * (count + 1)
            for end in range(part, count + 1):
                found = list[tuple[float, list[int]]]()
                for begin in range(part - 1, end):
                    before, cost = best[begin], until[end] - until[begin] + ends[end - 1]
                    if before is not None and cost <= limit:
                        value = before[0] + cost**2 if measure else max(before[0], cost)
                        found.append((value, [*before[1], begin]))
                following[end] = min(found, default=None)
            best = following
        found = best[count]
        assert found is not None
        return found

    costliest, _ = solve(math.inf, 0)
    if costliest == math.inf:
        raise ConfigError(f"{num_parts} parts need a cut where there can be none.")
    return solve(costliest, 1)[1][1:]
