"""The wavefront engine against backprop on one GPU: eager, compiled, and as a CUDA graph.

Blocks of steps interleaved, one synchronization a block; the ratio is a median round by round.
Throughput alone: what a net of this depth learns is another question.

    python benchmarks/wavefront_cuda.py                  # prints a line of JSON a case
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import synthgrad as sg

ADAM = partial(torch.optim.Adam, lr=1e-3)
CDNI = sg.SyntheticGradient(condition=sg.OneHot(10))
LOCAL = sg.LocalLoss(num_classes=10)
# name: layers, units, batch, stages, signal
CASES: dict[str, tuple[int, int, int, int, sg.ErrorSignal]] = {
    "4 x 256, batch 256, 4 stages, cdni": (4, 256, 256, 4, CDNI),
    "32 x 256, batch 256, 8 stages, cdni": (32, 256, 256, 8, CDNI),
    "32 x 256, batch 256, 32 stages, local loss": (32, 256, 256, 32, LOCAL),
    "8 x 256, batch 256, 8 stages, local loss": (8, 256, 256, 8, LOCAL),
}
Step = Callable[[Tensor, Tensor], Any]


def network(layers: int, width: int) -> nn.Sequential:
    def block(fan_in: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(fan_in, width), nn.BatchNorm1d(width), nn.ReLU())

    torch.manual_seed(0)
    blocks = [block(784), *(block(width) for _ in range(layers - 1))]
    blocks[-1].append(nn.Linear(width, 10))
    return nn.Sequential(*blocks).cuda()


def backprop(model: nn.Module, *, compiled: bool = False) -> Step:
    optimizer = ADAM(model.parameters(), fused=True)
    forward = torch.compile(model, dynamic=False) if compiled else model

    def step(x: Tensor, y: Tensor) -> None:
        F.cross_entropy(forward(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def recorded_backprop(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    optimizer = ADAM(model.parameters(), capturable=True, fused=True)
    inputs, labels = x.clone(), y.clone()

    def once() -> Tensor:
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            optimizer.zero_grad()
            once()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad()
    with torch.cuda.graph(graph):
        once()

    def step(x: Tensor, y: Tensor) -> None:
        inputs.copy_(x)
        labels.copy_(y)
        graph.replay()

    return step


def wavefront(case: tuple[Any, ...], **options: Any) -> sg.engines.Wavefront:
    layers, width, _, stages, signal = case
    chain = sg.Chain.from_sequential(
        network(layers, width),
        stages=stages,
        signal=signal,
        example_inputs=torch.zeros(2, 784, device="cuda"),
    )
    return sg.engines.Wavefront(
        chain, loss=F.cross_entropy, optimizer=ADAM, synthesizer_optimizer=ADAM, **options
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))))
    options = parser.parse_args()
    for name in [list(CASES)[k] for k in options.cases]:
        case = layers, width, batch, stages, _ = CASES[name]
        x = torch.rand(batch, 784, device="cuda")
        y = torch.randint(0, 10, (batch,), device="cuda")
        variants: dict[str, dict[str, bool]] = {
            "wavefront": {},
            "wavefront cuda-graph": {"cuda_graph": True},
            "wavefront cuda-graph, side streams": {"cuda_graph": True, "side_streams": True},
        }
        arms: dict[str, Step] = {
            "backprop": backprop(network(layers, width)),
            "backprop cuda-graph": recorded_backprop(network(layers, width), x, y),
        }
        if options.compile:
            arms["backprop compiled"] = backprop(network(layers, width), compiled=True)
            variants["wavefront compiled"] = {"compile": True}
            variants["wavefront compiled cuda-graph"] = {"compile": True, "cuda_graph": True}
        executions = dict[str, str]()
        for variant, given in variants.items():
            engine = wavefront(case, **given)
            executions[variant] = engine.execution
            arms[variant] = engine.step
        for step in arms.values():
            for _ in range(stages + 10):
                step(x, y)
        seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        for _ in range(options.rounds):
            for arm, step in arms.items():
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(options.steps):
                    step(x, y)
                torch.cuda.synchronize()
                seconds[arm].append((time.perf_counter() - start) / options.steps)
        medians = {arm: statistics.median(times) for arm, times in seconds.items()}
        ratios = {
            f"{arm} over {rival}": round(medians[rival] / medians[arm], 2)
            for arm in variants
            for rival in ("backprop", "backprop cuda-graph")
        }
        microseconds = {arm: round(1e6 * value, 1) for arm, value in medians.items()}
        print(
            json.dumps({"case": name, "microseconds": microseconds, "ran": executions} | ratios),
            flush=True,
        )


if __name__ == "__main__":
    main()
