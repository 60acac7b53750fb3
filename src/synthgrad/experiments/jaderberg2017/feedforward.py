"""Jaderberg et al. 2017, the table of feed-forward networks: depth, data and kind of network.

FCN-3 to FCN-6 and CNN-3 and CNN-4 on MNIST and CIFAR-10, each with no signal from above, with
backprop, with DNI and with cDNI. The paper trained 500,000 iterations at 3e-5; the other presets
are what two CPU cores can do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from synthgrad.bench.running.arms import Arm
from synthgrad.bench.running.job import Job
from synthgrad.bench.running.learner import Learner
from synthgrad.data import Dataset
from synthgrad.errors import ConfigError
from synthgrad.experiments.comparison import Comparison, Rates
from synthgrad.experiments.jaderberg2017.feedforward_findings import find
from synthgrad.experiments.jaderberg2017.settings import TrainingConfig, make_job
from synthgrad.experiments.jaderberg2017.signals import make_signal
from synthgrad.experiments.networks import cnn, fcn
from synthgrad.experiments.training import make_learner

ArmName = Literal["no-signal", "backprop", "dni", "cdni"]
LABELS: dict[ArmName, str] = {
    "no-signal": "no bprop",
    "backprop": "backprop",
    "dni": "DNI",
    "cdni": "cDNI",
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks of one kind on one data set.

    Args:
        depths: Layers of each network, the last of them linear; none leaves the family out.
        width: Units of a hidden layer, or filters of a convolution.
        iterations: Length of a run.
        num_seeds: So many of the seeds.

    Raises:
        ConfigError: A value cannot work.
    """

    depths: tuple[int, ...]
    width: int
    iterations: int
    num_seeds: int

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        if self.num_seeds < 1:
            raise ConfigError(f"num_seeds={self.num_seeds} must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class FeedforwardConfig(TrainingConfig):
    """What can be chosen.

    Args:
        mnist_fcn: Fully connected networks on MNIST; 256 units in the paper.
        mnist_cnn: Convolutional networks on MNIST; 64 filters in the paper.
        cifar10_fcn: Fully connected networks on CIFAR-10; 1000 units in the paper.
        cifar10_cnn: Convolutional networks on CIFAR-10; 128 filters in the paper.
        arms: What to compare.
        dni_synthesizer: Of DNI without labels: auto (linear, or one convolution for feature maps),
            or mlp (two hidden layers of 1024, as in the paper for MNIST's FCNs).
        seeds: A family takes the first of them.

    Raises:
        ConfigError: A value cannot work.
    """

    mnist_fcn: Family = field(
        default_factory=lambda: Family(
            depths=(3, 4, 5, 6), width=256, iterations=4_300, num_seeds=5
        )
    )
    mnist_cnn: Family = field(
        default_factory=lambda: Family(depths=(3, 4), width=16, iterations=645, num_seeds=3)
    )
    cifar10_fcn: Family = field(
        default_factory=lambda: Family(depths=(3, 4, 5, 6), width=400, iterations=880, num_seeds=3)
    )
    cifar10_cnn: Family = field(
        default_factory=lambda: Family(depths=(3,), width=32, iterations=880, num_seeds=3)
    )
    arms: tuple[ArmName, ...] = tuple(LABELS)
    dni_synthesizer: Literal["auto", "mlp"] = "auto"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        super().__post_init__()
        if not any(family.depths for family in self.families().values()):
            raise ConfigError("every family has empty depths: there is no network to train")

    def families(self) -> dict[tuple[str, str], Family]:
        """Return the families by data set and kind of network."""
        return {
            ("mnist", "fcn"): self.mnist_fcn,
            ("mnist", "cnn"): self.mnist_cnn,
            ("cifar10", "fcn"): self.cifar10_fcn,
            ("cifar10", "cnn"): self.cifar10_cnn,
        }


_NONE = Family(depths=(), width=1, iterations=1, num_seeds=1)

PRESETS = {
    "smoke": FeedforwardConfig(
        mnist_fcn=Family(depths=(3,), width=32, iterations=6, num_seeds=1),
        mnist_cnn=Family(depths=(3,), width=2, iterations=4, num_seeds=1),
        cifar10_fcn=_NONE,
        cifar10_cnn=_NONE,
        batch_size=64,
        num_snapshots=1,
        threads=1,
        rounds=1,
        block_iterations=1,
    ),
    "quick": FeedforwardConfig(
        mnist_fcn=Family(depths=(3, 4, 5, 6), width=256, iterations=430, num_seeds=1),
        mnist_cnn=Family(depths=(3, 4), width=16, iterations=100, num_seeds=1),
        cifar10_fcn=Family(depths=(3, 6), width=400, iterations=180, num_seeds=1),
        cifar10_cnn=Family(depths=(3,), width=16, iterations=180, num_seeds=1),
        num_snapshots=5,
        rounds=5,
    ),
    "full": FeedforwardConfig(),
    "paper": FeedforwardConfig(
        mnist_fcn=Family(depths=(3, 4, 5, 6), width=256, iterations=500_000, num_seeds=5),
        mnist_cnn=Family(depths=(3, 4), width=64, iterations=500_000, num_seeds=5),
        cifar10_fcn=Family(depths=(3, 4, 5, 6), width=1000, iterations=500_000, num_seeds=5),
        cifar10_cnn=Family(depths=(3, 4), width=128, iterations=500_000, num_seeds=5),
        dni_synthesizer="mlp",
        learning_rate=3e-5,
        num_snapshots=200,
        device="cuda",
    ),
}


def make_jobs(config: FeedforwardConfig, preset: str, rates: Rates) -> Mapping[str, Job]:
    """Return what is run for each network, by case: "mnist-fcn3", ..."""
    return {
        f"{dataset}-{kind}{depth}": _job(config, preset, rates, dataset, kind, depth, family)
        for (dataset, kind), family in config.families().items()
        for depth in family.depths
    }


def _job(
    config: FeedforwardConfig,
    preset: str,
    rates: Rates,
    dataset: str,
    kind: str,
    depth: int,
    family: Family,
) -> Job:
    case = f"{dataset}-{kind}{depth}"
    arms = [
        Arm(
            name=name,
            label=LABELS[name],
            build=partial(_build, name, kind, depth, family.width, rate, config.dni_synthesizer),
            options={"learning_rate": rate},
        )
        for name in config.arms
        for rate in [rates.get(f"{case}/{name}", config.learning_rate)]
    ]
    return make_job(
        config,
        arms,
        experiment=EXPERIMENT.name,
        preset=preset,
        dataset=dataset,
        iterations=family.iterations,
        decided={
            "network": kind,
            "depth": depth,
            "width": family.width,
            "dni_synthesizer": config.dni_synthesizer,
        },
        num_seeds=family.num_seeds,
    )


def _build(
    name: ArmName,
    kind: str,
    depth: int,
    width: int,
    learning_rate: float,
    dni_synthesizer: Literal["auto", "mlp"],
    seed: int,
    data: Dataset,
) -> Learner:
    network = partial(fcn if kind == "fcn" else cnn, data.input_shape, data.num_classes)
    # The paper's synthesizer for FCNs is the MLP; for feature maps "auto" is convolutional.
    synthesizer = dni_synthesizer if kind == "fcn" else "auto"
    return make_learner(
        partial(network, depth, width),
        None
        if name == "backprop"
        else make_signal(name, data.num_classes, dni_synthesizer=synthesizer),
        seed=seed,
        data=data,
        learning_rate=learning_rate,
    )


EXPERIMENT = Comparison(
    name="jaderberg2017/feedforward",
    title="Depth, data and kind of network: the table of Jaderberg et al. 2017, measured again",
    description=(
        "FCNs of 3 to 6 layers and CNNs of 3 and 4 on MNIST and CIFAR-10: no signal, backprop, "
        "DNI, cDNI."
    ),
    presets=PRESETS,
    arms=tuple(LABELS),
    jobs=make_jobs,
    findings=find,
)
