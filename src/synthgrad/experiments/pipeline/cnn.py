"""The pipeline on a convolutional network, on CIFAR-10 where it is at hand."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Batches
from synthgrad.errors import ConfigError
from synthgrad.experiments.networks import cnn
from synthgrad.experiments.once import load_once
from synthgrad.experiments.pipeline.config import LineConfig
from synthgrad.experiments.pipeline.findings import Targets, finder
from synthgrad.experiments.pipeline.measuring import DELAYED, SLOW, THROUGHPUT, timing_tasks
from synthgrad.experiments.pipeline.workload import ADAM, Batch, Workload
from synthgrad.experiments.study import Study


@dataclass(frozen=True, kw_only=True)
class Cifar(Workload):
    """Blocks of convolution, batch norm, ReLU and pooling, and a linear layer."""

    depth: int
    filters: int
    data: str
    data_dir: Path | None = None

    @property
    def title(self) -> str:
        """Return its depth, its filters, and what the data call themselves."""
        name = load_once(self.data, self.data_dir).name
        return f"CNN of {self.depth} layers with {self.filters} filters on {name}"

    def network(self, signal_in_time: bool = True) -> nn.Sequential:
        """Make `cnn`."""
        shape = load_once(self.data, self.data_dir).input_shape
        return cnn(shape, self.num_classes, self.depth, self.filters)

    def batches(self) -> Iterator[Batch]:
        """Return shuffled training examples."""
        data = load_once(self.data, self.data_dir)
        seed = derive_seed(self.seed, "batches")
        return Batches(data.train, batch_size=self.batch_size, seed=seed)


@dataclass(frozen=True, kw_only=True)
class CnnConfig(LineConfig):
    """What can be chosen.

    Args:
        depth: Layers, the last of them linear.
        filters: Channels of a convolution.
        data: Data set of images with ten classes.
        cut_at: Layers at which a new stage begins, one for each rank but the first.
    """

    depth: int = 4
    filters: int = 32
    data: str = "cifar10"
    cut_at: tuple[int, ...] = (1,)
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        super().__post_init__()
        if len(self.cut_at) != self.ranks - 1 or list(self.cut_at) != sorted({*self.cut_at}):
            raise ConfigError(
                f"cut_at={self.cut_at} must rise and name one layer for each of ranks={self.ranks} "
                "but the first"
            )

    def workload(self, seed: int) -> Cifar:
        """Return the network that is timed."""
        return Cifar(
            seed=seed,
            batch_size=self.batch_size,
            num_classes=10,
            # A synthesizer's loss is a sum over places, too steep for SGD at a stage's rate.
            optimizer=ADAM,
            learning_rate=self.learning_rate,
            synthesizer="low-rank",
            cut_at=self.cut_at,
            depth=self.depth,
            filters=self.filters,
            data=self.data,
            data_dir=self.data_dir,
        )


PRESETS = {
    "smoke": CnnConfig(
        methods=("backprop", "ddp", "1f1b-2", "cdni"),
        delayed=("1f1b-2", "cdni"),
        rounds=2,
        steps=2,
        delay_ms=2.0,
        delayed_rounds=2,
        slow_rounds=2,
        repeats=2,
        batch_size=8,
        filters=4,
        data="mnist",
    ),
    "quick": CnnConfig(rounds=20, delayed_rounds=10, slow_rounds=10),
    "full": CnnConfig(rounds=100, delayed=("1f1b-4", "cdni"), delayed_rounds=30, slow_rounds=30),
    "paper": CnnConfig(rounds=400, delayed_rounds=200, slow_rounds=200, filters=128),
}

EXPERIMENT = Study(
    name="pipeline/cnn",
    title="The pipeline engine on a convolutional network",
    description=(
        "The CNN for CIFAR-10 on two ranks, cut after its first block: cDNI against backprop, DDP, "
        "torch's schedules and late gradients, with and without a latency on every message."
    ),
    presets=PRESETS,
    arms=(THROUGHPUT, DELAYED, SLOW),
    tasks=timing_tasks,
    findings=finder(Targets()),
)
