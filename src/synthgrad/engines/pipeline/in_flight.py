"""What waits at the interface on top of a stage: fits whose target is still out.

A target is applied once and to its own batch, or it is an error; nothing else keeps these books.
"""

from collections import Counter

from torch import Tensor

from synthgrad.engines.late_fit import LateFit
from synthgrad.engines.pipeline.wire.lane import Parcel
from synthgrad.errors import EngineError
from synthgrad.interface import Interface

Targets = list[Tensor | None]


class InFlight:
    """The fits of one interface that wait for their target, oldest first."""

    def __init__(self, interface: Interface) -> None:
        self.interface = interface
        self.most = 0
        self.num_fits = 0
        self.staleness = Counter[int]()
        self._waiting = dict[int, LateFit | None]()
        self._early = dict[int, Parcel]()

    def __len__(self) -> int:
        """Return how many batches are under way."""
        return len(self._waiting)

    def emitted(self, batch: int, fit: LateFit | None) -> None:
        """Remember what the target of a batch will be needed for (None: for nothing)."""
        self._waiting[batch] = fit
        self.most = max(self.most, len(self._waiting))

    def arrived(self, batch: int, targets: Targets | None, *, now: int) -> LateFit | None:
        """Return the fit that a target makes possible; None where nothing is to be fitted.

        Args:
            batch: whose target it is.
            targets: None where the stage above was not updated.
            now: the latest batch that this stage has emitted a signal for.

        Raises:
            EngineError: no target of that batch is out.
        """
        if batch not in self._waiting:
            raise EngineError(
                f"a target of batch {batch} came to interface {self.interface.name}, where "
                f"batches {list(self._waiting)} wait: every rank must call step, flush and "
                "evaluate in the same order."
            )
        fit = self._waiting.pop(batch)
        self.staleness[now - batch] += 1
        self.num_fits += 1
        if fit is None or targets is None:
            return None
        fit.targets = targets
        return fit

    def came_early(self, parcel: Parcel) -> None:
        """Keep the target of a batch that this stage has not seen yet.

        That happens where the stage above runs on synthetic inputs and is ahead.
        """
        self._early[parcel.batch] = parcel

    def take_early(self, batch: int) -> list[Parcel]:
        """Return the target of a batch if it came early."""
        return [self._early.pop(batch)] if batch in self._early else []

    def clear_statistics(self) -> None:
        """Begin to count anew."""
        self.most, self.num_fits = len(self), 0
        self.staleness = Counter()
