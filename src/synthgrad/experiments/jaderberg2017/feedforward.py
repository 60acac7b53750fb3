"""Jaderberg et al. 2017, the table of feed-forward networks: depth, data and kind of network.

FCN-3 to FCN-6 and CNN-3 and CNN-4 on MNIST and CIFAR-10, each with no signal from above, with
backprop, with DNI and with cDNI. The paper trained 500,000 iterations at 3e-5; "gpu" has its sizes
and what one GPU does in minutes, the other presets are what two CPU cores can do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from synthgrad.bench.running.job import Job
from synthgrad.experiments.comparison import Comparison, Rates
from synthgrad.experiments.grid import SMOKE, Case, GridConfig, Method, make_jobs, network_case
from synthgrad.experiments.jaderberg2017.feedforward_findings import find
from synthgrad.experiments.methods import SIGNAL_LABELS, papers_signals, smallest
from synthgrad.experiments.networks import Kind
from synthgrad.synthesizers import Builder, mlp

ArmName = Literal["no-signal", "backprop", "dni", "cdni"]
LABELS: dict[ArmName, str] = {
    "no-signal": SIGNAL_LABELS["no-signal"],
    "backprop": "backprop",
    "dni": SIGNAL_LABELS["dni"],
    "cdni": SIGNAL_LABELS["cdni"],
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks of one kind on one data set.

    Args:
        depths: Layers of each network, the last of them linear, or residual blocks a stage; none
            leaves the family out.
        width: Units of a hidden layer, or filters of a convolution.
        iterations: Length of a run.
        num_seeds: So many of the seeds.
    """

    depths: tuple[int, ...]
    width: int
    iterations: int
    num_seeds: int


@dataclass(frozen=True, kw_only=True)
class FeedforwardConfig(GridConfig):
    """What can be chosen besides the options of every grid.

    Args:
        mnist_fcn: Fully connected networks on MNIST; 256 units in the paper.
        mnist_cnn: Convolutional networks on MNIST; 64 filters in the paper.
        cifar10_fcn: Fully connected networks on CIFAR-10; 1000 units in the paper.
        cifar10_cnn: Convolutional networks on CIFAR-10; 128 filters in the paper.
        cifar10_resnet: Residual networks on CIFAR-10, split at their stages; not in the paper. Its
            depths are residual blocks a stage: 3 is ResNet-20.
        arms: What to compare.
        synthesizers: low-rank (linear, through 32 numbers for feature maps), smallest (linear, or
            one convolution for feature maps), or paper: an MLP for DNI on features (two hidden
            layers of 1024 on MNIST, one of 4000 on CIFAR-10), two hidden layers of convolutions
            for feature maps.
    """

    mnist_fcn: Family = field(
        default_factory=lambda: Family(
            depths=(3, 4, 5, 6), width=256, iterations=4_300, num_seeds=5
        )
    )
    mnist_cnn: Family = field(
        default_factory=lambda: Family(depths=(3, 4), width=16, iterations=430, num_seeds=3)
    )
    cifar10_fcn: Family = field(
        default_factory=lambda: Family(depths=(3, 6), width=400, iterations=880, num_seeds=3)
    )
    cifar10_cnn: Family = field(
        default_factory=lambda: Family(depths=(3, 4), width=32, iterations=530, num_seeds=3)
    )
    cifar10_resnet: Family = field(
        default_factory=lambda: Family(depths=(1,), width=8, iterations=350, num_seeds=3)
    )
    arms: tuple[ArmName, ...] = tuple(LABELS)
    synthesizers: Literal["low-rank", "smallest", "paper"] = "low-rank"

    def families(self) -> dict[tuple[str, Kind], Family]:
        """Return the families by data set and kind of network."""
        return {
            ("mnist", "fcn"): self.mnist_fcn,
            ("mnist", "cnn"): self.mnist_cnn,
            ("cifar10", "fcn"): self.cifar10_fcn,
            ("cifar10", "cnn"): self.cifar10_cnn,
            ("cifar10", "resnet"): self.cifar10_resnet,
        }


# Hidden layers of DNI on features, with their batch norm and ReLU; that of CIFAR-10 is recalled.
_PAPERS_MLPS: dict[str, str | Builder] = {
    "mnist": "mlp",
    "cifar10": partial(mlp, hidden=(4000,)),
}
_NONE = Family(depths=(), width=1, iterations=1, num_seeds=1)

PRESETS = {
    "smoke": FeedforwardConfig(
        mnist_fcn=Family(depths=(3,), width=32, iterations=6, num_seeds=1),
        mnist_cnn=Family(depths=(3,), width=2, iterations=4, num_seeds=1),
        cifar10_fcn=_NONE,
        cifar10_cnn=_NONE,
        cifar10_resnet=_NONE,
        **SMOKE,
    ),
    "quick": FeedforwardConfig(
        mnist_fcn=Family(depths=(3, 4, 5, 6), width=256, iterations=430, num_seeds=1),
        mnist_cnn=Family(depths=(3, 4), width=16, iterations=100, num_seeds=1),
        cifar10_fcn=Family(depths=(3, 6), width=400, iterations=180, num_seeds=1),
        cifar10_cnn=Family(depths=(3,), width=16, iterations=180, num_seeds=1),
        cifar10_resnet=_NONE,
        num_snapshots=5,
        rounds=5,
    ),
    "full": FeedforwardConfig(),
    "gpu": FeedforwardConfig(
        mnist_fcn=_NONE,
        mnist_cnn=Family(depths=(3, 4), width=64, iterations=2_150, num_seeds=3),
        cifar10_fcn=Family(depths=(3, 6), width=1000, iterations=3_500, num_seeds=3),
        cifar10_cnn=Family(depths=(3, 4), width=128, iterations=17_500, num_seeds=3),
        cifar10_resnet=Family(depths=(1,), width=16, iterations=3_500, num_seeds=3),
        device="cuda",
    ),
    "paper": FeedforwardConfig(
        mnist_fcn=Family(depths=(3, 4, 5, 6), width=256, iterations=500_000, num_seeds=5),
        mnist_cnn=Family(depths=(3, 4), width=64, iterations=500_000, num_seeds=5),
        cifar10_fcn=Family(depths=(3, 4, 5, 6), width=1000, iterations=500_000, num_seeds=5),
        cifar10_cnn=Family(depths=(3, 4), width=128, iterations=500_000, num_seeds=5),
        cifar10_resnet=Family(depths=(3,), width=16, iterations=100_000, num_seeds=5),
        synthesizers="paper",
        learning_rate=3e-5,
        num_snapshots=200,
        device="cuda",
    ),
}


def jobs(config: FeedforwardConfig, preset: str, rates: Rates) -> Mapping[str, Job]:
    """Return what is run for each network, by case: "mnist-fcn3", ..."""
    cases = [
        _case(config, dataset, kind, depth, family)
        for (dataset, kind), family in config.families().items()
        for depth in family.depths
    ]
    return make_jobs(EXPERIMENT.name, preset, config, cases, rates)


def _case(config: FeedforwardConfig, dataset: str, kind: Kind, depth: int, family: Family) -> Case:
    return network_case(
        dataset,
        kind,
        depth,
        family.width,
        iterations=family.iterations,
        num_seeds=family.num_seeds,
        methods=[m for m in _methods(config, dataset, kind) if m.name in config.arms],
        synthesizers=config.synthesizers,
    )


def _methods(config: FeedforwardConfig, dataset: str, kind: Kind) -> Sequence[Method]:
    without_labels = with_labels = smallest(kind)
    if config.synthesizers == "low-rank" and kind != "fcn":
        without_labels = with_labels = "low-rank"
    if config.synthesizers == "paper":
        if kind == "fcn":
            without_labels = _PAPERS_MLPS[dataset]
        else:
            without_labels = with_labels = "conv"
    signals = papers_signals(dni=without_labels, with_labels=with_labels)
    return [
        Method(name=name, label=label, signal=None if name == "backprop" else signals[name])
        for name, label in LABELS.items()
    ]


EXPERIMENT = Comparison(
    name="jaderberg2017/feedforward",
    title="Depth, data and kind of network: the table of Jaderberg et al. 2017, measured again",
    description=(
        "FCNs of 3 to 6 layers and CNNs of 3 and 4 on MNIST and CIFAR-10: no signal, backprop, "
        "DNI, cDNI."
    ),
    presets=PRESETS,
    arms=tuple(LABELS),
    jobs=jobs,
    findings=find,
)
