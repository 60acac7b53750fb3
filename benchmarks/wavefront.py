"""How many training steps does the wavefront engine take while the best of backprop takes one?

Deep, narrow, batch-normalized MLPs on MNIST; the rival is the fastest of backprop's arms (eager and
compiled, at each number of threads). Blocks of steps interleaved, ratio round by round. A ratio is
worth its accuracy: each case also trains both sides for the same number of updates.

    python benchmarks/wavefront.py                  # writes benchmarks/records/wavefront.json
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import synthgrad as sg
from synthgrad.bench.records.machine import describe_git, describe_machine, describe_packages
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Batches, Dataset, load

ADAM = partial(torch.optim.Adam, lr=1e-3, fused=True)
SIGNALS: dict[str, sg.ErrorSignal] = {
    "cdni": sg.SyntheticGradient(condition=sg.OneHot(10)),
    "local loss": sg.LocalLoss(num_classes=10),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    signal: str
    stages: int
    layers: int
    width: int
    batch_size: int


CASES = [
    Case(signal="cdni", stages=8, layers=32, width=32, batch_size=16),
    Case(signal="cdni", stages=8, layers=32, width=64, batch_size=32),
    Case(signal="local loss", stages=32, layers=32, width=32, batch_size=16),
    Case(signal="local loss", stages=32, layers=32, width=64, batch_size=32),
    Case(signal="local loss", stages=32, layers=32, width=64, batch_size=128),
]
Step = Callable[[Tensor, Tensor], Any]


def network(case: Case, seed: int) -> nn.Sequential:
    def block(fan_in: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(fan_in, case.width), nn.BatchNorm1d(case.width), nn.ReLU())

    torch.manual_seed(derive_seed(seed, "weights"))
    blocks = [block(784), *(block(case.width) for _ in range(case.layers - 1))]
    blocks[-1].append(nn.Linear(case.width, 10))
    return nn.Sequential(*blocks)


def backprop(model: nn.Module, *, compiled: bool) -> Step:
    optimizer = ADAM(model.parameters())
    forward = torch.compile(model, dynamic=False) if compiled else model

    def step(x: Tensor, y: Tensor) -> None:
        F.cross_entropy(forward(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def wavefront(case: Case, model: nn.Sequential) -> sg.engines.Wavefront:
    chain = sg.Chain.from_sequential(
        model,
        stages=case.stages,
        signal=SIGNALS[case.signal],
        example_inputs=torch.zeros(2, 784),
    )
    return sg.engines.Wavefront(
        chain,
        loss=F.cross_entropy,
        optimizer=ADAM,
        synthesizer_optimizer=ADAM,
        compile=True,
    )


def arms(case: Case, threads: list[int]) -> dict[tuple[str, int], Step]:
    """Return the arms by name and number of threads; code is compiled for that number."""
    made = dict[tuple[str, int], Step]()
    for count in threads:
        torch.set_num_threads(count)
        x, y = torch.rand(case.batch_size, 784), torch.randint(0, 10, (case.batch_size,))
        torch.compiler.reset()
        for name, step in (
            ("backprop", backprop(network(case, 0), compiled=False)),
            ("backprop compiled", backprop(network(case, 0), compiled=True)),
            ("wavefront", wavefront(case, network(case, 0)).step),
        ):
            for _ in range(case.stages + 20):
                step(x, y)
            made[name, count] = step
    return made


def throughput(case: Case, rounds: int, threads: list[int]) -> dict[str, Any]:
    contestants = arms(case, threads)
    x, y = torch.rand(case.batch_size, 784), torch.randint(0, 10, (case.batch_size,))
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in contestants}
    order = list(contestants)
    for _ in range(rounds):
        for name, count in order:
            torch.set_num_threads(count)
            step = contestants[name, count]
            step(x, y)
            start = time.perf_counter_ns()
            for _ in range(5):
                step(x, y)
            seconds[name, count].append((time.perf_counter_ns() - start) / 5e9)
        order.reverse()
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    rival = min((k for k in medians if k[0] != "wavefront"), key=medians.__getitem__)
    ours = min((k for k in medians if k[0] == "wavefront"), key=medians.__getitem__)
    ratios = [a / b for a, b in zip(seconds[rival], seconds[ours], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "times_the_throughput": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "rival": f"{rival[0]}, {rival[1]} thread(s)",
        "wavefront_threads": ours[1],
        "over_own_baseline": {
            f"{name}, {count} thread(s)": round(value / medians[ours], 3)
            for (name, count), value in medians.items()
        },
    }


def batches(data: Dataset, case: Case, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    source = Batches(data.train, batch_size=case.batch_size, seed=derive_seed(seed, "batches"))
    for x, y in source:
        yield x.flatten(1), y


def accuracy(case: Case, data: Dataset, updates: int, seed: int) -> dict[str, float]:
    """Return the validation accuracy in percent after the same number of updates."""
    validation = [(x.flatten(1), y) for x, y in data.validation.in_order(1000)]
    plain = network(case, seed)
    step = backprop(plain, compiled=False)
    engine = wavefront(case, network(case, seed))
    for x, y in itertools.islice(batches(data, case, seed), updates):
        step(x, y)
    for x, y in itertools.islice(batches(data, case, seed), updates):
        engine.step(x, y)
    engine.flush()
    with torch.no_grad():
        plain.eval()
        hits = sum(int((plain(x).argmax(1) == y).sum()) for x, y in validation)
    return {
        "backprop": 100 * hits / len(data.validation),
        "wavefront": engine.evaluate(validation).accuracy or 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/wavefront.json"))
    options = parser.parse_args()
    machine = describe_machine()
    threads = sorted({1, torch.get_num_threads()})
    data = load("mnist")
    results = list[dict[str, Any]]()
    for case in (CASES[k] for k in options.cases):
        speed = throughput(case, options.rounds, threads)
        torch.set_num_threads(speed["wavefront_threads"])
        reached = [accuracy(case, data, options.updates, seed) for seed in options.seeds]
        results.append(asdict(case) | speed | {"updates": options.updates, "accuracy": reached})
        print(json.dumps(results[-1]), flush=True)
    record = {
        "what": "training steps a second over those of the fastest backprop arm, interleaved",
        "rounds": options.rounds,
        "results": results,
        "machine": machine,
        "packages": describe_packages(),
        "git": describe_git(Path(__file__).parent),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
