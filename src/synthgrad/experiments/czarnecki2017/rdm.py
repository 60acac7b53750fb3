"""Czarnecki et al. 2017, layer by layer: which layers tell classes apart, with whose gradient?

The same network is trained by backprop, with one synthetic gradient in its middle, and with one
after every layer. Representational dissimilarity matrices of held-out examples then show what each
layer has learned, early in training and at its end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

import synthgrad as sg
from synthgrad.bench.running.evaluation import evaluate
from synthgrad.bench.running.tasks import Task
from synthgrad.errors import ConfigError
from synthgrad.experiments.czarnecki2017.looks import Look, Training, by_class, looks
from synthgrad.experiments.czarnecki2017.packed import pack
from synthgrad.experiments.czarnecki2017.rdm_findings import LABELS, ArmName, find
from synthgrad.experiments.grid import Method
from synthgrad.experiments.networks import fcn, middle
from synthgrad.experiments.study import Study


@dataclass(frozen=True, kw_only=True)
class RdmConfig:
    """What can be chosen.

    Args:
        mnist: The network on MNIST.
        cifar10: The network on CIFAR-10, whose classes no network of this kind tells apart fully:
            there the number does not come to its ceiling.
        arms: What to compare.
        num_per_class: Held-out examples of each class, for the numbers.
        num_drawn: As many of them, of each class, are in the matrices that are kept.
        seeds: Each network takes the first of them.
        device: cpu, cuda, cuda:1, ...
        data_dir: Where to look for the data first.

    Raises:
        ConfigError: A value cannot work.
    """

    mnist: Training = field(default_factory=lambda: Training(stops=(100, 600)))
    cifar10: Training = field(
        default_factory=lambda: Training(dataset="cifar10", stops=(100, 1_200), batch_size=128)
    )
    arms: tuple[ArmName, ...] = tuple(LABELS)
    num_per_class: int = 20
    num_drawn: int = 5
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    device: str = "cpu"
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        if not 2 <= self.num_drawn <= self.num_per_class:
            raise ConfigError(
                f"num_drawn={self.num_drawn} must be 2 or more, and no more than "
                f"num_per_class={self.num_per_class}"
            )


PRESETS = {
    "smoke": RdmConfig(
        mnist=Training(depth=4, width=16, stops=(2, 6), num_seeds=1, batch_size=32),
        cifar10=Training(dataset="cifar10", num_seeds=0),
        num_per_class=4,
        num_drawn=2,
    ),
    "quick": RdmConfig(
        mnist=Training(stops=(50, 400)), cifar10=Training(dataset="cifar10", num_seeds=0)
    ),
    "full": RdmConfig(),
    # Deeper and for longer; which network the paper's figure shows is not known to us.
    "paper": RdmConfig(
        mnist=Training(depth=21, stops=(1_000, 200_000), num_seeds=5),
        cifar10=Training(dataset="cifar10", num_seeds=0),
        device="cuda",
    ),
}


def tasks(config: RdmConfig) -> Sequence[Task]:
    """Return a task for each network, method and seed."""
    return [
        Task(
            name=f"{case}/{method.name}-s{seed}",
            arm=method.name,
            label=method.label,
            seed=seed,
            measure=partial(measure, config, training, method, seed),
            options={"case": case, "below": _cut(training)},
        )
        for case, training in (("mnist", config.mnist), ("cifar10", config.cifar10))
        for seed in config.seeds[: training.num_seeds]
        for method in _methods(_cut(training))
        if method.name in config.arms
    ]


def measure(
    config: RdmConfig, training: Training, method: Method, seed: int
) -> Iterator[Mapping[str, Any]]:
    """Train one network, and yield at each stop what its layers tell apart.

    The matrices are yielded at the end, and of the least seed at every stop.
    """
    is_drawn = seed == min(config.seeds[: training.num_seeds])
    for look in looks(method, training, seed=seed, device=config.device, data_dir=config.data_dir):
        if look.iteration == training.stops[0]:
            yield {"event": "facts", "dataset": look.data.name}
        yield _look(config, look, with_matrices=is_drawn or look.is_last)
        if look.is_last:
            test = evaluate(look.learner.model, look.data.test)
            yield {"event": "tested", "test_accuracy": test.accuracy, "test_loss": test.loss}


def _look(config: RdmConfig, look: Look, *, with_matrices: bool) -> Mapping[str, Any]:
    model, data = look.learner.model, look.data
    inputs, labels = by_class(data.validation, config.num_per_class, data.num_classes)
    layers = [name for name, _ in model.named_children()]
    rdms = sg.diagnostics.rdm(model, inputs, at=layers)
    separation = {
        name: round(sg.diagnostics.class_separation(rdm, labels), 6) for name, rdm in rdms.items()
    }
    drawn = torch.cat(
        [(labels == label).nonzero().flatten()[: config.num_drawn] for label in labels.unique()]
    )
    kept = {name: pack(rdm[drawn][:, drawn]) for name, rdm in rdms.items()}
    return {
        "event": "layers",
        "iteration": look.iteration,
        "val_accuracy": evaluate(model, data.validation).accuracy,
        "separation": separation,
        **({"rdms": kept} if with_matrices else {}),
    }


def _cut(training: Training) -> str:
    """Return the layer that one interface in the middle stands on."""
    return middle(fcn((1,), 2, training.depth, 1))


def _methods(below: str) -> Sequence[Method]:
    return [
        Method(name="backprop", label=LABELS["backprop"], signal=None),
        Method(name="one-cdni", label=LABELS["one-cdni"], signal=_cdni, options={"at": [below]}),
        Method(name="cdni", label=LABELS["cdni"], signal=_cdni),
        Method(name="dni", label=LABELS["dni"], signal=sg.SyntheticGradient()),
    ]


def _cdni(num_classes: int) -> sg.ErrorSignal:
    return sg.SyntheticGradient(condition=sg.OneHot(num_classes))


EXPERIMENT = Study(
    name="czarnecki2017/rdm",
    title="What each layer tells apart: backprop and synthetic gradients, layer by layer",
    description=(
        "Representational dissimilarity matrices of networks trained by backprop, with one "
        "synthetic gradient in the middle, and with one after every layer."
    ),
    presets=PRESETS,
    arms=tuple(LABELS),
    tasks=tasks,
    findings=find,
)
