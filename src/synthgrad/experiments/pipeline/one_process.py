"""Backprop without any wait: in one process, and on replicas of the whole network."""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from synthgrad.engines import Evaluation
from synthgrad.engines.evaluation import evaluate
from synthgrad.engines.pipeline import Span
from synthgrad.experiments.pipeline.runner import Counts, Runner, Tape, shares
from synthgrad.experiments.pipeline.workload import LOSS, Workload


class OneProcess(Runner):
    """Backprop on the first rank; the others stand still."""

    def __init__(self, workload: Workload, rank: int, *, threads: int) -> None:
        super().__init__(threads=threads, works_here=rank == 0)
        self.tape = Tape(rank)
        if self.works_here:
            self.network: nn.Module = workload.build(signal_in_time=False)
            self.optimizer = workload.make_optimizer(list(self.network.parameters()))

    def step(self, x: Tensor, y: Tensor) -> None:
        """Train on a batch."""
        with self.tape.step():
            train_step(self.network, self.optimizer, x, y, self.tape)

    def counts(self) -> Counts:
        """Return no messages."""
        return self.tape.counts()

    def spans(self) -> Sequence[Span]:
        """Return forward and backward passes."""
        return self.tape.spans

    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation | None:
        """Return loss and accuracy on the rank that has the network."""
        return evaluate(self.network, batches, LOSS, mean=True) if self.works_here else None


class Replicas(Runner):
    """DDP: every rank has the whole network and its share of each batch.

    The bytes are those that a ring all-reduce of the gradients sends, 2 (N - 1) / N of them a rank;
    what gloo adds to them is not counted.
    """

    def __init__(self, workload: Workload, rank: int, num_ranks: int) -> None:
        super().__init__()
        self.rank, self.num_ranks = rank, num_ranks
        network = workload.build(signal_in_time=False)
        self.network = DistributedDataParallel(
            network, process_group=dist.new_group(), gradient_as_bucket_view=True
        )
        self.optimizer = workload.make_optimizer(list(network.parameters()))
        size = sum(p.numel() * p.element_size() for p in network.parameters())
        self.bytes_a_step = 2 * (num_ranks - 1) * size // num_ranks
        self.tape = Tape(rank)

    def step(self, x: Tensor, y: Tensor) -> None:
        """Train on this rank's share of a batch."""
        own_x, own_y = (shares(t, self.num_ranks)[self.rank] for t in (x, y))
        with self.tape.step():
            train_step(self.network, self.optimizer, own_x, own_y, self.tape)
        self.tape.messages += 2 * (self.num_ranks - 1)
        self.tape.bytes += self.bytes_a_step

    def counts(self) -> Counts:
        """Return the bytes of the all-reduce; waiting for it is inside the backward pass."""
        return self.tape.counts()

    def spans(self) -> Sequence[Span]:
        """Return forward and backward passes, the all-reduce included in the latter."""
        return self.tape.spans


def train_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, tape: Tape
) -> None:
    """Take one ordinary step."""
    with tape.span("forward"):
        loss = LOSS(network(x), y)
    with tape.span("backward"):
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
