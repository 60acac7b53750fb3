"""Czarnecki et al. 2017, the loss that a synthesizer implies beside the true one.

A synthetic gradient is a field over the activations; integrated, it is a loss that the stages below
descend. How far around an activation does it resemble the loss that they should descend?
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

import synthgrad as sg
from synthgrad.bench.running.evaluation import evaluate
from synthgrad.bench.running.tasks import Task
from synthgrad.errors import ConfigError
from synthgrad.experiments.czarnecki2017.looks import Look, Training, by_class, looks
from synthgrad.experiments.czarnecki2017.loss_surface_findings import LABELS, ArmName, find
from synthgrad.experiments.czarnecki2017.surface_numbers import compare_surfaces
from synthgrad.experiments.grid import Method
from synthgrad.experiments.networks import fcn, middle
from synthgrad.experiments.study import Study


@dataclass(frozen=True, kw_only=True)
class LossSurfaceConfig:
    """What can be chosen.

    Args:
        training: The network, with one cDNI in its middle.
        arms: The synthesizers.
        synthesizer_width: Units of the MLP synthesizer's hidden layer.
        radii: How far to go from the activations, in lengths of all of them together.
        num_points: Points of a surface in each direction; odd.
        num_per_class: Held-out examples of each class.
        seeds: The first of them are taken.
        device: cpu, cuda, cuda:1, ...
        data_dir: Where to look for the data first.

    Raises:
        ConfigError: A value cannot work.
    """

    training: Training = field(default_factory=lambda: Training(stops=(100, 2_000)))
    arms: tuple[ArmName, ...] = tuple(LABELS)
    synthesizer_width: int = 256
    radii: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    num_points: int = 15
    num_per_class: int = 10
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    device: str = "cpu"
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        if len(self.radii) < 2 or sorted(set(self.radii)) != list(self.radii):
            raise ConfigError(f"radii={self.radii} are two or more, the smallest first")
        if self.num_points < 3 or self.num_points % 2 == 0:
            raise ConfigError(
                f"num_points={self.num_points} must be odd and 3 or more: one of them is the middle"
            )


PRESETS = {
    "smoke": LossSurfaceConfig(
        training=Training(depth=4, width=16, stops=(2, 6), num_seeds=1, batch_size=32),
        synthesizer_width=8,
        radii=(0.1, 1.0),
        num_points=5,
        num_per_class=2,
    ),
    "quick": LossSurfaceConfig(
        training=Training(stops=(100, 600), num_seeds=3), num_points=9, num_per_class=5
    ),
    "full": LossSurfaceConfig(),
    # Deeper and for longer; which network the paper's figure shows is not known to us.
    "paper": LossSurfaceConfig(
        training=Training(depth=21, stops=(1_000, 200_000), num_seeds=5),
        num_points=31,
        device="cuda",
    ),
}


def tasks(config: LossSurfaceConfig) -> Sequence[Task]:
    """Return a task for each synthesizer and seed."""
    return [
        Task(
            name=f"{method.name}-s{seed}",
            arm=method.name,
            label=method.label,
            seed=seed,
            measure=partial(measure, config, method, seed),
        )
        for seed in config.seeds[: config.training.num_seeds]
        for method in _methods(config)
        if method.name in config.arms
    ]


def measure(config: LossSurfaceConfig, method: Method, seed: int) -> Iterator[Mapping[str, Any]]:
    """Train one network, and yield at each stop how its surfaces compare.

    The first seed's surfaces of the smallest and the largest radius are yielded as they are.
    """
    training = config.training
    for look in looks(method, training, seed=seed, device=config.device, data_dir=config.data_dir):
        net = look.learner.decoupled
        assert net is not None  # both methods cut the network
        if look.iteration == training.stops[0]:
            yield {"event": "facts", "dataset": look.data.name}
        net.eval()
        yield from _look(config, look, keep=seed == config.seeds[0])
        net.train()
        if look.is_last:
            test = evaluate(look.learner.model, look.data.test)
            yield {"event": "tested", "test_accuracy": test.accuracy, "test_loss": test.loss}


def _look(config: LossSurfaceConfig, look: Look, *, keep: bool) -> Iterator[Mapping[str, Any]]:
    net, data = look.learner.decoupled, look.data
    assert net is not None
    inputs, labels = by_class(data.validation, config.num_per_class, data.num_classes)
    (name,) = (interface.name for interface in net.ordered_interfaces())

    def loss(output: Tensor) -> Tensor:
        return look.learner.loss(output, labels)

    measures = sg.diagnostics.alignment(net, inputs, loss, condition=labels)[name]
    yield {
        "event": "center",
        "iteration": look.iteration,
        "val_accuracy": evaluate(look.learner.model, data.validation).accuracy,
        **{key: float(value) for key, value in measures.items()},
    }
    for radius in config.radii:
        found = sg.diagnostics.implied_loss(
            net,
            name,
            inputs,
            loss,
            condition=labels,
            directions="gradients",
            radius=radius,
            num_points=config.num_points,
        )
        kept = keep and radius in (config.radii[0], config.radii[-1])
        grids = {
            "a": found.a.tolist(),
            "b": found.b.tolist(),
            "true": _shortened(found.true),
            "implied": _shortened(found.implied),
        }
        yield {
            "event": "surface",
            "iteration": look.iteration,
            "radius": radius,
            **asdict(compare_surfaces(found)),
            **(grids if kept else {}),
        }


def _shortened(grid: Tensor) -> list[list[float]]:
    return [[float(f"{value:.6g}") for value in row] for row in grid.tolist()]


def _methods(config: LossSurfaceConfig) -> Sequence[Method]:
    at = {"at": [middle(fcn((1,), 2, config.training.depth, 1))]}
    hidden = partial(sg.synthesizers.mlp, hidden=(config.synthesizer_width,))
    return [
        Method(name="linear", label=LABELS["linear"], signal=partial(_cdni, "linear"), options=at),
        Method(name="mlp", label=LABELS["mlp"], signal=partial(_cdni, hidden), options=at),
    ]


def _cdni(synthesizer: str | sg.synthesizers.Builder, num_classes: int) -> sg.ErrorSignal:
    return sg.SyntheticGradient(synthesizer=synthesizer, condition=sg.OneHot(num_classes))


EXPERIMENT = Study(
    name="czarnecki2017/loss-surface",
    title="The loss that a synthesizer implies, beside the true one",
    description=(
        "Around the activations in the middle of a network on MNIST: the true loss, and the "
        "integral of the synthetic gradient, of a linear and of an MLP synthesizer."
    ),
    presets=PRESETS,
    arms=tuple(LABELS),
    tasks=tasks,
    findings=find,
)
