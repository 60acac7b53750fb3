"""True gradients that arrive late: delayed gradients, and asynchronous pipelining with stashing.

Both are one line. A stage goes forward with its weights of today and keeps a copy of them; when the
gradient of that batch comes down, some batches later, the backward runs at the copy (the *stashed*
weights), and the result is applied to the weights of then. What differs is how late: delayed
gradients (Huo et al. 2018, DDG) let a stage be as many batches late as there are stages above it;
with more batches under way a line bears more latency, as PipeDream (Narayanan et al. 2019) does
with its stash, at the price of staler gradients.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synthgrad.engines.pipeline import Span, Transport
from synthgrad.engines.pipeline.wire.lane import Inbox, Outbox, Parcel, Traffic
from synthgrad.errors import EngineError
from synthgrad.experiments.pipeline.runner import Counts, Runner, Tape
from synthgrad.experiments.pipeline.workload import LOSS, Workload

_UP, _DOWN = 0, 1


@dataclass(frozen=True)
class Waiting:
    """A batch whose gradient has not come down."""

    batch: int
    h: Tensor | None
    output: Tensor
    weights: dict[str, Tensor]


class LateGradients(Runner):
    """One stage a rank, trained by true gradients that are some batches old.

    Args:
        workload: what is trained.
        transport: to the neighbors.
        lag: batches that a gradient is late for each stage above: 1 is DDG.
        timeout_s: for a message.
    """

    def __init__(
        self, workload: Workload, transport: Transport, *, lag: int, timeout_s: float = 60.0
    ) -> None:
        super().__init__()
        rank, last = transport.rank, transport.num_ranks - 1
        self.module: nn.Module = workload.stages(last + 1)[rank]
        self.optimizer = workload.make_optimizer(list(self.module.parameters()))
        self.delay = lag * (last - rank)
        self.is_first, self.is_last = rank == 0, rank == last
        self.tape = Tape(rank)
        traffic = Traffic.bounded(lag + 2)
        self._timeout_s = timeout_s
        self._waiting = deque[Waiting]()

        def inbox(source: int, lane: int) -> Inbox:
            return Inbox(transport, source, lane, traffic, listens=False, timeout_s=timeout_s)

        self._from_below = None if self.is_first else inbox(rank - 1, _UP)
        self._from_above = None if self.is_last else inbox(rank + 1, _DOWN)
        self._to_above = None if self.is_last else Outbox(transport, rank + 1, _UP, traffic)
        self._to_below = None if self.is_first else Outbox(transport, rank - 1, _DOWN, traffic)

    def step(self, x: Tensor, y: Tensor) -> None:
        """Go forward with a batch, and back with the one whose gradient is due."""
        with self.tape.step():
            batch, h = self.tape.batch, x
            if self._from_below is not None:
                h, y = self._take(self._from_below).tree
                h = h.requires_grad_()
            if self.is_last:
                self._train(h, y, batch)
            else:
                self._forward(h, y, batch)
                if len(self._waiting) > self.delay:
                    self._backward()

    def flush(self) -> None:
        """Apply every gradient that is on its way, and see what was sent off."""
        while self._waiting:
            self._backward()
        for box in self._boxes():
            box.wait_empty(self._timeout_s)

    def counts(self) -> Counts:
        """Return what was sent, and what was waited."""
        boxes = self._boxes()
        return Counts(
            idle_s=self.tape.idle_s,
            messages=sum(box.num_messages for box in boxes),
            bytes=sum(box.num_bytes for box in boxes),
        )

    def spans(self) -> Sequence[Span]:
        """Return forward and backward passes."""
        return self.tape.spans

    def _boxes(self) -> list[Outbox]:
        return [box for box in (self._to_above, self._to_below) if box is not None]

    def _train(self, h: Tensor, y: Tensor, batch: int) -> None:
        with self.tape.span("forward"):
            loss = LOSS(self.module(h), y)
        with self.tape.span("backward"):
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        self._hand_down(batch, h.grad)

    def _forward(self, h: Tensor, y: Tensor, batch: int) -> None:
        assert self._to_above is not None
        with self.tape.span("forward"):
            # What the optimizer changes in place, no backward could use later.
            weights = {
                name: p.detach().clone().requires_grad_()
                for name, p in self.module.named_parameters()
            }
            output = torch.func.functional_call(self.module, weights, (h,))
        self._to_above.make_room(self._timeout_s)
        self._to_above.send(batch, (output.detach(), y))
        self._waiting.append(Waiting(batch, None if self.is_first else h, output, weights))

    def _backward(self) -> None:
        assert self._from_above is not None
        parcel, due = self._take(self._from_above), self._waiting.popleft()
        if parcel.batch != due.batch:
            raise EngineError(f"the gradient of batch {parcel.batch} came for batch {due.batch}")
        with self.tape.span("backward"):
            inputs = [*due.weights.values(), *([] if due.h is None else [due.h])]
            found = torch.autograd.grad(due.output, inputs, parcel.tree[0])
            for parameter, gradient in zip(self.module.parameters(), found, strict=False):
                parameter.grad = gradient
            self.optimizer.step()
            self.optimizer.zero_grad()
        self._hand_down(due.batch, None if due.h is None else found[-1])

    def _hand_down(self, batch: int, gradient: Tensor | None) -> None:
        if self._to_below is not None and gradient is not None:
            self._to_below.make_room(self._timeout_s)
            self._to_below.send(batch, [gradient])

    def _take(self, inbox: Inbox) -> Parcel:
        parcel = inbox.take()
        if parcel is None:
            raise EngineError("a neighbor has stopped")
        return parcel
