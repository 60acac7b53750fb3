"""How much longer does a decoupled training step take than backprop's, in the same process?

Two networks, batch 256, Adam, one thread: that of the benchmark paper (784-256-256-256-10, batch
norm, ReLU) with linear synthesizers, and the CIFAR-10 CNN of Jaderberg et al. with 32 filters and
synthesizers of one convolution, or linear ones through 32 numbers. Blocks of steps are interleaved
(A B C, C B A, ...), ratio pair by pair. Beside it stands the FLOP bound: the operations of a
decoupled step over those of a backprop step, counted by torch.

    python benchmarks/step_time.py                  # writes benchmarks/records/step_time.json
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import synthgrad as sg
from synthgrad.bench.records.machine import describe_git, describe_machine, describe_packages
from synthgrad.experiments.methods import ONE_CONVOLUTION, Kind, cdni
from synthgrad.experiments.networks import cnn, fcn
from synthgrad.synthesizers import Builder

BATCH_SIZE, NUM_CLASSES = 256, 10
NETWORKS: dict[Kind, tuple[tuple[int, ...], Callable[[], nn.Sequential]]] = {
    "fcn": ((784,), lambda: fcn((784,), NUM_CLASSES, depth=4, width=256)),
    "cnn": ((3, 32, 32), lambda: cnn((3, 32, 32), NUM_CLASSES, depth=3, filters=32)),
}
SYNTHESIZERS: dict[Kind, dict[str, str | Builder]] = {
    "fcn": {"": "linear"},
    "cnn": {"": ONE_CONVOLUTION, ", low-rank": "low-rank"},
}


def arms(
    kind: Kind, network: Callable[[], nn.Sequential], x: Tensor, y: Tensor
) -> dict[str, tuple[Callable[[], Tensor], torch.optim.Optimizer]]:
    """Return, a method, its forward pass with loss, and its optimizer."""
    plain = network()
    cut = {
        f"{name}{ending}": signal
        for ending, synthesizer in SYNTHESIZERS[kind].items()
        for name, signal in (
            ("dni", sg.SyntheticGradient(synthesizer=synthesizer)),
            ("cdni", cdni(synthesizer, NUM_CLASSES)),
        )
    }
    nets = {
        name: sg.decouple(network(), "every", example_inputs=x[:2], signal=signal)
        for name, signal in cut.items()
    }
    losses: dict[str, Callable[[], Tensor]] = {
        "backprop": lambda: F.cross_entropy(plain(x), y),
        **{
            name: partial(_loss, net, x, y, y if name.startswith("cdni") else None)
            for name, net in nets.items()
        },
    }
    models = {"backprop": plain, **nets}
    return {
        name: (loss, torch.optim.Adam(models[name].parameters(), 1e-3, fused=True))
        for name, loss in losses.items()
    }


def _loss(net: sg.DecoupledModel, x: Tensor, y: Tensor, condition: Tensor | None) -> Tensor:
    return F.cross_entropy(net(x, condition=condition), y)


def measure(kind: Kind, num_pairs: int, steps_per_block: int) -> dict[str, dict[str, object]]:
    shape, network = NETWORKS[kind]
    torch.manual_seed(0)
    x, y = torch.rand(BATCH_SIZE, *shape), torch.randint(0, NUM_CLASSES, (BATCH_SIZE,))
    methods = arms(kind, network, x, y)

    def step(name: str) -> None:
        loss, optimizer = methods[name]
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    flops = dict[str, int]()
    for name in methods:
        with FlopCounterMode(display=False) as counter:
            step(name)
        flops[name] = counter.get_total_flops()
        for _ in range(5):
            step(name)
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    order = list(methods)
    for _ in range(num_pairs):
        for name in order:
            start = time.perf_counter_ns()
            for _ in range(steps_per_block):
                step(name)
            seconds[name].append((time.perf_counter_ns() - start) / 1e9 / steps_per_block)
        order.reverse()
    result = dict[str, dict[str, object]]()
    for name in [name for name in methods if name != "backprop"]:
        ratios = [a / b for a, b in zip(seconds[name], seconds["backprop"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        result[name] = {
            "time_ratio": round(statistics.median(ratios), 4),
            "quartiles": [round(low, 4), round(high, 4)],
            "ratios": [round(ratio, 3) for ratio in ratios],
            "flop_bound": round(flops[name] / flops["backprop"], 4),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=400, help="of the FCN")
    parser.add_argument("--cnn-pairs", type=int, default=60)
    parser.add_argument("--steps-per-block", type=int, default=3, help="of the FCN; the CNN has 1")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/step_time.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        "fcn": measure("fcn", options.pairs, options.steps_per_block),
        "cnn": measure("cnn", options.cnn_pairs, 1),
    }
    record = {
        "what": "seconds of a training step over backprop's, median over interleaved pairs",
        "pairs": {"fcn": options.pairs, "cnn": options.cnn_pairs},
        "steps_per_block": {"fcn": options.steps_per_block, "cnn": 1},
        "threads": 1,
        "results": results,
        "machine": describe_machine(),
        "packages": describe_packages(),
        "git": describe_git(Path(__file__).parent),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    for network, methods in results.items():
        for method, r in methods.items():
            print(
                f"{network} {method}: {r['time_ratio']} {r['quartiles']}, bound {r['flop_bound']}"
            )


if __name__ == "__main__":
    main()
