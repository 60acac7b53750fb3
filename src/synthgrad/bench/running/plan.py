"""How every run of an experiment is trained and looked at; the same for all of its arms."""

from dataclasses import dataclass

from synthgrad.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The fixed points of a run, chosen before it starts.

    Args:
        iterations: length of the run, in batches.
        batch_size: examples in a batch.
        snapshot_every: iterations between two evaluations; there is one at 0 and one at the end
            besides.
        decay_at: iterations after which the learning rate is divided by `decay_by`.
        decay_by: that divisor.
        num_train_examples: size of the fixed training subset whose loss and accuracy a snapshot
            reports.
        num_probe_examples: size of the fixed batch on which alignment is measured.
        warmup_steps: iterations on dummy data before the run.
        checkpoint_every_s: least seconds between two checkpoints, which are taken at snapshots.

    Raises:
        ConfigError: a value cannot work.
    """

    iterations: int
    batch_size: int
    snapshot_every: int
    decay_at: tuple[int, ...] = ()
    decay_by: float = 10.0
    num_train_examples: int = 2_500
    num_probe_examples: int = 1_000
    warmup_steps: int = 3
    checkpoint_every_s: float = 10.0

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("iterations", "batch_size", "snapshot_every", "num_train_examples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be 1 or more")
        if self.num_probe_examples < 2 or self.warmup_steps < 1:
            raise ConfigError(
                f"num_probe_examples={self.num_probe_examples} must be 2 or more and "
                f"warmup_steps={self.warmup_steps} 1 or more"
            )
        if not self.decay_by > 0:
            raise ConfigError(f"decay_by={self.decay_by} must be above 0")

    @property
    def snapshots(self) -> tuple[int, ...]:
        """The iterations at which a run is evaluated."""
        regular = range(0, self.iterations, self.snapshot_every)
        return (*regular, self.iterations)

    def stops(self, after: int) -> tuple[int, ...]:
        """Return the iterations behind `after` where the training loop comes up for air."""
        points = {*self.snapshots, *self.decay_at}
        return tuple(sorted(point for point in points if after < point <= self.iterations))

    def rate_factor(self, iteration: int) -> float:
        """Return what the base learning rate is multiplied with after so many iterations."""
        return self.decay_by ** -sum(point <= iteration for point in self.decay_at)
