"""How messages get from one rank to another: the contract, so that a wrapper can delay or break it.

A message or a buffer is a flat uint8 tensor on the CPU or the device of the transport. Between two
ranks and on one lane messages arrive in the order in which they were sent, each in the buffer that
was posted at its place in that order; sender and receiver agree on its size.
"""

from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

CPU = torch.device("cpu")


class Pending(Protocol):
    """A send or a receive under way."""

    def wait(self, timeout_s: float) -> None:
        """Return when the message has left (its tensor is free again), or has arrived.

        Raises:
            TimeoutError: it has not within that time.
            ConnectionError: the other rank is gone.
        """
        ...


class Transport(Protocol):
    """What the engine needs of a transport."""

    @property
    def rank(self) -> int:
        """The number of this rank."""
        ...

    @property
    def num_ranks(self) -> int:
        """How many there are."""
        ...

    @property
    def device(self) -> torch.device:
        """Where messages and buffers lie."""
        ...

    @property
    def store(self) -> dist.Store:
        """Texts that every rank can read: options compared at the start, who failed and why."""
        ...

    def send(self, message: Tensor, to: int, lane: int) -> Pending:
        """Begin to send; the message must stay as it is until that is done."""
        ...

    def receive(self, buffer: Tensor, source: int, lane: int) -> Pending:
        """Post a buffer for the next message that has none."""
        ...


class Around:
    """What transports around another one have in common: all but how they send.

    Args:
        transport: the real one.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.rank = transport.rank
        self.num_ranks = transport.num_ranks
        self.device = transport.device
        self.store = transport.store

    def receive(self, buffer: Tensor, source: int, lane: int) -> Pending:
        """Post a buffer."""
        return self._transport.receive(buffer, source, lane)


class DistributedTransport:
    """Messages by `torch.distributed`, point to point; made by `connect`.

    Args:
        store: that all ranks share.
        group: the ranks, a `ProcessGroup` or one of its backends; by default all that
            `init_process_group` joined.
    """

    def __init__(self, store: dist.Store, group: Any = None) -> None:
        group = dist.group.WORLD if group is None else group
        self.rank = group.rank()
        self.num_ranks = group.size()
        self.store = store
        self._group = group
        on_cuda = isinstance(group, dist.ProcessGroup) and dist.get_backend(group) == "nccl"
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_cuda else CPU

    def send(self, message: Tensor, to: int, lane: int) -> Pending:
        """Begin to send."""
        try:
            return _Work(self._group.send([message], to, lane))
        except RuntimeError as error:
            raise ConnectionError(str(error)) from error

    def receive(self, buffer: Tensor, source: int, lane: int) -> Pending:
        """Post a buffer."""
        try:
            return _Work(self._group.recv([buffer], source, lane))
        except RuntimeError as error:
            raise ConnectionError(str(error)) from error

    def __enter__(self) -> "DistributedTransport":
        return self

    def __exit__(self, *exception: object) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()


class _Work:
    def __init__(self, work: Any) -> None:
        self.work = work

    def wait(self, timeout_s: float) -> None:
        try:
            self.work.wait(timedelta(seconds=timeout_s))
        except RuntimeError as error:
            late = "imed out" in str(error)
            raise (TimeoutError if late else ConnectionError)(str(error)) from error
