"""What can be chosen in all experiments of the pipeline."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from synthgrad.errors import ConfigError
from synthgrad.experiments.pipeline.methods import (
    BY_TORCH,
    NAMES,
    NUM_MICROBATCHES,
    ONE_F_ONE_B,
    Name,
    Setting,
)
from synthgrad.experiments.pipeline.workload import Workload

HEADLINE: tuple[Name, ...] = (
    "backprop",
    "backprop-2",
    "ddp",
    *ONE_F_ONE_B,
    "cdni",
    "cdni-low-rank",
)


@dataclass(frozen=True, kw_only=True)
class LineConfig:
    """What can be chosen.

    Args:
        ranks: Processes on this machine, one stage each.
        methods: Which are timed.
        rounds: Blocks of each of the methods that the headline compares, in turn.
        every: Rounds from one block of any other method to the next; odd, so that both directions
            of the turn come.
        steps: Batches in a block.
        delayed: Methods that are timed with and without a delay of every message.
        delay_ms: That delay.
        delayed_rounds: Blocks of each of them, with and without; 0 for no such measurement.
        slow_rounds: Blocks with one rank at half speed; 0 for no such measurement.
        repeats: Of the measurement of single stages; from 8 on also of torch's runtime.
        batch_size: Examples in a batch, of all ranks together.
        max_in_flight: Batches that may be under way at an interface.
        target_delay: Batches between an emission and the fit to its target, in ordered mode.
        late_fit: How the engine fits to a late target.
        learning_rate: Of the optimizer, for stages and synthesizers.
        seeds: Of weights and batches; timing takes the first.
        data_dir: Where to look for the data first.

    Raises:
        ConfigError: A value cannot work.
    """

    ranks: int = 2
    methods: tuple[Name, ...] = tuple(name for name in NAMES if name != "cdni-low-rank")
    rounds: int = 200
    every: int = 5
    steps: int = 3
    delayed: tuple[Name, ...] = ("1f1b-2", "1f1b-4", "1f1b-8", "ddg", "stashing", "cdni")
    delay_ms: float = 20.0
    delayed_rounds: int = 40
    slow_rounds: int = 40
    repeats: int = 30
    batch_size: int = 256
    max_in_flight: int = 4
    target_delay: int = 3
    late_fit: Literal["stored", "again"] = "again"
    learning_rate: float = 1e-3
    seeds: tuple[int, ...] = (0,)
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        if self.ranks < 2:
            raise ConfigError(f"ranks={self.ranks} must be 2 or more: a line has two ends")
        if min(self.rounds, self.steps, self.repeats) < 1 or self.every < 1 or self.every % 2 == 0:
            raise ConfigError(
                f"rounds={self.rounds}, steps={self.steps} and repeats={self.repeats} must be 1 or "
                f"more, and every={self.every} odd"
            )
        if min(self.delayed_rounds, self.slow_rounds) < 0 or not self.delay_ms >= 0:
            raise ConfigError(
                f"delayed_rounds={self.delayed_rounds}, slow_rounds={self.slow_rounds} and "
                f"delay_ms={self.delay_ms} must be 0 or more"
            )
        if missing := {"backprop", "cdni"} - {*self.methods}:
            raise ConfigError(f"methods={self.methods} lacks {', '.join(sorted(missing))}")
        parts = [NUM_MICROBATCHES[m] for m in (*self.methods, *self.delayed) if m in BY_TORCH]
        if "ddp" in self.methods:
            parts.append(self.ranks)
        if not self.seeds or any(self.batch_size % n for n in parts):
            raise ConfigError(
                f"batch_size={self.batch_size} must be cut into {sorted({*parts})} equal parts, "
                f"and seeds={self.seeds} name one or more"
            )

    def workload(self, seed: int) -> Workload:
        """Return what is timed."""
        raise NotImplementedError(f"{type(self).__name__} has no workload")

    def setting(self, workload: Workload) -> Setting:
        """Return how methods are made."""
        return Setting(
            workload=workload,
            max_in_flight=self.max_in_flight,
            target_delay=self.target_delay,
            late_fit=self.late_fit,
        )
