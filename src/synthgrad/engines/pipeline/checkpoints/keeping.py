"""What a rank keeps outside: checkpoints in a folder, and all stages put together on every rank."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from synthgrad.engines.pipeline.checkpoints.learned import Learned
from synthgrad.engines.pipeline.place import Place
from synthgrad.engines.pipeline.wire.neighbors import SIDE_DOWN, SIDE_UP, Line
from synthgrad.errors import CheckpointError, ConfigError
from synthgrad.stage import Chain

if TYPE_CHECKING:
    from synthgrad.engines.pipeline.checkpoints.files import Saver

_NUMBERS = ("num_stages", "num_steps")


class Keeper:
    """Saves, loads and collects what one rank and its neighbors have learned.

    Args:
        learned: by this rank.
        place: of this rank.
        line: to its neighbors.
        store: that all ranks share.
        timeout_s: for what the ranks tell each other about a checkpoint.
    """

    def __init__(
        self, learned: Learned, place: Place, line: Line, store: dist.Store, timeout_s: float
    ) -> None:
        self.learned = learned
        self.place = place
        self.line = line
        self.store = store
        self._timeout_s = timeout_s
        self._saver: Saver | None = None
        self._num_loads = 0

    def save(self, folder: Path, num_steps: int, *, keep: int) -> None:
        """Copy the state, and begin to write it.

        Raises:
            CheckpointError: the checkpoint before could not be written.
        """
        if keep < 1:
            raise ConfigError(f"keep={keep} must be 1 or more.")
        numbers = (self.learned.stages.num_stages, num_steps)
        entries = {key: torch.tensor(n) for key, n in zip(_NUMBERS, numbers, strict=True)}
        if self._saver is None:
            from synthgrad.engines.pipeline.checkpoints import files  # late: it loads a solver

            self._saver = files.Saver(self._timeout_s)
        self._saver.begin(folder, num_steps, entries | self.learned.entries(), keep=keep)

    def wait(self) -> None:
        """Wait until it is written.

        Raises:
            CheckpointError: it could not be.
        """
        if self._saver:
            self._saver.wait()

    def close(self) -> None:
        """Wait for it, and let its thread go."""
        if self._saver:
            self._saver.close()

    def load(self, folder: Path) -> tuple[Path, dict[str, Any]] | None:
        """Return the latest checkpoint and the state in it; None if there is none.

        Raises:
            CheckpointError: it is damaged, or lacks something.
        """
        from synthgrad.engines.pipeline.checkpoints import files  # late, as in `save`

        self._num_loads += 1
        key = f"load {self._num_loads}"
        if self.place.rank == 0:  # all must take the same one
            latest = files.find_latest(folder)
            self.store.set(key, "" if latest is None else latest.name)
        name = self.store.get(key).decode()
        if not name:
            return None
        path = folder / name
        entries = files.read(path, lambda entry: entry in _NUMBERS or self.learned.is_own(entry))
        try:
            state: dict[str, Any] = {key: int(entries[key]) for key in _NUMBERS}
            state["stages"] = self.learned.from_entries(entries)
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint {path} does not suit this chain: {error} is missing in it."
            ) from error
        return path, state

    def collect(self, chain: Chain) -> None:
        """Put the stages that the other ranks have trained into the chain."""
        stages = self.place.stages
        own = {s: stage.state_dict() for s, stage in self.learned.stages.stages.items()}
        known = dict(own)
        if self.place.below is not None:
            known |= self.line.take(SIDE_UP, "stages", stages[0], -1).tree
        if self.place.above is not None:
            self.line.send(SIDE_UP, 0, known, stage=stages[-1])
            known = self.line.take(SIDE_DOWN, "stages", stages[-1], -1).tree
        if self.place.below is not None:
            self.line.send(SIDE_DOWN, 0, known, stage=stages[0])
        for s, stage in enumerate(chain):
            if s not in own:
                stage.load_state_dict(known[s])
