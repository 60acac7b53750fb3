"""What the runtime of torch's schedules takes beside the work of the stages.

Stages that only hold their processor, each for as long as its passes take, and send messages of
their size: what their 1F1B takes more than its simulation is the runtime's, and the messages' that
wait for a processor which is at work. It would not be seen on stages that do nothing.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from synthgrad.planning import Conditions, Link, Schedule, StageTimes, simulate

HELD_MICROBATCHES = 8  # many, so that what a pass costs is most of the difference
_WARMUP = 2
_BISECTIONS = 40


def held_batch_s(times: StageTimes, rank: int, num_ranks: int, repeats: int) -> float:
    """Return the median seconds of a batch of 1F1B over stages that hold their processors.

    Every rank calls it.

    Args:
        times: of this rank's stage.
        rank: this one.
        num_ranks: as many as there are, up to `HELD_MICROBATCHES`.
        repeats: batches that count.
    """
    held = _Held(
        forward_s=times.part(times.forward_s, HELD_MICROBATCHES),
        backward_s=times.part(times.backward_s, HELD_MICROBATCHES),
        num_sent=max(1, int(times.activation_bytes) // (4 * HELD_MICROBATCHES)),
    )
    group: Any = dist.new_group()
    stage = PipelineStage(held, rank, num_ranks, torch.device("cpu"), group=group)
    schedule = Schedule1F1B(stage, HELD_MICROBATCHES, _some_loss)
    rows = torch.zeros(HELD_MICROBATCHES, 1)
    dist.barrier()
    seconds = list[float]()
    for _ in range(_WARMUP + repeats):
        start = time.perf_counter()
        schedule.step(*((rows,) if rank == 0 else ()), target=rows, return_outputs=False)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[_WARMUP:])


def runtime_s(stages: Sequence[StageTimes], link: Link, batch_s: float) -> float:
    """Return what a pass takes more, so that the simulated batch lasts as long as the held one.

    Args:
        stages: bottom first.
        link: between each two of them.
        batch_s: from `held_batch_s`.

    Returns:
        Seconds; 0 where the simulated batch lasts no shorter.
    """
    schedule = Schedule(method="1f1b", num_microbatches=HELD_MICROBATCHES)

    def simulated_s(more_s: float) -> float:
        held = [replace(stage, update_s=0.0, runtime_s=more_s) for stage in stages]
        return 1 / simulate(schedule, held, Conditions(link=link)).batches_per_second

    low, high = 0.0, batch_s
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if simulated_s(middle) < batch_s else (low, middle)
    return low


class _Held(nn.Module):
    """Holds the processor and hands on zeros: [1, any] to [1, numbers sent]."""

    def __init__(self, *, forward_s: float, backward_s: float, num_sent: int) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))  # without one autograd would not come by
        self._forward_s, self._backward_s, self._num_sent = forward_s, backward_s, num_sent

    def forward(self, h: Tensor) -> Tensor:
        seconds = self._forward_s, self._backward_s
        return _Hold.apply(h, self.unused, *seconds, self._num_sent)  # pyright: ignore[reportReturnType]


class _Hold(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h: Tensor, unused: Tensor, forward_s: float, backward_s: float, num_sent: int
    ) -> Tensor:
        end = time.perf_counter() + forward_s
        ctx.backward_s, ctx.shape = backward_s, h.shape
        output = h.new_zeros(len(h), num_sent)
        _hold_until(end)
        return output

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:
        end = time.perf_counter() + ctx.backward_s
        down = above[0].new_zeros(ctx.shape) if ctx.needs_input_grad[0] else None
        _hold_until(end)
        return down, above[0].new_zeros(()), None, None, None


def _some_loss(output: Tensor, target: Tensor) -> Tensor:
    return output.sum()


def _hold_until(end: float) -> None:
    while time.perf_counter() < end:
        pass
