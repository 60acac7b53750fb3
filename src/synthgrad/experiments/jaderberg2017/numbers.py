"""Numbers of Jaderberg et al. 2017 (arXiv 1608.05343), to be printed beside ours.

They are recalled, partly corroborated by public reproductions, and not checked against the paper's
text: single cells may be off by a digit, so pages call them "recalled".
"""

from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.experiments.accuracy import error

PAPER_ITERATIONS = 500_000
_ARMS = ("no-signal", "backprop", "dni", "cdni")

# Test error in percent, in the order of _ARMS.
_ERRORS: dict[str, tuple[float, float, float, float]] = {
    "mnist-fcn3": (9.3, 2.0, 1.9, 2.2),
    "mnist-fcn4": (12.6, 1.8, 2.2, 1.9),
    "mnist-fcn5": (16.2, 1.8, 3.4, 1.7),
    "mnist-fcn6": (21.4, 1.8, 4.3, 1.6),
    "mnist-cnn3": (0.9, 0.8, 0.9, 1.0),
    "mnist-cnn4": (2.8, 0.6, 0.7, 0.8),
    "cifar10-fcn3": (54.9, 43.5, 42.5, 48.5),
    "cifar10-fcn4": (57.2, 43.0, 45.0, 45.1),
    "cifar10-fcn5": (59.6, 41.7, 46.9, 43.5),
    "cifar10-fcn6": (61.9, 42.0, 49.7, 46.8),
    "cifar10-cnn3": (28.7, 17.9, 19.5, 19.0),
    "cifar10-cnn4": (38.1, 15.7, 19.5, 16.4),
}


def recalled_error(case: str, arm: str) -> float | None:
    """Return the paper's test error in percent, as it is recalled; None where it has none.

    Args:
        case: "mnist-fcn3", "cifar10-cnn4", ...
        arm: "no-signal", "backprop", "dni" or "cdni".

    Source: Jaderberg et al. 2017, Table 1 of arXiv v1 (in the supplement of the ICML version).
    """
    errors = _ERRORS.get(case)
    return errors[_ARMS.index(arm)] if errors and arm in _ARMS else None


# Longest sequence modelled, by task and arm, for T = 2, 3, 4, 5.
_LENGTHS: dict[tuple[str, str], tuple[int, int, int, int]] = {
    ("copy", "bptt"): (7, 8, 10, 8),
    ("copy", "dni"): (16, 14, 18, 18),
    ("copy", "dni-aux"): (16, 17, 19, 18),
    ("repeat-copy", "bptt"): (7, 5, 19, 23),
    ("repeat-copy", "dni"): (39, 33, 39, 59),
    ("repeat-copy", "dni-aux"): (39, 59, 67, 59),
}


def recalled_length(task: str, arm: str, horizon: int) -> int | None:
    """Return the longest sequence that the paper models, as it is recalled; None where it has none.

    Args:
        task: "copy" or "repeat-copy".
        arm: "bptt", "dni" or "dni-aux".
        horizon: T.

    Source: Jaderberg et al. 2017, Table 1. The numbers without the auxiliary task were read off an
    image of it.
    """
    lengths = _LENGTHS.get((task, arm))
    return lengths[horizon - 2] if lengths and 2 <= horizon <= 5 else None


def unlike_paper(case: str, backprop: ArmSummary) -> str:
    """Return why backprop itself is too far from the paper's for other arms to be compared.

    Args:
        case: "mnist-fcn3", "cifar10-cnn4", ...
        backprop: ours.

    Returns:
        The reason; empty where the two are close: within 1 point on MNIST, within 5 on CIFAR-10.
    """
    ours, paper = error(backprop), recalled_error(case, "backprop")
    if ours is None or paper is None:
        return f"There is no error of backprop on {case} to compare with."
    allowed = 5.0 if case.startswith("cifar10") else 1.0
    if abs(ours - paper) <= allowed:
        return ""
    return (
        f"On {case} backprop's own error, {ours:.1f} %, is more than {allowed:g} points from the "
        f"paper's {paper:.1f} % (recalled)."
    )
