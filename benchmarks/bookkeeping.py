"""What share of a training step does the benchmark's own bookkeeping take, evaluation aside?

Blocks of a bare loop (batch, forward, backward, optimizer) against blocks of everything that a
measured run does between two snapshots: the clock, the timed loop, the check of the losses, the
learning rate, one event written to disk, the progress. The same network and batches on both sides,
interleaved (A B, B A, ...), ratio pair by pair.

    python benchmarks/bookkeeping.py                # writes benchmarks/records/bookkeeping.json
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console

from synthgrad.bench.clock import Stopwatch
from synthgrad.bench.records.events import Block
from synthgrad.bench.records.machine import describe_git, describe_machine, describe_packages
from synthgrad.bench.records.record import RecordWriter
from synthgrad.bench.running.learner import Learner
from synthgrad.bench.running.progress import RunProgress
from synthgrad.bench.running.training import advance, first_bad_loss
from synthgrad.bench.scoring.scores import paired_ratio
from synthgrad.data import Batches, Dataset, load
from synthgrad.experiments.bisong2017 import Bisong2017Config, make_arm

CONFIG = Bisong2017Config()
LIMIT = 1.03


def batches(data: Dataset) -> Batches:
    return Batches(data.train, batch_size=CONFIG.batch_size, seed=0)


def bare(learner: Learner, data: Dataset) -> Callable[[int], None]:
    """Return the loop that a user would write."""
    stream, net, optimizer = batches(data), learner.net, learner.optimizer
    decoupled = learner.decoupled is not None

    def loop(num_iterations: int) -> None:
        for _ in range(num_iterations):
            inputs, labels = next(stream)
            outputs = net(inputs, condition=labels) if decoupled else net(inputs)
            F.cross_entropy(outputs, labels).backward()
            optimizer.step()
            optimizer.zero_grad()

    return loop


def measured(
    learner: Learner, data: Dataset, writer: RecordWriter, progress: RunProgress
) -> Callable[[int], None]:
    """Return what a measured run does from one snapshot to the next."""
    stream, watch = batches(data), Stopwatch()

    def loop(num_iterations: int) -> None:
        learner.scale_learning_rates(1.0)
        watch.start()
        losses, num_updates = advance(learner, stream, num_iterations)
        watch.pause()
        if first_bad_loss(losses):
            raise AssertionError("the loss is not finite")
        writer.event(
            "snapshot",
            iteration=num_iterations,
            seconds=watch.seconds,
            examples=num_iterations * CONFIG.batch_size,
            stage_updates=num_updates,
        )
        progress.advance(num_iterations)

    return loop


def measure(name: str, data: Dataset, num_pairs: int, block: int, out: Path) -> dict[str, object]:
    """Return the ratio of a measured to a bare block, with its interval."""
    arm = make_arm(name, CONFIG)
    run = {"kind": "run", "experiment": "bookkeeping", "arm": name, "seed": 0, "config": {}}
    with (
        RecordWriter(out / name, run) as writer,
        RunProgress(num_pairs * block, Console(stderr=True)) as progress,
    ):
        loops = {
            "bare": bare(arm.build(0, data), data),
            "measured": measured(arm.build(0, data), data, writer, progress),
        }
        for loop in loops.values():
            loop(block)
        blocks: list[Block] = []
        for pair in range(num_pairs):
            for side in loops if pair % 2 == 0 else reversed(loops):
                watch = Stopwatch()
                watch.start()
                loops[side](block)
                watch.pause()
                blocks.append(
                    Block(
                        round=pair,
                        arm=side,
                        iterations=block,
                        seconds=watch.seconds,
                        examples=block * CONFIG.batch_size,
                        stage_updates=0,
                        threads=1,
                    )
                )
    ratio = paired_ratio(blocks, "measured", "bare")
    return {"ratio": ratio.ratio, "interval": [ratio.low, ratio.high], "limit": LIMIT}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--block", type=int, default=20, help="iterations between two snapshots")
    default = Path(__file__).parent / "records" / "bookkeeping.json"
    parser.add_argument("--out", type=Path, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load("mnist")
    with tempfile.TemporaryDirectory() as folder:
        ratios = {
            name: measure(name, data, options.pairs, options.block, Path(folder))
            for name in ("backprop", "cdni-linear")
        }
    record = {
        "what": "time of a measured block over a bare one, evaluation aside",
        "pairs": options.pairs,
        "iterations_a_block": options.block,
        "threads": 1,
        "arms": ratios,
        "machine": describe_machine(),
        "packages": describe_packages(),
        "git": describe_git(Path(__file__).parent),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(ratios, indent=2))


if __name__ == "__main__":
    main()
