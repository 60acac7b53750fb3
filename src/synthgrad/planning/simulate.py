"""What a method would reach: throughput, idle share and memory under given times and conditions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from synthgrad.errors import ConfigError
from synthgrad.planning.costs import (
    Conditions,
    Costs,
    Floats,
    make_costs,
)
from synthgrad.planning.measurements import StageTimes
from synthgrad.planning.processes import run_processes
from synthgrad.planning.recurrence import start_times
from synthgrad.planning.schedules import PIPELINES_THAT_WAIT, Method, Op, Program, Schedule

Simulator = Literal["recurrence", "simpy"]
MAX_STAGES_OF_SIMPY = 256
MAX_STAGES = 10_000
MICROBATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# From so many stages on a simulation takes seconds: one batch stands for all of a synchronous
# method, which empties the line after each anyway, and few cuts are tried.
_LARGE = 512
_FEW_MICROBATCHES = (2, 16, 256)
_RANDOM_BATCHES = 200  # over which jitter is averaged
_RANDOM_BATCHES_CUT = 10  # that are cut into micro-batches, with a message for each
_WORSE_IN_A_ROW = 2


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a schedule reaches.

    Args:
        schedule: the method, and what was chosen of it.
        batches_per_second: in the steady state.
        idle_share: of the stages' time, on average over them.
        first_batch_s: from an empty line to the first batch that has updated every stage.
        bytes_in_flight: of the stage that keeps most: activations for backward, activations that
            wait for a target, older versions of weights. Neither weights nor receive buffers.
    """

    schedule: Schedule
    batches_per_second: float
    idle_share: float
    first_batch_s: float
    bytes_in_flight: float


def simulate(
    schedule: Schedule,
    stages: Sequence[StageTimes],
    conditions: Conditions | None = None,
    *,
    simulator: Simulator | None = None,
) -> Outcome:
    """Run a schedule until it is steady, and measure it.

    Args:
        schedule: the method.
        stages: bottom first; one for each process.
        conditions: link, jitter, a slow stage.
        simulator: "recurrence" for up to 10,000 stages, "simpy" for up to 256. By default the
            first, but for "dni-free", which needs the second.

    Raises:
        ConfigError: there are no stages, or more than the simulator can do.

    Example:
        >>> one = StageTimes(forward_s=0.01, backward_weight_s=0.02)
        >>> simulate(Schedule(method="gpipe", num_microbatches=3), [one] * 2).idle_share
        0.25
    """
    conditions = conditions or Conditions()
    free = schedule.method == "dni-free"
    simulator = simulator or ("simpy" if free else "recurrence")
    most = MAX_STAGES_OF_SIMPY if simulator == "simpy" else MAX_STAGES
    if not 1 <= len(stages) <= most:
        raise ConfigError(
            f"{len(stages)} stages: the simulator {simulator!r} of {schedule.method} takes 1 to "
            f"{most:,}"
        )
    if free and simulator != "simpy":
        raise ConfigError("dni-free has no fixed order, so only simulator='simpy' can run it")
    if schedule.method == "backprop":
        return _one_process(schedule, stages, conditions)
    if schedule.method == "ddp":
        return _replicas(schedule, stages, conditions)
    num_batches, first, last = _window(schedule, len(stages), conditions)
    fixed = Schedule(method="dni", max_in_flight=schedule.max_in_flight) if free else schedule
    costs = make_costs(fixed, stages, conditions, num_batches)
    if simulator == "recurrence":
        ends = _ends_of_batches(costs, num_batches)
    else:
        done = run_processes(costs, free_with=schedule.max_in_flight if free else None)
        updates = [[t + s for op, t, s in one if op is Op.UPDATE] for one in done]
        ends = np.array(updates).max(axis=0)
    rate = (last - first) / float(ends[last] - (ends[first] if first >= 0 else 0.0))
    busy = _seconds_of_batches(costs) / num_batches * rate
    return Outcome(
        schedule=schedule,
        batches_per_second=rate,
        idle_share=max(0.0, 1 - float(busy.mean())),
        first_batch_s=float(ends[0]),
        bytes_in_flight=_bytes_in_flight(schedule, stages, costs),
    )


def best_cut(
    method: Method,
    stages: Sequence[StageTimes],
    conditions: Conditions | None = None,
    *,
    batch_size: int,
) -> Outcome:
    """Return what a synchronous method reaches with the number of micro-batches that suits it best.

    Args:
        method: one of `PIPELINES_THAT_WAIT`.
        stages: bottom first.
        conditions: link, jitter, a slow stage.
        batch_size: no micro-batch is smaller than one example.
    """
    cuts = _FEW_MICROBATCHES if len(stages) > _LARGE else MICROBATCHES[1:]
    best = simulate(Schedule(method=method), stages, conditions)
    num_worse = 0
    for num_microbatches in cuts:
        if num_microbatches > batch_size or num_worse == _WORSE_IN_A_ROW:
            break
        schedule = Schedule(method=method, num_microbatches=num_microbatches)
        found = simulate(schedule, stages, conditions)
        num_worse = num_worse + 1 if found.batches_per_second <= best.batches_per_second else 0
        best = best if num_worse else found
    return best


def plan_method(
    method: Method,
    stages: Sequence[StageTimes],
    conditions: Conditions | None = None,
    *,
    batch_size: int,
    max_in_flight: int,
) -> Outcome:
    """Return what a method reaches, with the micro-batches that suit it best where it has them."""
    if method in PIPELINES_THAT_WAIT:
        return best_cut(method, stages, conditions, batch_size=batch_size)
    return simulate(Schedule(method=method, max_in_flight=max_in_flight), stages, conditions)


def _one_process(
    schedule: Schedule, stages: Sequence[StageTimes], conditions: Conditions
) -> Outcome:
    """Return what one machine like each of the others reaches, had it the memory; no messages."""
    times = conditions.slowed(stages)
    seconds = sum(stage.forward_s + stage.backward_s + stage.update_s for stage in times)
    return Outcome(
        schedule=schedule,
        batches_per_second=1 / seconds,
        idle_share=0.0,
        first_batch_s=seconds,
        bytes_in_flight=sum(stage.bytes_kept for stage in stages),
    )


def _replicas(schedule: Schedule, stages: Sequence[StageTimes], conditions: Conditions) -> Outcome:
    """Return what as many processes reach that each train the whole model on a part of the batch.

    Gradients go round a ring, 2 (n - 1) messages of a part of the parameters each, and at best all
    of that beside the backward. The slow machine sets the pace.
    """
    number, link = len(stages), conditions.link
    num_bytes = sum(stage.parameter_bytes for stage in stages)
    if not num_bytes:
        raise ConfigError("ddp needs parameter_bytes of the stages: what its gradients weigh")
    slow = conditions.slow_factor
    forward_s, backward_s = (
        slow * sum(stage.part(getattr(stage, name), number) for stage in stages)
        for name in ("forward_s", "backward_s")
    )
    update_s = slow * sum(stage.update_s for stage in stages)
    hop_s = link.latency_s + 2 * link.message_s + num_bytes / number / min(link.bandwidths)
    seconds = forward_s + max(backward_s, 2 * (number - 1) * hop_s) + update_s
    return Outcome(
        schedule=schedule,
        batches_per_second=1 / seconds,
        idle_share=1 - (forward_s + backward_s + update_s) / seconds,
        first_batch_s=seconds,
        bytes_in_flight=sum(stage.bytes_kept for stage in stages) / number,
    )


def _window(schedule: Schedule, num_stages: int, conditions: Conditions) -> tuple[int, int, int]:
    """Return how many batches to run, and between which two the rate is taken; -1 for the start.

    Synchronous methods repeat themselves from the first batch on; the others once what may be in
    flight is in flight, with a period of that many batches.
    """
    if schedule.is_synchronous:
        if conditions.is_random:
            return _RANDOM_BATCHES_CUT + 1, 0, _RANDOM_BATCHES_CUT
        return (1, -1, 0) if num_stages > _LARGE else (2, 0, 1)
    in_flight = schedule.max_in_flight
    if schedule.method == "stashing":
        in_flight = (in_flight - 1) * (num_stages - 1) + 1
    window = _RANDOM_BATCHES if conditions.is_random else 2 * in_flight
    last = 2 * in_flight + window
    # At the end an asynchronous line has backwards alone to do.
    return last + 1 + in_flight, 2 * in_flight, last


def _ends_of_batches(costs: Costs, num_batches: int) -> Floats:
    """Return when the last stage to do so has been updated by each batch."""
    starts = start_times(costs)
    latest = np.zeros(num_batches)
    for index, program in enumerate(costs.programs):
        (places,) = np.nonzero(program == Op.UPDATE)
        mine = np.flatnonzero(costs.which == index)
        seconds = costs.seconds[mine, Op.UPDATE][:, None]
        if costs.factors is not None:
            seconds = seconds * costs.factors[np.ix_(mine, places)]
        ends = starts[np.ix_(mine, places)] + seconds
        latest = np.maximum(latest, ends.max(axis=0))
    return latest


def _seconds_of_batches(costs: Costs) -> Floats:
    """Return for how long each stage works on all the batches."""
    counts = np.array([np.bincount(p[p >= 0], minlength=len(Op)) for p in costs.programs])
    return (counts[costs.which] * costs.seconds).sum(axis=1)


def _bytes_in_flight(schedule: Schedule, stages: Sequence[StageTimes], costs: Costs) -> float:
    peaks = np.array([_most_kept(program) for program in costs.programs])[costs.which]
    kept = np.array([stage.bytes_kept for stage in stages]) * peaks / schedule.num_microbatches
    if schedule.method == "stashing":
        kept += np.array([stage.parameter_bytes for stage in stages]) * (peaks - 1)
    elif schedule.method in ("dni", "dni-free"):
        waiting = [stage.activation_bytes * schedule.max_in_flight for stage in stages[:-1]]
        kept[:-1] += waiting
    return float(kept.max())


def _most_kept(program: Program) -> int:
    """Return how many forwards are at most waiting for their backward."""
    ends = (Op.BACKWARD, Op.BACKWARD_WEIGHT, Op.EMIT, Op.LOCAL)
    steps = (program == Op.FORWARD).astype(int) - np.isin(program, ends)
    return int(np.cumsum(steps).max())
