"""A complete, plausible record folder made of closed formulas, for tests of scoring and reporting.

It is written as plain JSON and not with `RecordWriter`, so that it also pins the format on disk.
`make_record` makes a single run in memory. By default the folder holds an experiment with a case of
everything that a report has to survive:

| arm | what happens |
| --- | --- |
| backprop | all seeds finish, 97 % and 98 % reached |
| backprop-compiled | unavailable: no C++ compiler |
| no-signal | all seeds finish, no goal is ever reached |
| dni-linear | seed 1 fails with a NaN loss, the others reach 97 % and miss 98 % |
| cdni-linear | all seeds finish, both goals reached |
| cdni-mirror-p0.2 | the last seed is interrupted halfway, the others reach 97 % |
"""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from synthgrad.bench.records.record import RunRecord

BATCH_SIZE = 256
NUM_STAGES = 4
INTERFACES = ("layer1", "layer2", "layer3")
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class FakeArm:
    """How one arm behaves: accuracy tends to `limit` percent at `pace` times backprop's rate."""

    arm: str
    label: str
    signal: str | None
    limit: float
    pace: float
    milliseconds: float
    updates_per_iteration: float
    synthesizer_parameters: int = 0
    flops_per_iteration: int = 412_000_000
    unavailable: str | None = None


ARMS = (
    FakeArm(
        arm="backprop",
        label="backprop",
        signal=None,
        limit=98.6,
        pace=1.0,
        milliseconds=5.0,
        updates_per_iteration=4,
    ),
    FakeArm(
        arm="backprop-compiled",
        label="backprop (compiled)",
        signal=None,
        limit=98.6,
        pace=1.0,
        milliseconds=4.0,
        updates_per_iteration=4,
        unavailable="no C++ compiler",
    ),
    FakeArm(
        arm="no-signal",
        label="no signal",
        signal="none",
        limit=91.0,
        pace=1.5,
        milliseconds=2.5,
        updates_per_iteration=1,
        flops_per_iteration=180_000_000,
    ),
    FakeArm(
        arm="dni-linear",
        label="DNI (linear)",
        signal="synthetic",
        limit=97.6,
        pace=0.8,
        milliseconds=7.5,
        updates_per_iteration=4,
        synthesizer_parameters=197_376,
        flops_per_iteration=610_000_000,
    ),
    FakeArm(
        arm="cdni-linear",
        label="cDNI (linear)",
        signal="synthetic",
        limit=98.7,
        pace=0.9,
        milliseconds=8.0,
        updates_per_iteration=4,
        synthesizer_parameters=205_056,
        flops_per_iteration=620_000_000,
    ),
    FakeArm(
        arm="cdni-mirror-p0.2",
        label="cDNI (mirror), p = 0.2",
        signal="synthetic",
        limit=97.9,
        pace=0.65,
        milliseconds=4.2,
        updates_per_iteration=0.8,
        synthesizer_parameters=404_000,
        flops_per_iteration=300_000_000,
    ),
)


def write_fake_records(
    out: Path,
    *,
    arms: tuple[FakeArm, ...] = ARMS,
    num_seeds: int = 3,
    iterations: int = 600,
    num_snapshots: int = 12,
    num_rounds: int = 20,
    experiment: str = "bisong2017",
) -> Path:
    """Fill `out` as `synthgrad run` would, and return it.

    Args:
        out: the folder to fill; made where it is missing.
        arms: the arms and their behavior. The failing and the interrupted run are tied to the names
            "dni-linear" and "cdni-mirror-p0.2".
        num_seeds: seeds 0, 1, ... of each arm.
        iterations: length of each run.
        num_snapshots: snapshots after the one at iteration 0.
        num_rounds: rounds of the interleaved timing; 0 leaves the throughput record out.
        experiment: the experiment's name.
    """
    started = START
    for seed in range(num_seeds):
        for arm in arms:
            config = _config(arm, iterations=iterations)
            run = _run_json(
                experiment=experiment,
                kind="run",
                arm=arm,
                seed=seed,
                config=config,
                started=started,
            )
            events = _run_events(arm, seed, num_seeds, iterations, num_snapshots)
            _write(out / "runs" / f"{arm.arm}-s{seed}", run, events, started)
            started += timedelta(minutes=1)
    if num_rounds:
        write_fake_throughput(out, arms=arms, num_rounds=num_rounds, experiment=experiment)
    return out


def write_fake_throughput(
    out: Path,
    *,
    arms: tuple[FakeArm, ...] = ARMS,
    num_rounds: int = 20,
    experiment: str = "bisong2017",
) -> Path:
    """Write only the interleaved timing; every fifth round is on a machine at half its speed."""
    started = START + timedelta(hours=6)
    timed = [arm for arm in arms if arm.unavailable is None]
    run = _run_json(
        experiment=experiment,
        kind="throughput",
        arm=None,
        seed=0,
        config={"arms": [arm.arm for arm in timed], "rounds": num_rounds, "batch_size": BATCH_SIZE},
        started=started,
    )
    events: list[dict[str, Any]] = []
    num_iterations = 10
    for round_index in range(num_rounds):
        slowdown = 2.0 if round_index % 5 == 4 else 1.0
        order = timed if round_index % 2 == 0 else timed[::-1]
        for position, arm in enumerate(order):
            jitter = 1 + 0.02 * math.sin(7.0 * round_index + position)
            events.append(
                {
                    "event": "block",
                    "round": round_index,
                    "arm": arm.arm,
                    "iterations": num_iterations,
                    "seconds": round(
                        num_iterations * arm.milliseconds / 1000 * slowdown * jitter, 9
                    ),
                    "examples": num_iterations * BATCH_SIZE,
                    "stage_updates": round(num_iterations * arm.updates_per_iteration),
                    "threads": 1,
                }
            )
    events.append({"event": "finished", "iteration": num_rounds, "seconds": 60.0})
    _write(out / "throughput", run, events, started)
    return out


def make_record(
    *accuracies: float | None,
    arm: str = "backprop",
    seed: int = 0,
    ending: str = "finished",
    seconds_per_snapshot: float = 1.0,
    config: dict[str, Any] | None = None,
) -> RunRecord:
    """Return a run in memory: snapshots 10 iterations apart, from 0, with these accuracies."""
    snapshots = [
        {
            "event": "snapshot",
            "iteration": 10 * index,
            "seconds": seconds_per_snapshot * index,
            "examples": 100 * index,
            "stage_updates": 40 * index,
            "val_accuracy": accuracy,
        }
        for index, accuracy in enumerate(accuracies)
    ]
    last = {key: value for key, value in snapshots[-1].items() if key != "event"}
    run = {
        "schema": "1.0",
        "protocol": "1.0",
        "kind": "run",
        "experiment": "demo",
        "arm": arm,
        "seed": seed,
        "config": config or {},
        "started": (START + timedelta(minutes=seed)).isoformat(),
    }
    closing = {**last, "event": ending, "test_accuracy": accuracies[-1], "reason": "loss is NaN"}
    events = (*snapshots, closing)
    name = f"runs/{arm}-s{seed}"
    return RunRecord(folder=Path(name), name=name, run=run, events=events)


def _config(arm: FakeArm, *, iterations: int) -> dict[str, Any]:
    return {
        "dataset": "mnist",
        "depth": NUM_STAGES,
        "width": 256,
        "batch_size": BATCH_SIZE,
        "learning_rate": 1e-3,
        "iterations": iterations,
        "threads": 1,
        "device": "cpu",
        "signal": arm.signal,
    }


def _run_json(
    *,
    experiment: str,
    kind: str,
    arm: FakeArm | None,
    seed: int,
    config: dict[str, Any],
    started: datetime,
) -> dict[str, Any]:
    return {
        "schema": "1.0",
        "protocol": "1.0",
        "kind": kind,
        "experiment": experiment,
        "arm": arm.arm if arm else "throughput",
        "label": arm.label if arm else "throughput",
        "seed": seed,
        "preset": "quick",
        "config": config,
        "arm_options": ["learning_rate", "signal"],
        "argv": ["synthgrad", "run", experiment, "--preset", "quick"],
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "machine": {
            "cpu": "Example CPU @ 2.00GHz",
            "num_cores": 2,
            "memory_bytes": 8 * 2**30,
            "load_average": [0.5, 0.4, 0.3],
            "os": "Linux 6.1 x86_64",
            "torch_threads": 1,
            "gpu": None,
        },
        "packages": {"python": "3.11.2", "synthgrad": "0.1.0", "torch": "2.13.0"},
        "started": started.isoformat(),
    }


def _run_events(
    arm: FakeArm, seed: int, num_seeds: int, iterations: int, num_snapshots: int
) -> list[dict[str, Any]]:
    if arm.unavailable is not None:
        return [{"event": "unavailable", "reason": arm.unavailable}]
    fails = arm.arm == "dni-linear" and seed == 1
    stops = arm.arm == "cdni-mirror-p0.2" and seed == num_seeds - 1
    events: list[dict[str, Any]] = [
        {
            "event": "facts",
            "flops_per_iteration": arm.flops_per_iteration,
            "synthesizer_parameters": arm.synthesizer_parameters,
            "stage_parameters": 335_114,
            "num_stages": NUM_STAGES,
            "memory_bytes": 6_000_000 + 12 * arm.synthesizer_parameters,
        },
        {"event": "warmup", "cold_seconds": 0.4},
    ]
    for index in range(num_snapshots + 1):
        iteration = round(iterations * index / num_snapshots)
        if fails and index > num_snapshots / 3:
            return [
                *events,
                {
                    "event": "failed",
                    "reason": f"loss is NaN at iteration {iteration - 3}",
                    "iteration": iteration - 3,
                },
            ]
        if stops and index > num_snapshots / 2:
            return [*events, {"event": "interrupted", "iteration": iteration - 3}]
        events.append({"event": "snapshot", **_measured(arm, seed, iteration, iterations)})
        if arm.synthesizer_parameters:
            events.append(_alignment(iteration, iterations))
    totals = _totals(arm, seed, iterations)
    accuracy = _accuracy(arm, seed, 1.0)
    return [
        *events,
        {
            "event": "finished",
            **totals,
            "test_accuracy": round(accuracy - 0.1, 4),
            "test_loss": round(_loss(accuracy), 6),
        },
    ]


def _totals(arm: FakeArm, seed: int, iteration: int) -> dict[str, Any]:
    return {
        "iteration": iteration,
        "seconds": round(iteration * arm.milliseconds / 1000 * (1 + 0.01 * seed), 6),
        "examples": iteration * BATCH_SIZE,
        "stage_updates": round(iteration * arm.updates_per_iteration),
    }


def _measured(arm: FakeArm, seed: int, iteration: int, iterations: int) -> dict[str, Any]:
    accuracy = _accuracy(arm, seed, iteration / iterations)
    return {
        **_totals(arm, seed, iteration),
        "train_loss": round(_loss(accuracy + 0.3), 6),
        "train_accuracy": round(min(accuracy + 0.3, 100.0), 4),
        "val_loss": round(_loss(accuracy), 6),
        "val_accuracy": round(accuracy, 4),
    }


def _accuracy(arm: FakeArm, seed: int, progress: float) -> float:
    """Percent after a share `progress` of the iterations: from 10 % toward the arm's limit."""
    remaining = math.exp(-8 * arm.pace * progress)
    return arm.limit - (arm.limit - 10) * remaining + 0.05 * (seed - 1) * progress


def _loss(accuracy: float) -> float:
    return 2.4 * (100.0 - accuracy) / 90 + 0.01


def _alignment(iteration: int, iterations: int) -> dict[str, Any]:
    progress = iteration / iterations
    return {
        "event": "alignment",
        "iteration": iteration,
        "interfaces": {
            name: {
                "cosine": round(0.8 * (1 - math.exp(-6 * progress)) / (1 + 0.2 * depth), 4),
                "relative_error": round(1 - 0.4 * (1 - math.exp(-6 * progress)), 4),
                "norm_ratio": round(0.7 * (1 - math.exp(-6 * progress)), 4),
            }
            for depth, name in enumerate(INTERFACES)
        },
    }


def _write(
    folder: Path, run: dict[str, Any], events: list[dict[str, Any]], started: datetime
) -> None:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    lines = [
        json.dumps({**event, "time": (started + timedelta(seconds=index)).isoformat()}) + "\n"
        for index, event in enumerate(events)
    ]
    (folder / "events.jsonl").write_text("".join(lines), encoding="utf-8")
