"""The training step of the stages that one rank has: the same equations as in `Sequential`.

It knows nothing of messages: targets come from a `Source` a stage, which for an interface inside
the rank is a shelf, and for the one on top a lane from the rank above.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from synthgrad.engines.late_fit import LateFit
from synthgrad.engines.pipeline.in_flight import InFlight, Targets
from synthgrad.engines.pipeline.replicas import Replicas
from synthgrad.engines.pipeline.statistics import Watch
from synthgrad.engines.pipeline.wire.lane import Parcel
from synthgrad.engines.rules import (
    OptimizerFactory,
    is_local,
    make_optimizer,
    traces,
    waits,
    wants_target,
)
from synthgrad.engines.work import Work
from synthgrad.interface import Interface
from synthgrad.stage import Chain, Stage


class Source(Protocol):
    """Where the targets of one interface come from."""

    def has_some(self) -> bool:
        """Return whether `take` would return at once."""
        ...

    def take(self) -> Parcel:
        """Return the next target, waiting for it."""
        ...


class Shelf:
    """A source inside the rank."""

    def __init__(self) -> None:
        self._parcels = deque[Parcel]()

    def put(self, parcel: Parcel) -> None:
        """Lay a target down."""
        self._parcels.append(parcel)

    def has_some(self) -> bool:
        """Return whether one lies there."""
        return bool(self._parcels)

    def take(self) -> Parcel:
        """Return the oldest one."""
        return self._parcels.popleft()


class OwnStages:
    """The stages of one rank, with their optimizers and what is in flight above each.

    Args:
        chain: all stages; only those in `numbers` are trained.
        numbers: which.
        gives_target: whether the rank below wants gradients.
        optimizer: makes a stage's optimizer.
        synthesizer_optimizer: makes that of the synthesizers on top of a stage.
        delays: one an interface of the chain; None in free mode.
        late_fit: "stored" or "again".
        max_in_flight: how many fits of an interface may wait for their target.
        replicas: with which gradients are averaged.
        watch: takes the times.
        top_source: of targets from the rank above.
        updates: whether each stage of the chain is updated in a batch, by the batch's number.
    """

    def __init__(
        self,
        chain: Chain,
        numbers: range,
        *,
        gives_target: bool,
        optimizer: OptimizerFactory,
        synthesizer_optimizer: OptimizerFactory,
        delays: Sequence[int] | None,
        late_fit: Literal["stored", "again"],
        max_in_flight: int,
        replicas: Replicas,
        watch: Watch,
        top_source: Source,
        updates: Callable[[int], Sequence[bool]],
    ) -> None:
        self.numbers = numbers
        self.delays = delays
        self.late_fit: Literal["stored", "again"] = late_fit
        self.max_in_flight = max_in_flight
        self.replicas = replicas
        self.watch = watch
        self.updates = updates
        self.num_stages = len(chain)
        all_stages = list(chain)
        self.stages = {s: all_stages[s] for s in numbers}
        self.gives_target = gives_target
        self.optimizers = {
            s: make_optimizer(optimizer, stage.stage_parameters())
            for s, stage in self.stages.items()
        }
        self.synthesizer_optimizers = {
            s: make_optimizer(synthesizer_optimizer, stage.synthesizer_parameters())
            for s, stage in self.stages.items()
        }
        self.books = {
            s: InFlight(stage.interface)
            for s, stage in self.stages.items()
            if stage.interface is not None and wants_target(stage)
        }
        self.shelves = {s: Shelf() for s in self.books if s + 1 in numbers}
        self.sources: dict[int, Source] = {s: self.shelves.get(s, top_source) for s in self.books}

    def forward(self, h: Any, batch: int, hand_up: Callable[[Any], None]) -> list[Work]:
        """Take a batch through the stages; `hand_up` gets the output as soon as it is there."""
        works = list[Work]()
        updated = self.updates(batch)
        for s, stage in self.stages.items():
            with self.watch.span("forward", s, batch):
                work = Work(
                    stage,
                    h,
                    first=s == 0,
                    updated=updated[s],
                    gives_target=self.gives_target
                    if s == self.numbers.start
                    else s - 1 in self.books,
                )
            h = work.output
            if s == self.numbers[-1]:
                hand_up(h)
            with self.watch.span("predict", s, batch):
                above = s + 1 < self.num_stages and updated[s + 1]
                work.predict(fits=above, late=self._late(s))
            works.append(work)
        return works

    def backward(self, works: list[Work], batch: int, hand_down: Callable[[Work], None]) -> None:
        """Update the stages from the top down; `hand_down` gets the bottom one when it is done."""
        for s in reversed(self.numbers):
            work = works[s - self.numbers.start]
            # A target is asked for before the update only by signals that are made of it.
            target = None
            asks = s in self.books and (waits(self.stages[s]) or traces(self.stages[s]))
            if asks:
                target = self._take(s, batch, work)
            if self.updates(batch)[s]:
                with self.watch.span("backward", s, batch):
                    work.backward(target)
                    self.take_step(self.optimizers[s])
                    if is_local(self.stages[s]):
                        self.take_step(self.synthesizer_optimizers[s])
            if s == self.numbers.start:
                hand_down(work)
            elif s - 1 in self.books:
                self.shelves[s - 1].put(Parcel(batch, work.input_gradients))
            if s in self.books and self._late(s) is None:
                if not asks:
                    target = self._take(s, batch, work)
                self._fit_now(s, batch, work, target)
        for s, book in self.books.items():
            if self._late(s) is not None:
                book.emitted(batch, works[s - self.numbers.start].late)
                self.fit_late(s, batch)

    def fit_late(self, s: int, batch: int) -> None:
        """Apply the targets of an interface that are due (ordered) or have arrived (free)."""
        book, source = self.books[s], self.sources[s]
        if self.delays is None:
            for early in book.take_early(batch):
                self._fit(s, early, batch)
            while source.has_some():
                self._fit(s, source.take(), batch)
        else:
            while len(book) > self.delays[s]:
                self._fit(s, source.take(), batch)

    def make_room(self, batch: int) -> None:
        """Wait for targets until another batch may be under way at every interface."""
        for s, book in self.books.items():
            while len(book) >= self.max_in_flight:
                self._fit(s, self.sources[s].take(), batch - 1)

    def flush(self, batch: int) -> None:
        """Apply all targets that are out."""
        for s, book in self.books.items():
            while len(book):
                self._fit(s, self.sources[s].take(), batch)

    def zero_grad(self) -> None:
        """Forget the gradients of half a step."""
        for optimizer in (*self.optimizers.values(), *self.synthesizer_optimizers.values()):
            if optimizer is not None:
                optimizer.zero_grad()

    def take_step(self, optimizer: Optimizer | None) -> None:
        """Average the gradients over the replicas, take a step with them, and clear them."""
        if optimizer is not None:
            self.replicas.average([p for g in optimizer.param_groups for p in g["params"]])
            optimizer.step()
            optimizer.zero_grad()

    def state(self, s: int) -> dict[str, Any]:
        """Return what a stage has learned, beside its modules."""
        made = self.optimizers[s], self.synthesizer_optimizers[s]
        return {"optimizers": [o and o.state_dict() for o in made]}

    def load_state(self, s: int, state: Mapping[str, Any]) -> None:
        """Continue from such a state."""
        made = self.optimizers[s], self.synthesizer_optimizers[s]
        for optimizer, saved in zip(made, state["optimizers"], strict=True):
            if optimizer is not None:
                optimizer.load_state_dict(saved)

    def modules(self) -> list[nn.Module]:
        """Return the stages, their interfaces included."""
        return list(self.stages.values())

    def _late(self, s: int) -> Literal["stored", "again"] | None:
        """How a fit that comes later is computed; None where it comes in the same step."""
        if s not in self.books or (self.delays is not None and self.delays[s] == 0):
            return None
        return self.late_fit

    def _take(self, s: int, batch: int, work: Work) -> Targets | None:
        """Wait for the target of the batch under way."""
        book = self.books[s]
        book.emitted(batch, LateFit([], None, None, []))
        parcel = self.sources[s].take()
        fit = book.arrived(parcel.batch, self._targets(s, parcel), now=batch)
        return None if fit is None else fit.targets

    def _fit_now(self, s: int, batch: int, work: Work, target: Targets | None) -> None:
        with self.watch.span("fit", s, batch):
            if work.fits(target):
                self.take_step(self.synthesizer_optimizers[s])

    def _fit(self, s: int, parcel: Parcel, now: int) -> None:
        if self.delays is None and parcel.batch > now:
            self.books[s].came_early(parcel)
            return
        fit = self.books[s].arrived(parcel.batch, self._targets(s, parcel), now=now)
        interface = self.stages[s].interface
        if fit is not None and isinstance(interface, Interface):
            with self.watch.span("fit", s, parcel.batch):
                fit.fit(interface)
                self.take_step(self.synthesizer_optimizers[s])

    def _targets(self, s: int, parcel: Parcel) -> Targets | None:
        """Return what came; None where the stage above was not updated in that batch."""
        return parcel.tree if self.updates(parcel.batch)[s + 1] else None


def stage_device(stages: Sequence[Stage]) -> torch.device:
    """Return where the stages' parameters are; the CPU if they have none."""
    for stage in stages:
        for parameter in stage.parameters():
            return parameter.device
    return torch.device("cpu")
