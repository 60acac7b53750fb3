"""What the runtime of torch's schedules takes beside the work of the stages.

Stages that only hold their processor, each for as long as its passes take, and send messages of
their size: what their 1F1B takes more than its simulation is the runtime's, and the messages' that
wait for a processor which is at work. It would not be seen on stages that do nothing.

It is what is left over: it goes with the link that it was fitted beside.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from synthgrad.planning import Conditions, Link, Schedule, StageTimes, simulate

HELD_MICROBATCHES = 8  # many, so that what a pass costs is most of the difference
_BISECTIONS = 40


class HeldStage:
    """This rank's part in a pipeline of stages that hold their processors; every rank has one.

    Args:
        times: of the stage, which say how long it holds its processor.
        rank: this one.
        num_ranks: as many as there are; torch's 1F1B wants no fewer micro-batches, so at most
            `HELD_MICROBATCHES`.
    """

    def __init__(self, times: StageTimes, rank: int, num_ranks: int) -> None:
        self._held = StageTimes(
            forward_s=times.forward_s,
            backward_weight_s=times.backward_s,
            overhead_s=times.overhead_s,
            activation_bytes=times.activation_bytes,
        )
        module = _Held(
            forward_s=times.part(times.forward_s, HELD_MICROBATCHES),
            backward_s=times.part(times.backward_s, HELD_MICROBATCHES),
            num_sent=max(1, int(times.activation_bytes) // (4 * HELD_MICROBATCHES)),
        )
        group: Any = dist.new_group()
        stage = PipelineStage(module, rank, num_ranks, torch.device("cpu"), group=group)
        self._schedule = Schedule1F1B(stage, HELD_MICROBATCHES, _some_loss)
        self._is_first = rank == 0
        self._seconds = list[float]()

    def go(self) -> None:
        """Take the seconds of a batch, behind one that does not count."""
        dist.barrier()
        self._batch()
        start = time.perf_counter()
        self._batch()
        self._seconds.append(time.perf_counter() - start)

    def found(self) -> dict[str, Any]:
        """Return how long this stage held its processor, and the seconds of each batch."""
        return {"stage": asdict(self._held), "batches_s": self._seconds}

    def _batch(self) -> None:
        rows = torch.zeros(HELD_MICROBATCHES, 1)
        inputs = (rows,) if self._is_first else ()
        self._schedule.step(*inputs, target=rows, return_outputs=False)


def simulated_s(held: Sequence[StageTimes], link: Link, runtime_s: float = 0.0) -> float:
    """Return the simulated seconds of a batch of 1F1B over held stages.

    Args:
        held: for how long each stage holds its processor for a batch, bottom first.
        link: between each two of them.
        runtime_s: of each stage.
    """
    schedule = Schedule(method="1f1b", num_microbatches=HELD_MICROBATCHES)
    stages = [replace(stage, runtime_s=runtime_s) for stage in held]
    return 1 / simulate(schedule, stages, Conditions(link=link)).batches_per_second


def fit_runtime_s(held: Sequence[StageTimes], link: Link, batch_s: float) -> float:
    """Return what a pass takes more, so that the simulated batch lasts as long as the measured one.

    Args:
        held: for how long each stage held its processor, bottom first.
        link: between each two of them.
        batch_s: seconds of a batch of 1F1B over them.

    Returns:
        Seconds; 0 where the simulated batch lasts no shorter.
    """
    low, high = 0.0, batch_s
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if simulated_s(held, link, middle) < batch_s:
            low = middle
        else:
            high = middle
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
    # By the clock, as stage times are taken: what else ran on this processor is part of both.
    while time.perf_counter() < end:
        pass
