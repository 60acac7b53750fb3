"""Methods that the pipeline engine itself runs: synthetic gradients and local losses."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

import synthgrad as sg
from synthgrad.engines import Evaluation
from synthgrad.engines.pipeline import Span, Transport
from synthgrad.experiments.pipeline.runner import Counts, Runner
from synthgrad.experiments.pipeline.workload import LOSS, Workload


class ByEngine(Runner):
    """`sg.engines.Pipeline` on one rank.

    Args:
        workload: what is trained.
        transport: to the neighbors.
        signal: of the interfaces; by default conditioned DNI.
        **options: of the engine.
    """

    def __init__(
        self,
        workload: Workload,
        transport: Transport,
        signal: sg.ErrorSignal | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        chain = workload.chain(transport.num_ranks, signal)
        self.engine = sg.engines.Pipeline(
            chain,
            loss=LOSS,
            optimizer=workload.make_optimizer,
            synthesizer_optimizer=workload.make_optimizer,
            transport=transport,
            timeline=True,
            **options,
        )

    def step(self, x: Tensor, y: Tensor) -> None:
        """Train on a batch."""
        self.engine.step(x, y)

    def flush(self) -> None:
        """Fit to every target that is on its way."""
        self.engine.flush()

    def counts(self) -> Counts:
        """Return the engine's own counts."""
        counted = self.engine.statistics
        return Counts(
            idle_s=counted.idle_s, messages=counted.messages_sent, bytes=counted.bytes_sent
        )

    def spans(self) -> Sequence[Span]:
        """Return the engine's time line."""
        return self.engine.timeline

    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation | None:
        """Return loss and accuracy over the whole line."""
        return self.engine.evaluate(batches)

    def most_in_flight(self) -> int | None:
        """Return the most batches that were under way at this rank's interface."""
        return self.engine.statistics.max_in_flight
