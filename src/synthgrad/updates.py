"""Which stages are updated in a step: sparse updates as one pure function that every engine shares.

Jaderberg et al. 2017 update each stage independently with a probability p. Every rank and every
engine must draw the same, so a draw depends on (seed, step) and on nothing else: no generator to
carry, none to save, none that a skipped draw could shift.
"""

import random
from collections.abc import Sequence

from synthgrad.errors import ConfigError

Probability = float | Sequence[float]


def check_probability(probability: Probability, num_stages: int) -> tuple[float, ...]:
    """Return one update probability a stage, bottom first, or say what is wrong with them.

    Raises:
        ConfigError: a probability is outside (0, 1], or their number is not `num_stages`.
    """
    given = (
        (float(probability),) * num_stages
        if isinstance(probability, (int, float))
        else tuple(float(p) for p in probability)
    )
    if len(given) != num_stages:
        raise ConfigError(
            f"update_probability has {len(given)} values and the network has {num_stages} stages "
            "(one more than interfaces): give one number, or one a stage, bottom first."
        )
    if bad := [p for p in given if not 0.0 < p <= 1.0]:
        raise ConfigError(
            f"update_probability is {bad[0]}; it must lie in (0, 1]. To keep a stage from ever "
            "training, set requires_grad_(False) on its parameters."
        )
    return given


def draw_updates(probabilities: Sequence[float], *, seed: int, step: int) -> tuple[bool, ...]:
    """Return, a stage, whether it is updated in this step.

    Args:
        probabilities: one a stage, bottom first, each in (0, 1].
        seed: the seed of the whole run's draws.
        step: the number of the step, from 0. The same (seed, step) gives the same draw on any
            rank, machine and Python version (the generator is seeded through SHA-512).
    """
    if all(p >= 1.0 for p in probabilities):
        return (True,) * len(probabilities)
    draw = random.Random(f"synthgrad updates {seed} {step}")
    return tuple(draw.random() < p for p in probabilities)
