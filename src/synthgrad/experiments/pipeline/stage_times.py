"""What a stage and a link cost, as the simulator of `synthgrad plan` wants to know it.

All ranks measure their own stage at the same time, because on one machine they share its memory.
"""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist

from synthgrad.engines.pipeline import Transport
from synthgrad.experiments.pipeline.lanes import OwnLanes
from synthgrad.experiments.pipeline.workload import LOSS, Workload
from synthgrad.planning.meter import StageMeter

SCHEMA = 1
_LANES = 1_000  # no method has so high a number


class LineMeter:
    """Measures this rank's stage, and the link between the first two; every rank has one.

    Goes are spread over the whole launch, so that what slows the machine down for a while slows
    them down as it does the methods.

    Args:
        workload: what is cut into stages.
        transport: to the other ranks; lanes of its own are used.
    """

    def __init__(self, workload: Workload, transport: Transport) -> None:
        self._rank = transport.rank
        self._lanes = OwnLanes(transport, _LANES)
        stages = [*workload.chain(transport.num_ranks)]
        h, y = next(workload.batches())
        with torch.no_grad():
            for stage in stages[: self._rank]:
                h = stage(h)
        self._meter = StageMeter(
            stages[self._rank],
            h.detach(),
            y,
            first=self._rank == 0,
            loss=LOSS,
            optimizer=workload.make_optimizer,
        )

    def go(self, number: int) -> None:
        """Take the times of the stage so many times, all ranks at once."""
        dist.barrier()
        for _ in range(number):
            self._meter.go()
        dist.barrier()

    def found(self, repeats: int) -> dict[str, Any]:
        """Return the medians, and the link, from so many echoes."""
        stage = asdict(self._meter.times())
        size = torch.tensor([max(stage["activation_bytes"], 8)], dtype=torch.int64)
        dist.broadcast(size, 0)
        link = _link(self._lanes, int(size), repeats)
        dist.barrier()
        return {"stage": stage, "link": link}


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
