"""Evaluation over the ranks: batches go up the line in eval mode, and the result comes down."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.engines.evaluation import Evaluation, eval_mode, evaluate
from synthgrad.engines.pipeline.place import Place
from synthgrad.engines.pipeline.wire.neighbors import SIDE_DOWN, SIDE_UP, Line


class Evaluator:
    """One rank's part in evaluating.

    Args:
        stages: of this rank, bottom first.
        place: of this rank.
        line: to its neighbors.
        here: puts what arrived on the device of the stages.
        mean: whether the loss is a mean over examples.
    """

    def __init__(
        self,
        stages: Iterable[nn.Module],
        place: Place,
        line: Line,
        here: Callable[[Any], Any],
        *,
        mean: bool,
    ) -> None:
        self.own = _Own(stages)
        self.place = place
        self.line = line
        self.here = here
        self.mean = mean

    def run(
        self, batches: Iterable[tuple[Any, Tensor]], loss: Callable[[Any, Tensor], Tensor]
    ) -> Evaluation:
        """Return the same on every rank; the batches are those of the lowest one."""
        stages = self.place.stages
        if self.place.above is None:
            found = evaluate(self.own, self._arriving(batches), loss, mean=self.mean)
            accuracy = -1.0 if found.accuracy is None else found.accuracy
            numbers = [found.loss, accuracy, found.num_examples]
            result = torch.tensor(numbers, dtype=torch.float64)
        else:
            self._pass_on(batches)
            result = self.line.take(SIDE_DOWN, "evaluation", stages[-1], -1).tree
        if self.place.below is not None:
            self.line.send(SIDE_DOWN, 0, result, stage=stages[0])
        mean_loss, accuracy, count = result.tolist()
        return Evaluation(
            loss=mean_loss, accuracy=None if accuracy < 0 else accuracy, num_examples=int(count)
        )

    def _arriving(self, batches: Iterable[tuple[Any, Tensor]]) -> Iterator[tuple[Any, Tensor]]:
        if self.place.below is None:
            yield from batches
            return
        while True:
            parcel = self.line.take(SIDE_UP, "evaluated activation", self.place.stages[0], -1)
            if parcel.tree is None:
                return
            h, labels = self.here(parcel.tree)
            yield (h,), labels

    def _pass_on(self, batches: Iterable[tuple[Any, Tensor]]) -> None:
        top = self.place.stages[-1]
        with eval_mode(self.own), torch.no_grad():
            for number, (inputs, labels) in enumerate(self._arriving(batches)):
                h = self.own(*inputs) if isinstance(inputs, tuple) else self.own(inputs)
                self.line.send(SIDE_UP, number, (h, labels), stage=top)
        self.line.send(SIDE_UP, -1, None, stage=top)


class _Own(nn.Module):
    """The stages of one rank, one after the other."""

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, *inputs: Any) -> Any:
        first, *rest = self.stages
        h = first(*inputs)
        for stage in rest:
            h = stage(h)
        return h
