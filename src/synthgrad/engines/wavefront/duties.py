"""Who does what in a tick: which stages are updated, and which synthesizers predict and learn."""

from collections.abc import Sequence
from typing import NamedTuple

from synthgrad.stage import Chain
from synthgrad.updates import draw_updates


class Duty(NamedTuple):
    """What each stage does in one tick.

    Attributes:
        updated: a stage each, whether it is updated.
        fitted: a stage each, whether the synthesizer or head on top of it is.
        rows: the masks of `Masks`, in its order; None if every stage does everything.
    """

    updated: list[bool]
    fitted: list[bool]
    rows: list[list[bool]] | None


class Duties:
    """The duties in a chain, tick after tick.

    Args:
        chain: the stages.
        probabilities: a stage each, with which it is updated in a batch.
        seed: of those draws.
    """

    def __init__(self, chain: Chain, probabilities: Sequence[float], seed: int) -> None:
        interfaces = [stage.interface for stage in chain]
        self._interfaces = interfaces
        self._probabilities = probabilities
        self._seed = seed
        self._trained = [i is None or i.signal.trains_below for i in interfaces]
        self._predicts = [i is not None and i.signal.fits_target for i in interfaces]
        self._heads = [i is not None and i.signal.is_local for i in interfaces]
        self._learns = [p or h for p, h in zip(self._predicts, self._heads, strict=True)]
        self._never_skips = all(self._trained) and min(probabilities) >= 1
        self._counted = [
            (k, i) for k, i in enumerate(interfaces) if i is not None and self._predicts[k]
        ]
        self._was_ready = False

    def of(self, line: Sequence[int | None]) -> Duty:
        """Return what each stage does.

        Args:
            line: a stage each, the number of the batch that it works on.
        """
        count = len(line)
        if not self._was_ready:
            self._ready = [i is None or i.signal.is_ready(i.num_fits) for i in self._interfaces]
            self._was_ready = all(self._ready)
        if self._never_skips and self._was_ready and None not in line:
            return Duty([True] * count, self._learns, None)
        drawn = [
            (False,) * count
            if batch is None
            else draw_updates(self._probabilities, seed=self._seed, step=batch)
            for batch in line
        ]
        trained, predicts = self._trained, self._predicts
        updated = [drawn[i][i] and trained[i] for i in range(count)]
        # A synthesizer is fitted when the stage above is updated, a head with its own stage.
        above = [*updated[1:], False]
        fitted = [
            (predicts[i] and above[i]) or (self._heads[i] and updated[i]) for i in range(count)
        ]
        if all(updated) and fitted == self._learns and all(self._ready):
            return Duty(updated, fitted, None)
        predicted = [
            predicts[i] and (updated[i] or (drawn[i][i + 1] and trained[i + 1]))
            for i in range(count - 1)
        ]
        active = [batch is not None for batch in line]
        return Duty(updated, fitted, [active, updated, fitted, [*predicted, False], self._ready])

    def book(self, duty: Duty) -> None:
        """Count the fits of a tick that has been run."""
        for index, interface in self._counted:
            interface.num_fits += duty.fitted[index]

    def restart(self) -> None:
        """Look at the numbers of fits again: they have been loaded."""
        self._was_ready = False
