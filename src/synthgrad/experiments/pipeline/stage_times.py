"""What a stage and a link cost, as the simulator of `synthgrad plan` wants to know it.

All ranks measure their own stage at the same time, because on one machine they share its memory.
"""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.distributed as dist

from synthgrad.engines.pipeline import Transport
from synthgrad.experiments.pipeline.lanes import OwnLanes
from synthgrad.experiments.pipeline.schedule_times import (
    HELD_MICROBATCHES,
    HeldStage,
    fit_runtime_s,
    simulated_s,
)
from synthgrad.experiments.pipeline.workload import LOSS, Workload
from synthgrad.planning.measurements import Measurements, StageTimes
from synthgrad.planning.meter import StageMeter

SCHEMA = 1
_LANES = 1_000  # no method has so high a number
GOES_TO_HOLD_BY = 8  # after which there are medians to hold processors by
_CAN_BE_HELD = range(2, HELD_MICROBATCHES + 1)  # ranks


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
        self._meter = _meter(workload, transport, signal_in_time=False)
        self._meter_in_time: StageMeter | None = None
        if workload.is_recurrent:
            self._meter_in_time = _meter(workload, transport, signal_in_time=True)
        self._num_goes = 0
        self._held: HeldStage | None = None

    def go(self, number: int) -> None:
        """Take the times of the stage so many times, all ranks at once.

        From the go `GOES_TO_HOLD_BY` on, a batch over held stages follows.
        """
        for _ in range(number):
            self._all_at_once(self._meter)
            if self._meter_in_time:
                self._all_at_once(self._meter_in_time)
            self._num_goes += 1
        num_ranks = self._lanes.num_ranks
        if self._held:
            self._held.go()
        elif self._num_goes >= GOES_TO_HOLD_BY and num_ranks in _CAN_BE_HELD:
            self._held = HeldStage(self._meter.times(), self._rank, num_ranks)
            self._held.go()
        dist.barrier()

    def _all_at_once(self, meter: StageMeter) -> None:
        """Take times, and work on until every rank has taken its own."""
        dist.barrier()
        meter.go()
        all_have: Any = dist.barrier(async_op=True)
        while not all_have.is_completed():
            meter.work_on()
        all_have.wait()  # it raises if the others are gone

    def found(self, repeats: int) -> dict[str, Any]:
        """Return the medians, the link from so many echoes, and held batches if there were any."""
        times = self._meter.times()
        if self._meter_in_time:
            times = with_signal_in_time(times, self._meter_in_time.times())
        stage = asdict(times)
        size = torch.tensor([max(stage["activation_bytes"], 8)], dtype=torch.int64)
        dist.broadcast(size, 0)
        link = _link(self._lanes, int(size), repeats)
        dist.barrier()
        held = self._held.found() if self._held else None
        return {"stage": stage, "link": link, "held": held}


def _meter(workload: Workload, transport: Transport, *, signal_in_time: bool) -> StageMeter:
    stages = [*workload.chain(transport.num_ranks, signal_in_time=signal_in_time)]
    h, y = next(workload.batches())
    with torch.no_grad():
        for stage in stages[: transport.rank]:
            h = stage(h)
    return StageMeter(
        stages[transport.rank],
        h.detach(),
        y,
        first=transport.rank == 0,
        loss=LOSS,
        optimizer=workload.make_optimizer,
        in_parts=not signal_in_time,  # parts of two sizes would end what is carried in time
    )


def with_signal_in_time(plain: StageTimes, with_it: StageTimes) -> StageTimes:
    """Return the times with what a signal in time adds to every pass, for methods that have it."""
    more_s = max(0.0, _pass_s(with_it) - _pass_s(plain))
    return replace(plain, predict_s=plain.predict_s + more_s, local_s=plain.local_s + more_s)


def _pass_s(times: StageTimes) -> float:
    return times.forward_s + times.backward_s + times.update_s


def merge_line(ranks: Sequence[Mapping[str, Any]], workload: Workload, source: str) -> Any:
    """Return the "measurements" event from what the ranks measured."""
    line: dict[str, Any] = {
        "event": "measurements",
        "schema": SCHEMA,
        "source": source,
        "batch_size": workload.batch_size,
        "stages": [rank["stage"] for rank in ranks],
        "link": ranks[0]["link"],
    }
    if ranks[0].get("held"):
        line |= _with_runtime(ranks, line)
    return line


def _with_runtime(ranks: Sequence[Mapping[str, Any]], line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stages with `runtime_s`, and what it was fitted to."""
    batches_s = ranks[0]["held"]["batches_s"]  # the first rank is done last: these are whole ones
    held = [StageTimes(**rank["held"]["stage"]) for rank in ranks]
    link, batch_s = Measurements.from_json(line).link, statistics.median(batches_s)
    more_s = fit_runtime_s(held, link, batch_s)
    return {
        "stages": [{**stage, "runtime_s": more_s} for stage in line["stages"]],
        "held": {
            "num_microbatches": HELD_MICROBATCHES,
            "batches_s": batches_s,
            "batch_s": batch_s,
            "simulated_s": simulated_s(held, link),
            "stages": [asdict(stage) for stage in held],
        },
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
