"""Who failed: the first cause is written down where every rank can read it, and told by all.

A rank that dies closes its connections, which its neighbors notice at once and the others when
those neighbors end. A rank that hangs is noticed by a timeout; several ranks may then time out
together, each waiting for the next, so they write down for whom they wait, and the one to blame
is the one at the end of that line which waits for nobody.
"""

import json
import time

import torch.distributed as dist

from synthgrad.errors import RankError

_CAUSE, _COUNT = "cause", "num causes"
# How long to look for what another rank has written before naming the neighbor.
_PATIENCE_S = 1.0
_PATIENCE_OF_ALL_S = 5 * _PATIENCE_S
_PAUSE_S = 0.02


class Faults:
    """The notes of one rank about failures.

    Args:
        store: that all ranks share.
        rank: this one.
    """

    def __init__(self, store: dist.Store, rank: int) -> None:
        self.store = store
        self.rank = rank
        self.told = False

    def report(self, message: str, *, culprit: int) -> str:
        """Write a cause down unless there is one already; return the one that counts."""
        self.told = True
        try:
            if self.store.add(_COUNT, 1) == 1:
                self.store.set(_CAUSE, json.dumps({"rank": culprit, "message": message}))
                return message
            return self._read(_PATIENCE_S) or message
        except RuntimeError:  # the store is gone with the rank that kept it
            return message

    def disconnected(self, other: int, doing: str) -> RankError:
        """Return the error for a connection that has closed."""
        message = f"rank {other} is gone: its connection closed while rank {self.rank} {doing}."
        return RankError(self._settled(message, other))

    def timed_out(self, other: int, doing: str, timeout_s: float) -> RankError:
        """Return the error for a rank that has sent nothing for too long."""
        culprit = self._end_of_line(other)
        message = (
            f"rank {culprit} hangs, or is slower than timeout_s={timeout_s:g} allows: "
            f"rank {self.rank} {doing} for that long."
        )
        return RankError(self._settled(message, culprit))

    def _settled(self, message: str, culprit: int) -> str:
        try:
            known = self._read(_PATIENCE_S)
            # One that has timed out closes its connections while it finds out whom to blame.
            if known is None and self.store.check([f"waits {culprit}"]):
                known = self._read(_PATIENCE_OF_ALL_S)
        except RuntimeError:
            known = None
        return known or self.report(message, culprit=culprit)

    def _read(self, patience_s: float) -> str | None:
        if not self._appears(_CAUSE, patience_s):
            return None
        return json.loads(self.store.get(_CAUSE))["message"]

    def _end_of_line(self, other: int) -> int:
        """Follow who waits for whom; the one that does not say so is to blame."""
        try:
            self.store.set(f"waits {self.rank}", str(other))
            seen = {self.rank}
            while other not in seen and self._appears(f"waits {other}", _PATIENCE_S):
                seen.add(other)
                other = int(self.store.get(f"waits {other}"))
        except RuntimeError:
            pass
        return other

    def _appears(self, key: str, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while not self.store.check([key]):
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_S)
        return True
