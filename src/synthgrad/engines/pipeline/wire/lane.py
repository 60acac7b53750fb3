"""One direction between two neighboring ranks: messages in order, a bounded number under way.

The sender holds at most `window` messages that have not left; the receiver keeps `ahead` buffers
posted. So at most their sum has been sent and not been taken.
"""

import queue
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synthgrad.engines.pipeline.wire.message import Kind, Layout, put_together, take_apart
from synthgrad.engines.pipeline.wire.transport import Pending, Transport
from synthgrad.trees import Tree


@dataclass(frozen=True)
class Traffic:
    """How many messages under way a lane allows: `window` that have not left, `ahead` posted."""

    window: int
    ahead: int

    @classmethod
    def bounded(cls, max_in_flight: int) -> "Traffic":
        """Return one that allows so many in all (two at least: one on each side)."""
        ahead = min(2, max(1, max_in_flight - 1))
        return cls(max(1, max_in_flight - ahead), ahead)


class Outbox:
    """The sending end of a lane."""

    def __init__(self, transport: Transport, to: int, lane: int, traffic: Traffic) -> None:
        self.transport = transport
        self.to = to
        self.lane = lane
        self.traffic = traffic
        self.num_messages = 0
        self.num_bytes = 0
        self._layout: Layout | None = None
        self._notices = list[tuple[Pending, Tensor]]()
        self._leaving = deque[tuple[Pending, Tensor]]()
        # Until the layout has arrived and buffers are posted, what they will hold lies here.
        self._layout_is_known = False
        self._num_older = 0

    def send(self, batch: int, tree: Tree) -> None:
        """Begin to send a batch; its place was made by `make_room`."""
        self.send_parts(batch, *take_apart(tree))

    def send_parts(self, batch: int, spec: Any, tensors: Sequence[Tensor | None]) -> None:
        """Begin to send a batch, taken apart; None where there is no tensor this time."""
        if self._layout is None or not self._layout.fits(spec, tensors):
            self._announce(Layout.of(spec, tensors, self._layout))
        assert self._layout is not None
        self._leaving.append(self._post(self._layout.pack(batch, tensors, self.transport.device)))

    def make_room(self, timeout_s: float) -> None:
        """Wait until another batch may be sent."""
        while not self.has_room:
            self._leaving[0][0].wait(timeout_s)
            self._leaving.popleft()
            if self._num_older == 0:
                self._layout_is_known = True
                self._wait_notices(timeout_s)
            else:
                self._num_older -= 1

    @property
    def has_room(self) -> bool:
        """Return whether another batch may be sent at once."""
        extra = 0 if self._layout_is_known else self.traffic.ahead
        return len(self._leaving) < self.traffic.window + extra

    def announce_end(self) -> None:
        """Tell the other end that nothing follows."""
        self._announce(None)

    def wait_empty(self, timeout_s: float) -> None:
        """Wait until all has left."""
        while self._leaving:
            self._leaving.popleft()[0].wait(timeout_s)
        self._wait_notices(timeout_s)

    def _wait_notices(self, timeout_s: float) -> None:
        """Let go of notices that have left; those before a message that has left have too."""
        for pending, _ in self._notices:
            pending.wait(timeout_s)
        self._notices.clear()

    def _announce(self, layout: Layout | None) -> None:
        """Use up the buffers that are posted at the other end for the old layout."""
        # These are not held up by `window`: they are few, and whoever waited here would make the
        # order of batches depend on when a layout changes.
        post = self._notices.append
        if self._layout is not None:
            kind = Kind.END if layout is None else Kind.NEW_LAYOUT
            for _ in range(self.traffic.ahead):
                post(self._post(self._layout.notice(kind, self.transport.device)))
        elif layout is None:
            post(self._post(torch.zeros(8, dtype=torch.uint8)))
        if layout is not None:
            body = layout.to_bytes()
            post(self._post(torch.tensor([len(body)]).view(torch.uint8)))
            post(self._post(body))
        self._layout = layout
        self._layout_is_known, self._num_older = False, len(self._leaving)

    def _post(self, message: Tensor) -> tuple[Pending, Tensor]:
        message = message.to(self.transport.device)
        self.num_messages += 1
        self.num_bytes += len(message)
        return self.transport.send(message, self.to, self.lane), message


@dataclass(frozen=True)
class Parcel:
    """What arrived: the number of its batch, and the tree."""

    batch: int
    tree: Tree


class Inbox:
    """The receiving end of a lane.

    Args:
        transport: by which.
        source: the rank that sends.
        lane: on which.
        traffic: as the sender has it.
        listens: have a thread wait for messages, so that `has_some` can tell without waiting.
        timeout_s: for the next message.
    """

    def __init__(
        self,
        transport: Transport,
        source: int,
        lane: int,
        traffic: Traffic,
        *,
        listens: bool,
        timeout_s: float,
    ) -> None:
        self.transport = transport
        self.source = source
        self.lane = lane
        self.traffic = traffic
        self.timeout_s = timeout_s
        self._layout: Layout | None = None
        self._posted = deque[tuple[Pending, Tensor]]()
        self._arrived = queue.Queue[Parcel | Exception | None]() if listens else None
        self._is_over = False

    def listen(self) -> None:
        """Begin to listen, where that is wanted."""
        if self._arrived is not None:
            threading.Thread(target=self._listen, args=(self._arrived,), daemon=True).start()

    def has_some(self) -> bool:
        """Return whether `take` would return a batch (or raise) at once."""
        assert self._arrived is not None
        waiting = self._arrived.queue
        return bool(waiting) and waiting[0] is not None  # None: the other end has closed

    def take(self) -> Parcel | None:
        """Return what arrived first, waiting for it; None if the other end has closed.

        Raises:
            TimeoutError: nothing arrived in time.
            ConnectionError: the other rank is gone.
        """
        if self._is_over:
            return None
        if self._arrived is None:
            parcel = self._receive(self.timeout_s)
        else:
            try:
                parcel = self._arrived.get(timeout=self.timeout_s)
            except queue.Empty:
                raise TimeoutError(f"nothing from rank {self.source}") from None
            if isinstance(parcel, Exception):
                raise parcel
        self._is_over = parcel is None
        return parcel

    def _listen(self, arrived: "queue.Queue[Parcel | Exception | None]") -> None:
        parcel: Parcel | Exception | None
        while True:
            try:
                # Whoever takes has a time limit; a rank that idles between two epochs has none.
                parcel = self._receive(timeout_s=1e6)
            except Exception as error:
                parcel = error
            arrived.put(parcel)
            if not isinstance(parcel, Parcel):
                return

    def _receive(self, timeout_s: float) -> Parcel | None:
        while True:
            if self._layout is None:
                layout = self._receive_layout(timeout_s)
                if layout is None:
                    return None
                self._layout = layout
                for _ in range(self.traffic.ahead):
                    self._post(layout)
            message = self._next(timeout_s)
            kind, batch, tensors = self._layout.unpack(message)
            if kind == Kind.BATCH:
                self._post(self._layout)
                return Parcel(batch, put_together(self._layout.spec, tensors))
            while self._posted:
                self._next(timeout_s)
            self._layout = None
            if kind == Kind.END:
                return None

    def _receive_layout(self, timeout_s: float) -> Layout | None:
        device = self.transport.device
        length = torch.empty(8, dtype=torch.uint8, device=device)
        self.transport.receive(length, self.source, self.lane).wait(timeout_s)
        size = int(length.view(torch.int64))
        if size == 0:
            return None
        body = torch.empty(size, dtype=torch.uint8, device=device)
        self.transport.receive(body, self.source, self.lane).wait(timeout_s)
        return Layout.from_bytes(body)

    def _post(self, layout: Layout) -> None:
        device = self.transport.device
        buffer = torch.empty(layout.size_bytes, dtype=torch.uint8, device=device)
        pending = self.transport.receive(buffer, self.source, self.lane)
        self._posted.append((pending, buffer))

    def _next(self, timeout_s: float) -> Tensor:
        pending, buffer = self._posted[0]
        pending.wait(timeout_s)
        self._posted.popleft()
        return buffer
