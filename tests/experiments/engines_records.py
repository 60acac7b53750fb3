"""Records of the experiment `engines`, made in memory of a few numbers."""

from pathlib import Path

from synthgrad.bench.records.events import RunRecord

FACTS = {
    "stages": 1,
    "threads": 1,
    "tried": {"1": 0.0},
    "execution": "eager",
    "carry_bytes": 0,
    "flops": 1000,
    "launches": 10,
    "path": 4,
    "saved_bytes": 0,
    "trained_bytes": 0,
    "moved_bytes": 1000,
    "working_set": 1000,
}
PEAKS = {
    "event": "peaks",
    "flops": 1e9,
    "copies": {"1000": 1e9, "100000": 1e8},
    "launches": 1e6,
    "graph_launches": None,
    "product_seconds": 1e-7,
}


def study(arm, events, *, case="", seed=0, clocked=True, **config):
    """A record of one task that finished."""
    run = {
        "kind": "study",
        "experiment": "engines",
        "preset": "full",
        "arm": arm,
        "label": arm,
        "seed": seed,
        "clocked": clocked,
        "config": {"case": case, "device": "cpu", **config},
        "started": "2026-01-02T03:04:05Z",
    }
    name = f"runs/{arm}-{case}-{config.get('cut')}-s{seed}"
    return RunRecord(Path(name), name, run, (*events, {"event": "finished"}))


def machine():
    return study("machine", [PEAKS])


def timed(case, layers, width, batch_size, arms, *, network="even", **options):
    """A timed case; `arms` is by (engine, form, cut) the seconds by round, and facts."""
    events = []
    for (engine, form, cut), (seconds, facts) in arms.items():
        name = "-".join(filter(None, (engine, cut, form)))
        known = {"arm": name, "label": name, "engine": engine, "form": form, "cut": cut}
        events += [
            {"event": "arm", **FACTS, **known, **facts},
            {"event": "seconds", "arm": name, "by_round": seconds},
        ]
    sizes = {"layers": layers, "width": width, "batch_size": batch_size, "network": network}
    return study("throughput", events, case=case, **sizes, **options)


def trained(case, cut, accuracies, *, to_goal=500):
    """A training run for each accuracy, one a seed; all reach 97 % after `to_goal` updates."""
    return [
        study(
            "backprop" if cut is None else f"wavefront-{cut.partition('-')[0]}",
            [
                snapshot(to_goal, 97.5),
                snapshot(1000, accuracy),
                {"event": "tested", "test_accuracy": accuracy, "test_loss": 0.1},
            ],
            case=case,
            seed=seed,
            cut=cut,
        )
        for seed, accuracy in enumerate(accuracies)
    ]


def snapshot(iteration, accuracy):
    return {
        "event": "snapshot",
        "iteration": iteration,
        "seconds": 1.0,
        "examples": iteration,
        "stage_updates": iteration,
        "val_loss": 0.1,
        "val_accuracy": accuracy,
    }
