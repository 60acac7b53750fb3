"""Where the stages of a row of children begin: as asked, or as the clock says."""

import itertools
from collections.abc import Sequence

from synthgrad.errors import ConfigError


def bounds_of_stages(count: int, *, stages: int | None, cuts: Sequence[int] | None) -> list[int]:
    """Return where each stage begins among `count` children, and the end.

    Args:
        count: of the children.
        stages: how many there are, as equal in number of children as can be; None: `count`.
        cuts: instead, the indices of the children at which a new stage begins.

    Raises:
        ConfigError: the number of stages or a cut does not fit the number of children.
    """
    if stages is not None and cuts is not None:
        raise ConfigError("give `stages` (a number) or `cuts` (places), not both.")
    if cuts is None:
        number = count if stages is None else stages
        if not 1 <= number <= count:
            raise ConfigError(f"{count} children cannot make stages={number} stages.")
        cuts = [count * k // number for k in range(1, number)]
    bounds = [0, *cuts, count]
    if any(a >= b for a, b in itertools.pairwise(bounds)):
        raise ConfigError(
            f"cuts={list(cuts)} must rise strictly and lie between 1 and {count - 1}, the "
            "indices of the children at which a stage can begin."
        )
    return bounds
