"""One rule for every verdict: none is given with too few seeds, and n stands with the numbers."""

from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.experiments.accuracy import FEW_SEEDS, MIN_SEEDS


def judged(
    *, claim: str, paper: str, measured: str, num_seeds: int, verdict: Verdict, reason: str
) -> Claim:
    """Return a claim, which is "not comparable" with fewer than `MIN_SEEDS` seeds.

    Args:
        claim: what it is about.
        paper: what the paper says.
        measured: what we measured; n is added to it.
        num_seeds: seeds, or pairs of runs of one seed, that it was measured with.
        verdict: the one that enough seeds would have.
        reason: and what it rests on.

    Example:
        >>> judged(claim="a", paper="b", measured="c", num_seeds=2, verdict="reproduced",
        ...        reason="d").verdict
        'not comparable'
    """
    if num_seeds < MIN_SEEDS:
        verdict, reason = "not comparable", FEW_SEEDS
    return Claim(
        claim=claim,
        paper=paper,
        measured=f"{measured}; n = {num_seeds}",
        verdict=verdict,
        reason=reason,
    )
