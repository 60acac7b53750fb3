"""Torch's own pipeline schedules as rivals, on the same stages and ranks."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleavedZeroBubble,
)

from synthgrad.engines.pipeline import Span
from synthgrad.experiments.pipeline.runner import Counts, Runner, Tape
from synthgrad.experiments.pipeline.workload import LOSS, Workload

Kind = Literal["gpipe", "1f1b", "zero-bubble"]
STAGES_A_RANK = {"gpipe": 1, "1f1b": 1, "zero-bubble": 2}


class TapedStage(PipelineStage):
    """A stage of torch's that notes what it computes and what it sends."""

    def __init__(self, module: nn.Module, index: int, number: int, *, group: Any) -> None:
        super().__init__(module, index, number, torch.device("cpu"), group=group)
        self.tape: Tape | None = None

    def forward_one_chunk(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward of a micro-batch."""
        return self._timed("forward", super().forward_one_chunk, args, kwargs)

    def backward_one_chunk(self, *args: Any, **kwargs: Any) -> Any:
        """Run its backward, or of a zero bubble the part that makes gradients of the input."""
        return self._timed("backward", super().backward_one_chunk, args, kwargs)

    def backward_weight_one_chunk(self, *args: Any, **kwargs: Any) -> Any:
        """Run the part of a zero bubble's backward that makes gradients of parameters."""
        return self._timed("backward", super().backward_weight_one_chunk, args, kwargs)

    def get_fwd_send_ops(self, *args: Any, **kwargs: Any) -> Any:
        """Count the activations that are sent."""
        return self._counted(super().get_fwd_send_ops(*args, **kwargs))

    def get_bwd_send_ops(self, *args: Any, **kwargs: Any) -> Any:
        """Count the gradients that are sent."""
        return self._counted(super().get_bwd_send_ops(*args, **kwargs))

    def _timed(self, kind: str, do: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.tape is None:
            return do(*args, **kwargs)
        with self.tape.span(kind, self.stage_index):
            return do(*args, **kwargs)

    def _counted(self, ops: list[dist.P2POp]) -> list[dist.P2POp]:
        for op in ops if self.tape else ():
            assert self.tape is not None
            self.tape.sent(op.tensor)
        return ops


class TorchSchedule(Runner):
    """A schedule of torch's; one optimizer a rank, which steps when all micro-batches are through.

    Args:
        kind: which schedule.
        num_microbatches: in a batch.
        workload: what is trained.
        rank: this one.
        num_ranks: as many as there are.
    """

    def __init__(
        self, kind: Kind, num_microbatches: int, workload: Workload, rank: int, num_ranks: int
    ) -> None:
        super().__init__()
        self.rank, self.is_last = rank, rank == num_ranks - 1
        count = STAGES_A_RANK[kind] * num_ranks
        # Looped: rank r of R has the stages r, r + R, ...
        own = range(rank, count, num_ranks)
        modules, group = workload.stages(count), dist.new_group()
        self.tape = Tape(rank)
        self.stages = [TapedStage(modules[k], k, count, group=group) for k in own]
        for stage in self.stages:
            stage.tape = self.tape
            workload.come_in_parts(stage.submod, num_microbatches)
        made: dict[Kind, Callable[[], Any]] = {
            "gpipe": lambda: ScheduleGPipe(self.stages[0], num_microbatches, LOSS),
            "1f1b": lambda: Schedule1F1B(self.stages[0], num_microbatches, LOSS),
            "zero-bubble": lambda: ScheduleInterleavedZeroBubble(
                list(self.stages), num_microbatches, LOSS
            ),
        }
        self.schedule = made[kind]()
        self.optimizer = workload.make_optimizer([p for k in own for p in modules[k].parameters()])

        self.begins, self.workload = True, workload

    def step(self, x: Tensor, y: Tensor) -> None:
        """Train on a batch, cut into micro-batches."""
        inputs = (x,) if self.rank == 0 else ()
        if self.begins:
            # The first step asks every stage for its shapes, and is more than a step to a stage
            # that carries a state.
            self.schedule.step(*inputs, target=y, return_outputs=False)
            self.optimizer.zero_grad()
            for stage in self.stages:
                self.workload.begin_anew(stage.submod)
            self.begins = False
            self.tape.clear()
        with self.tape.step():
            self.schedule.step(*inputs, target=y, return_outputs=False)
            with self.tape.span("backward"):
                self.optimizer.step()
                self.optimizer.zero_grad()

    def counts(self) -> Counts:
        """Return what was sent; waiting is what is no computation, torch's own work included."""
        return self.tape.counts()

    def spans(self) -> Sequence[Span]:
        """Return forward and backward passes of micro-batches."""
        return self.tape.spans
