"""The lanes to and from the ranks below and above, and what a silent one is called."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from synthgrad.engines.pipeline.faults import Faults
from synthgrad.engines.pipeline.place import Place
from synthgrad.engines.pipeline.statistics import Watch
from synthgrad.engines.pipeline.wire.lane import Inbox, Outbox, Parcel, Traffic
from synthgrad.engines.pipeline.wire.transport import Transport
from synthgrad.errors import EngineError

UP, DOWN, SIDE_UP, SIDE_DOWN = range(4)
T = TypeVar("T")


class Line:
    """What a rank has to do with its neighbors.

    Args:
        transport: by which.
        place: of this rank.
        max_in_flight: batches that may be under way on a lane.
        takes_targets: whether the rank above sends gradients down.
        gives_targets: whether this rank sends gradients down.
        listens_up: know without waiting whether an activation has arrived.
        listens_down: the same for targets.
        faults: who is told of a failure.
        watch: takes the times.
        timeout_s: for any wait.
    """

    def __init__(
        self,
        transport: Transport,
        place: Place,
        *,
        max_in_flight: int,
        takes_targets: bool,
        gives_targets: bool,
        listens_up: bool,
        listens_down: bool,
        faults: Faults,
        watch: Watch,
        timeout_s: float,
    ) -> None:
        self.place = place
        self.faults = faults
        self.watch = watch
        self.timeout_s = timeout_s
        traffic = Traffic.bounded(max_in_flight)
        self._outboxes = dict[int, Outbox]()
        self._inboxes = dict[int, Inbox]()
        below, above = place.below, place.above

        def receives(source: int | None, lane: int, *, listens: bool = False) -> None:
            if source is not None:
                self._inboxes[lane] = Inbox(
                    transport, source, lane, traffic, listens=listens, timeout_s=timeout_s
                )

        def sends(to: int | None, lane: int) -> None:
            if to is not None:
                self._outboxes[lane] = Outbox(transport, to, lane, traffic)

        receives(below, UP, listens=listens_up)
        receives(below, SIDE_UP)
        receives(above, SIDE_DOWN)
        sends(above, UP)
        sends(above, SIDE_UP)
        sends(below, SIDE_DOWN)
        if takes_targets:
            receives(above, DOWN, listens=listens_down)
        if gives_targets:
            sends(below, DOWN)

    def begin(self) -> None:
        """Begin to listen."""
        for inbox in self._inboxes.values():
            inbox.listen()

    @property
    def num_messages(self) -> int:
        """How many were sent."""
        return sum(o.num_messages for o in self._outboxes.values())

    @property
    def num_bytes(self) -> int:
        """How many bytes were sent."""
        return sum(o.num_bytes for o in self._outboxes.values())

    def has_some(self, lane: int) -> bool:
        """Return whether something has arrived there."""
        return self._inboxes[lane].has_some()

    def take(self, lane: int, what: str, stage: int, batch: int) -> Parcel:
        """Return what arrived first, waiting for it.

        Raises:
            RankError: the other rank is gone, or has sent nothing in time.
            EngineError: the other rank has closed its pipeline.
        """
        inbox = self._inboxes[lane]
        with self.watch.span(f"wait {what}", stage, batch):
            parcel = self._named(inbox.source, f"waited for its {what}", inbox.take)
        if parcel is None:
            raise EngineError(
                f"rank {inbox.source} has closed its pipeline and rank {self.place.rank} waits for "
                f"its {what} of batch {batch}: every rank must take the same number of steps."
            )
        return parcel

    def send(self, lane: int, batch: int, tree: Any, *, stage: int) -> None:
        """Begin to send a batch, when there is room."""
        outbox = self._room(lane, stage, batch)
        with self.watch.span("send", stage, batch):
            self._named(outbox.to, "sent to it", lambda: outbox.send(batch, tree))

    def send_gradients(
        self, lane: int, batch: int, gradients: Sequence[Tensor | None], *, stage: int
    ) -> None:
        """The same for gradients, of which some may not exist this time."""
        outbox = self._room(lane, stage, batch)
        spec = {"list": [{"tensor": k} for k in range(len(gradients))]}
        with self.watch.span("send", stage, batch):
            self._named(outbox.to, "sent to it", lambda: outbox.send_parts(batch, spec, gradients))

    def close(self) -> None:
        """Tell the neighbors that nothing follows, and wait until they have told the same."""
        for outbox in self._outboxes.values():
            self._named(outbox.to, "closed its pipeline", outbox.announce_end)
        for lane, inbox in self._inboxes.items():
            parcel = self._named(inbox.source, "closed its pipeline", inbox.take)
            if parcel is not None:
                raise EngineError(
                    f"rank {inbox.source} has sent batch {parcel.batch} (lane {lane}), which rank "
                    f"{self.place.rank} has not taken: every rank must take the same number of "
                    "steps before close."
                )
        for outbox in self._outboxes.values():
            self._named(
                outbox.to, "closed its pipeline", lambda o=outbox: o.wait_empty(self.timeout_s)
            )

    def _room(self, lane: int, stage: int, batch: int) -> Outbox:
        outbox = self._outboxes[lane]
        if not outbox.has_room:
            with self.watch.span("wait room", stage, batch):
                self._named(
                    outbox.to,
                    "waited for it to take a message",
                    lambda: outbox.make_room(self.timeout_s),
                )
        return outbox

    def _named(self, other: int, doing: str, act: Callable[[], T]) -> T:
        try:
            return act()
        except TimeoutError as error:
            raise self.faults.timed_out(other, doing, self.timeout_s) from error
        except ConnectionError as error:
            raise self.faults.disconnected(other, doing) from error
