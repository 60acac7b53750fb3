"""What a rank takes from its neighbors and hands to them: batches up the line, gradients down.

What arrives is put on the device of the stages; what leaves is finite, or its maker is named.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synthgrad.engines.pipeline.place import Place
from synthgrad.engines.pipeline.wire.lane import Parcel
from synthgrad.engines.pipeline.wire.message import put_together, take_apart
from synthgrad.engines.pipeline.wire.neighbors import DOWN, UP, Line
from synthgrad.engines.work import Work
from synthgrad.errors import DivergedError, EngineError
from synthgrad.trees import Tree, float_tensors


class Exchange:
    """One rank's batches and gradients; as a source it gives the targets from the rank above.

    Args:
        line: to the neighbors.
        place: of this rank.
        device: of its stages.
        arrives_on: where the transport puts what arrives.
        gives_target: whether the rank below wants gradients.
        unlocked: whether every rank is given the data itself.
        check_finite: refuse to hand on NaN or infinity.
    """

    def __init__(
        self,
        line: Line,
        place: Place,
        *,
        device: torch.device,
        arrives_on: torch.device,
        gives_target: bool,
        unlocked: bool,
        check_finite: bool,
    ) -> None:
        self.line = line
        self.place = place
        self.device = device
        self.arrives_on = arrives_on
        self.gives_target = gives_target
        self.unlocked = unlocked
        self.checks = check_finite

    def take_batch(self, batch: int) -> tuple[Any, Tensor, Tensor | None]:
        """Wait for the activation of a batch, with its labels and its condition.

        Raises:
            EngineError: another batch came.
        """
        parcel = self.line.take(UP, "activation", self.place.stages[0], batch)
        if parcel.batch != batch:
            raise EngineError(
                f"batch {parcel.batch} came to rank {self.place.rank}, which is at batch {batch}: "
                "every rank must begin at the same batch."
            )
        return self.here(parcel.tree)

    def has_activation(self) -> bool:
        """Return whether `take_activation` would return at once."""
        return self.line.has_some(UP)

    def take_activation(self) -> Parcel:
        """Wait for what the prediction of an activation is fitted to."""
        batch = self.line.watch.doing[2]
        parcel = self.line.take(UP, "activation", self.place.stages[0], batch)
        return Parcel(parcel.batch, self.here(parcel.tree)[0])

    def has_some(self) -> bool:
        """Return whether a target has arrived."""
        return self.line.has_some(DOWN)

    def take(self) -> Parcel:
        """Wait for the next target."""
        batch = self.line.watch.doing[2]
        parcel = self.line.take(DOWN, "target", self.place.stages[-1], batch)
        return Parcel(parcel.batch, self.here(parcel.tree))

    def hand_up(self, batch: int, h: Any, labels: Tensor, condition: Tensor | None) -> None:
        """Send an activation, with what the ranks above do not know otherwise."""
        top = self.place.stages[-1]
        self.check("an activation", float_tensors(h), top, batch)
        if self.place.above is not None:
            rest = (None, None) if self.unlocked else (labels, condition)
            self.line.send(UP, batch, (h, *rest), stage=top)

    def hand_down(self, batch: int, work: Work) -> None:
        """Send the gradients of the lowest stage's input, if they are wanted."""
        if not self.gives_target:
            return
        gradients: list[Tensor | None] = [None] * len(work.inputs)
        if work.input_gradients is not None:
            gradients = work.input_gradients
        bottom = self.place.stages[0]
        self.check("a gradient", [g for g in gradients if g is not None], bottom, batch)
        self.line.send_gradients(DOWN, batch, gradients, stage=bottom)

    def check(self, what: str, tensors: Sequence[Tensor], stage: int, batch: int) -> None:
        """Refuse what is not finite.

        Raises:
            DivergedError: something is NaN or infinite.
        """
        if not self.checks:
            return
        with torch.no_grad():
            # A sum is one pass; only where it is not finite is it worth asking each number.
            bad = [t for t in tensors if not t.sum().isfinite() and not t.isfinite().all()]
        if bad:
            raise DivergedError(
                f"rank {self.place.rank} made {what} with NaN or infinity in it, at stage {stage} "
                f"in batch {batch}: try a smaller learning rate."
            )

    def here(self, tree: Tree) -> Any:
        """Return what arrived, on the device of the stages."""
        if self.device == self.arrives_on:
            return tree
        spec, tensors = take_apart(tree)
        return put_together(spec, [t.to(self.device) for t in tensors])
