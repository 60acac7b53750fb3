"""Several methods over one transport: each has lanes of its own, so that none reads another's."""

import torch
import torch.distributed as dist
from torch import Tensor

from synthgrad.engines.pipeline import Pending, Transport

_WIDTH = 16  # lanes of one method


class OwnLanes:
    """A transport seen through lanes that nobody else has.

    Args:
        transport: the real one.
        number: of this view, from 0.
    """

    def __init__(self, transport: Transport, number: int) -> None:
        self._transport = transport
        self._first = (number + 1) * _WIDTH

    @property
    def rank(self) -> int:
        """The number of this rank."""
        return self._transport.rank

    @property
    def num_ranks(self) -> int:
        """How many there are."""
        return self._transport.num_ranks

    @property
    def device(self) -> torch.device:
        """Where messages lie."""
        return self._transport.device

    @property
    def store(self) -> dist.Store:
        """A part of the real one."""
        return dist.PrefixStore(f"lanes{self._first}", self._transport.store)

    def send(self, message: Tensor, to: int, lane: int) -> Pending:
        """Begin to send."""
        return self._transport.send(message, to, self._first + lane)

    def receive(self, buffer: Tensor, source: int, lane: int) -> Pending:
        """Post a buffer."""
        return self._transport.receive(buffer, source, self._first + lane)
