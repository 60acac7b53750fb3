"""Summaries of arms that were never run, for the rules by which findings are judged."""

import statistics

from synthgrad.bench.scoring.arm_summary import ArmSummary

_FIELDS = ArmSummary.__dataclass_fields__


def summary(arm: str, test_accuracies, **fields) -> ArmSummary:
    """Return a finished arm with a test accuracy in percent for each seed; None is a miss."""
    known = [value for value in test_accuracies if value is not None]
    values = {
        **dict.fromkeys(_FIELDS),
        "arm": arm,
        "label": arm,
        "num_seeds": len(test_accuracies),
        "num_interrupted": 0,
        "status": "finished",
        "reason": "",
        "iterations": 100,
        "test_accuracy": statistics.median(known) if known else None,
        "seeds": tuple(range(len(test_accuracies))),
        "test_accuracy_points": tuple(test_accuracies),
        "goals": (),
        "num_rounds": 0,
        "records": (),
        "claim": (),
        **fields,
    }
    return ArmSummary(**values)
