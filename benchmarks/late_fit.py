"""What should a fit whose target comes late fit: the prediction of then, or one of today?

The network of the benchmark paper (784-256-256-256-10, batch norm, ReLU) on MNIST with an interface
after each layer, trained by the reference engine with each target delay and both ways to fit late.
Accuracy at equal updates; nothing is timed.

    python benchmarks/late_fit.py                  # writes benchmarks/records/late_fit.json
"""

import argparse
import json
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.optim import Adam

import synthgrad as sg
from synthgrad.bench.records.machine import describe_git, describe_machine, describe_packages
from synthgrad.bench.running.evaluation import evaluate
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Batches, Dataset, load
from synthgrad.experiments.networks import fcn

BATCH_SIZE = 256


def train(
    data: Dataset, delay: int, late_fit: str, seed: int, looks: tuple[int, ...]
) -> list[float]:
    """Return validation accuracy in percent after so many updates."""
    torch.manual_seed(derive_seed(seed, "weights"))
    network = fcn(data.input_shape, data.num_classes, depth=4, width=256)
    chain = sg.Chain.from_sequential(
        network,
        stages=len(network),
        signal=sg.SyntheticGradient(condition=sg.OneHot(data.num_classes)),
        example_inputs=data.train.take(torch.arange(2))[0],
    )
    engine = sg.engines.Sequential(
        chain,
        loss=F.cross_entropy,
        optimizer=partial(Adam, lr=1e-3),
        synthesizer_optimizer=partial(Adam, lr=1e-3),
        target_delays=delay,
        late_fit=late_fit,
    )
    seed = derive_seed(seed, "batches")
    found = list[float]()
    batches = Batches(data.train, batch_size=BATCH_SIZE, seed=seed)
    for number, (inputs, labels) in enumerate(islice(batches, looks[-1]), 1):
        engine.step(inputs, labels)
        if number in looks:
            found.append(evaluate(network, data.validation).accuracy)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--looks", type=int, nargs="+", default=[200, 400, 800])
    parser.add_argument("--delays", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/late_fit.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load("mnist")
    results = [
        {
            "delay": delay,
            "late_fit": late_fit if delay else None,
            "seed": seed,
            "val_accuracy": train(data, delay, late_fit, seed, tuple(args.looks)),
        }
        for seed in args.seeds
        for delay in (0, *args.delays)
        for late_fit in (("again", "stored") if delay else ("again",))
    ]
    record = {
        "benchmark": "late_fit",
        "git": describe_git(Path(__file__).parent),
        "machine": describe_machine(),
        "packages": describe_packages(),
        "batch_size": BATCH_SIZE,
        "updates": args.looks,
        "results": results,
    }
    args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
