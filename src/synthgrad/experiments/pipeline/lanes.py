"""Several methods over one transport: each has lanes of its own, so that none reads another's."""

import torch.distributed as dist
from torch import Tensor

from synthgrad.engines.pipeline import Pending, Transport
from synthgrad.engines.pipeline.wire.transport import Around

_WIDTH = 16  # lanes of one method


class OwnLanes(Around):
    """A transport seen through lanes that nobody else has.

    Args:
        transport: the real one.
        number: of this view, from 0.
    """

    def __init__(self, transport: Transport, number: int) -> None:
        super().__init__(transport)
        self._first = (number + 1) * _WIDTH
        self.store = dist.PrefixStore(f"lanes{self._first}", transport.store)

    def send(self, message: Tensor, to: int, lane: int) -> Pending:
        """Begin to send."""
        return self._transport.send(message, to, self._first + lane)

    def receive(self, buffer: Tensor, source: int, lane: int) -> Pending:
        """Post a buffer."""
        return self._transport.receive(buffer, source, self._first + lane)
