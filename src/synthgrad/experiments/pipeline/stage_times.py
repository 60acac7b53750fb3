"""What a stage and a link cost, as the simulator of `synthgrad plan` wants to know it.

All ranks measure their own stage at the same time, because on one machine they share its memory.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from synthgrad.engines.pipeline import Transport
from synthgrad.experiments.pipeline.lanes import OwnLanes
from synthgrad.experiments.pipeline.workload import LOSS, Workload
from synthgrad.interface import Crossing, Interface
from synthgrad.stage import Chain

SCHEMA = 1
_MICRO = 4
_LANES = 1_000  # no method has so high a number


def measure_line(workload: Workload, repeats: int, transport: Transport) -> dict[str, Any] | None:
    """Measure this rank's stage, and the link between the first two; called on every rank.

    Args:
        workload: what is cut into stages.
        repeats: of each measurement, whose median counts; with 0 nothing is measured.
        transport: to the other ranks; lanes of its own are used.
    """
    if not repeats:
        return None
    rank, num_ranks = transport.rank, transport.num_ranks
    chain = workload.chain(num_ranks)
    x, y = next(workload.batches())
    h = x
    with torch.no_grad():
        for stage in [*chain][:rank]:
            h = stage(h)
    dist.barrier()
    found = _stage(workload, chain, rank, h.detach(), y, repeats)
    dist.barrier()
    size = torch.tensor([max(found["activation_bytes"], 8)], dtype=torch.int64)
    dist.broadcast(size, 0)
    link = _link(OwnLanes(transport, _LANES), int(size), repeats)
    dist.barrier()
    return {"stage": found, "link": link}


def merge_line(ranks: Sequence[Mapping[str, Any]], workload: Workload, source: str) -> Any:
    """Return the "measurements" event from what the ranks measured."""
    return {
        "event": "measurements",
        "schema": SCHEMA,
        "source": source,
        "batch_size": workload.batch_size,
        "stages": [rank["stage"] for rank in ranks],
        "link": ranks[0]["link"],
    }


def _stage(
    workload: Workload, chain: Chain, rank: int, h: Tensor, y: Tensor, repeats: int
) -> dict[str, float]:
    stage = [*chain][rank]
    module, interface = stage.module, stage.interface
    parameters = list(module.parameters())
    optimizer = workload.make_optimizer(parameters)
    is_last = interface is None

    def output(of: Tensor, labels: Tensor) -> Tensor:
        return LOSS(module(of), labels) if is_last else module(of)

    def median(prepare: Callable[[], Any], do: Callable[[Any], object]) -> float:
        times = list[float]()
        for _ in range(repeats):
            given = prepare()
            start = time.perf_counter()
            do(given)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    share = max(1, len(h) // _MICRO)
    whole = median(lambda: None, lambda _: output(h, y))
    part = median(lambda: None, lambda _: output(h[:share], y[:share]))

    def go_back(made: tuple[Tensor, Tensor]) -> object:
        entry, reached = made
        return torch.autograd.grad(reached, entry, torch.ones_like(reached))

    entry = _entry(module, h, lowest=rank == 0)

    def to_entry() -> tuple[Tensor, Tensor]:
        assert entry is not None
        start = entry[0].detach().requires_grad_()
        reached = entry[1](start)
        return start, (LOSS(reached, y) if is_last else reached)

    to_input = 0.0 if entry is None else median(to_entry, go_back)

    def graph() -> Tensor:
        return output(h.clone().requires_grad_() if rank else h, y)

    def to_all(made: Tensor) -> None:
        made.backward(torch.ones_like(made))

    total = median(graph, to_all)
    update = median(lambda: to_all(graph()), lambda _: (optimizer.step(), optimizer.zero_grad()))
    with torch.no_grad():
        up = module(h)
    predict, fit = _synthesizer(workload, chain, interface, up, y, median)
    size = 0 if is_last else up.numel() * up.element_size()
    return {
        "forward_s": whole,
        "backward_input_s": min(to_input, total),
        "backward_weight_s": max(total - to_input, 0.0),
        "update_s": update,
        "predict_s": predict,
        "fit_s": fit,
        "overhead_s": max(0.0, (part * len(h) / share - whole) / (len(h) / share - 1)),
        "activation_bytes": size,
        "parameter_bytes": sum(p.numel() * p.element_size() for p in parameters),
    }


def _entry(
    module: nn.Module, h: Tensor, *, lowest: bool
) -> tuple[Tensor, Callable[[Tensor], Tensor]] | None:
    """Return where the gradients of activations end, and the way up from there.

    That is the stage's input, or, in the lowest stage, what its first layer hands up; None where
    that has one layer.
    """
    if not lowest:
        return h, module
    if not isinstance(module, nn.Sequential) or len(module) < 2:
        return None
    with torch.no_grad():
        return module[0](h), module[1:]


def _synthesizer(
    workload: Workload,
    chain: Chain,
    interface: Any,
    up: Tensor,
    y: Tensor,
    median: Callable[[Callable[[], Any], Callable[[Any], object]], float],
) -> tuple[float, float]:
    if not isinstance(interface, Interface):
        return 0.0, 0.0
    module = interface.synthesizers[0]
    optimizer = workload.make_optimizer(list(module.parameters()))
    chain.step.condition = y

    def predict(*, fits: bool) -> tuple[Crossing, Tensor]:
        crossing = Crossing(interface, 0, up, fits=fits)
        return crossing, crossing.predict(module, up)

    def emit(_: Any) -> None:
        crossing, prediction = predict(fits=False)
        crossing.emit(prediction, None)

    def fit(_: Any) -> None:
        # As a late fit does it: predicted again, with a graph.
        crossing, prediction = predict(fits=True)
        prediction.backward(crossing.fit(prediction.detach(), up))
        optimizer.step()
        optimizer.zero_grad()

    def forget() -> None:
        chain.step.codes.clear()

    found = median(forget, emit), median(forget, fit)
    chain.step.clear()
    return found


def _link(transport: Transport, size: int, repeats: int) -> dict[str, float | None]:
    """Return what a message takes between the first two ranks, from echoes of two sizes."""
    if transport.num_ranks < 2:
        return {"latency_s": 0.0, "bandwidth_bytes_per_s": None, "message_s": 0.0}
    small, _ = _echo(transport, 8, repeats)
    large, busy = _echo(transport, size, repeats)
    more = large - small
    return {
        "latency_s": small / 2,
        "bandwidth_bytes_per_s": 2 * (size - 8) / more if more > 0 and size > 8 else None,
        # Of the processor's seconds an echo is one message sent and one received.
        "message_s": busy / 2,
    }


def _echo(transport: Transport, size: int, repeats: int) -> tuple[float, float]:
    if transport.rank > 1:
        return 0.0, 0.0
    times, busy = list[float](), list[float]()
    message = torch.zeros(size, dtype=torch.uint8)
    other = 1 - transport.rank
    for _ in range(repeats):
        start, processor = time.perf_counter(), time.process_time()
        for first in (True, False):
            if first == (transport.rank == 0):
                transport.send(message, other, 0).wait(60.0)
            else:
                transport.receive(message, other, 0).wait(60.0)
        times.append(time.perf_counter() - start)
        busy.append(time.process_time() - processor)
    return statistics.median(times), statistics.median(busy)


def measured(
    blocks: Sequence[Mapping[str, Any]], known: Mapping[str, Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield a "measured" event for each arm that the simulator knows.

    Args:
        blocks: the "block" events.
        known: by arm, what the event says beside its throughput.
    """
    for arm, described in known.items():
        rates = [b["iterations"] / b["seconds"] for b in blocks if b["arm"] == arm]
        if rates:
            yield {
                "event": "measured",
                **described,
                "batches_per_second": statistics.median(rates),
            }
