"""Is there a limit without labels, and is it where the synthesizers are?

Without labels the best synthesizer is E[delta | h]. As the top becomes calibrated on what h shows,
that should fade: what is left of delta is what h does not tell. Networks are frozen during their
training, and the best predictor of the true gradients that can be found offline, with and without
labels, is compared with the network's own synthesizer at that moment. `exact.py` has the case where
the limit can be proved, and the arm "exact" shows it.

No paper has this study, so the preset "paper" is only a longer one.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

import synthgrad as sg
from synthgrad.bench.running.learner import Learner
from synthgrad.bench.running.tasks import Task
from synthgrad.bench.seeds import derive_seed, generator
from synthgrad.data import Batches, Dataset
from synthgrad.errors import ConfigError, DivergedError
from synthgrad.experiments.grid import Method
from synthgrad.experiments.methods import cdni
from synthgrad.experiments.networks import fcn
from synthgrad.experiments.once import load_once
from synthgrad.experiments.study import Study
from synthgrad.experiments.unlabeled.exact import train_linear_top
from synthgrad.experiments.unlabeled.limit_findings import EXACT, find
from synthgrad.experiments.unlabeled.predictors import Parts, best_predictors
from synthgrad.experiments.unlabeled.probe import Place, Probe, probe
from synthgrad.metrics import norm, relative_error

MethodName = Literal["backprop", "dni", "dni-true-targets", "cdni"]
METHODS: dict[MethodName, Method] = {
    "backprop": Method(name="backprop", label="backprop", signal=None),
    "dni": Method(name="dni", label="DNI", signal=sg.SyntheticGradient(synthesizer="linear")),
    "dni-true-targets": Method(
        name="dni-true-targets",
        label="DNI, true targets",
        signal=sg.SyntheticGradient(synthesizer="linear", trace_decay=1.0),
    ),
    "cdni": Method(name="cdni", label="cDNI", signal=partial(cdni, "linear")),
}
EXACT_LABEL = "linear top, trained to its minimum"


@dataclass(frozen=True, kw_only=True)
class LimitConfig:
    """What can be chosen.

    Args:
        methods: Ways to train the networks that are looked at.
        depth: Layers, the last of them linear.
        width: Units of a hidden layer.
        looks_at: Updates after which the network is frozen and looked at; the last ends the run.
        batch_size: Examples in a batch.
        learning_rate: Of Adam, for stages and synthesizers alike.
        decay_at: Shares of the run after which the learning rate is divided by ten.
        num_examples: Training examples that it is looked at with: 3/4 of them to fit predictors,
            1/8 to choose and 1/8 to judge.
        hidden: Units of the MLP's hidden layers.
        epochs: Of the MLP.
        exact_examples: For the linear top.
        exact_features: Units of a fresh network's last hidden layer that it sees; few, for Newton's
            method.
        exact_steps: Of Newton's method.
        seeds: One run of each method for each.
        device: cpu, cuda, cuda:1, ...
        data_dir: Where to look for the data first.

    Raises:
        ConfigError: A value cannot work.
    """

    methods: tuple[MethodName, ...] = get_args(MethodName)
    depth: int = 4
    width: int = 256
    looks_at: tuple[int, ...] = (50, 300, 1_500)
    batch_size: int = 256
    learning_rate: float = 1e-3
    decay_at: tuple[float, ...] = (0.6, 0.8)
    num_examples: int = 12_288
    hidden: tuple[int, ...] = (384, 384)
    epochs: int = 3
    exact_examples: int = 2_000
    exact_features: int = 24
    exact_steps: int = 12
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        if list(self.looks_at) != sorted({*self.looks_at}) or min(self.looks_at, default=0) < 1:
            raise ConfigError(f"looks_at={self.looks_at} must rise, from 1 update or more")
        if self.num_examples < 8 or self.num_examples % self.batch_size:
            raise ConfigError(
                f"num_examples={self.num_examples} must be 8 or more, and so many whole batches "
                f"of {self.batch_size}"
            )
        if not self.hidden or self.epochs < 1:
            raise ConfigError(
                f"hidden={self.hidden} needs a layer, and epochs={self.epochs} must be 1 or more"
            )
        if not all(0 < share < 1 for share in self.decay_at) or not self.learning_rate > 0:
            raise ConfigError(
                f"decay_at={self.decay_at} holds shares of the run, between 0 and 1, and "
                f"learning_rate={self.learning_rate} must be above 0"
            )
        if (
            not 1 <= self.exact_features <= self.width
            or min(self.exact_examples, self.exact_steps) < 1
        ):
            raise ConfigError(
                f"exact_features={self.exact_features} must be from 1 to width={self.width}, "
                f"exact_examples={self.exact_examples} and exact_steps={self.exact_steps} 1 or more"
            )


PRESETS = {
    "smoke": LimitConfig(
        width=32,
        looks_at=(5, 20),
        batch_size=64,
        num_examples=512,
        hidden=(32,),
        exact_examples=300,
        exact_features=6,
        exact_steps=8,
        seeds=(0,),
    ),
    "quick": LimitConfig(looks_at=(50, 300), num_examples=8_192, seeds=(0,)),
    "full": LimitConfig(),
    "paper": LimitConfig(
        looks_at=(50, 300, 1_500, 5_000, 20_000),
        num_examples=53_760,
        hidden=(1_024, 1_024),
        epochs=10,
        seeds=(0, 1, 2, 3, 4),
    ),
}


def make_tasks(config: LimitConfig) -> list[Task]:
    """Return a task for each method and seed, and the exact case for each seed."""
    return [
        task
        for seed in config.seeds
        for task in (
            *(
                Task(
                    name=f"{name}-s{seed}",
                    arm=name,
                    label=METHODS[name].label,
                    seed=seed,
                    options={"signal": str(METHODS[name].signal)},
                    measure=partial(measure, config, name, seed),
                )
                for name in config.methods
            ),
            Task(
                name=f"{EXACT}-s{seed}",
                arm=EXACT,
                label=EXACT_LABEL,
                seed=seed,
                measure=partial(measure_exact, config, seed),
            ),
        )
    ]


def _learner(config: LimitConfig, method: Method, seed: int, data: Dataset) -> Learner:
    make_network = partial(fcn, depth=config.depth, width=config.width)
    return method.build(make_network, config.learning_rate, seed, data)


def measure(config: LimitConfig, name: MethodName, seed: int) -> Iterator[Mapping[str, Any]]:
    """Train a network; yield a "look" at each place, with the errors of all predictors."""
    data = load_once("mnist", config.data_dir, config.device)
    learner = _learner(config, METHODS[name], seed, data)
    batches = Batches(data.train, batch_size=config.batch_size, seed=derive_seed(seed, "batches"))
    index = _sample(config, seed, data, config.num_examples)
    decays = [round(share * config.looks_at[-1]) for share in config.decay_at]
    for update in range(1, config.looks_at[-1] + 1):
        loss = learner.step(*next(batches))
        learner.scale_learning_rates(0.1 ** sum(update >= at for at in decays))
        if update in config.looks_at:
            if not math.isfinite(loss):
                raise DivergedError(f"loss is {loss.item()} after {update} updates")
            seen = probe(learner, data.train, index, config.batch_size)
            yield {"event": "look", **look(seen, config), "updates": update}


def _sample(config: LimitConfig, seed: int, data: Dataset, num_examples: int) -> Tensor:
    order = torch.randperm(len(data.train), generator=generator(seed, "probe"))
    return order[:num_examples].to(config.device)


def look(seen: Probe, config: LimitConfig) -> dict[str, Any]:
    """Return what stands in the record of a network that was looked at."""
    code = F.one_hot(seen.labels, int(seen.logits.shape[1])).float()
    return {
        "loss": seen.loss,
        "accuracy_percent": seen.accuracy_percent,
        "calibration_error": seen.calibration_error,
        "interfaces": {name: _errors(place, code, config) for name, place in seen.places.items()},
    }


def _errors(place: Place, code: Tensor, config: LimitConfig) -> dict[str, float | None]:
    """Return the relative error of each predictor at one interface, on the same examples."""
    h, delta, own = place.activations, place.gradients, place.predictions
    found: dict[str, float | None] = {"gradient_norm": norm(delta).item() / len(delta) ** 0.5}
    for suffix, inputs in (("", h), ("_with_labels", torch.cat([h, code], 1))):
        best = best_predictors(inputs, delta, hidden=config.hidden, epochs=config.epochs)
        found |= {f"linear{suffix}": best.linear, f"best{suffix}": best.any}
    judged = Parts(num_examples=len(delta)).judge
    found["own"] = None if own is None else relative_error(own[judged], delta[judged]).item()
    return found


def measure_exact(config: LimitConfig, seed: int) -> Iterator[Mapping[str, Any]]:
    """Train a linear top on the activations of a fresh network; yield a "step" for each."""
    data = load_once("mnist", config.data_dir, config.device)
    learner = _learner(config, METHODS["backprop"], seed, data)
    index = _sample(config, seed, data, config.exact_examples)
    seen = probe(learner, data.train, index, len(index))
    h = [*seen.places.values()][-1].activations[:, : config.exact_features].double().cpu()
    for one in train_linear_top(
        h, seen.labels.cpu(), num_classes=data.num_classes, steps=config.exact_steps
    ):
        yield {"event": "step", **asdict(one)}


EXPERIMENT = Study(
    name="unlabeled/limit",
    title="Does E[delta | h] fade? The limit of synthetic gradients without labels",
    description=(
        "Frozen networks on MNIST: the best predictor of the true gradients, with and without "
        "labels, beside the network's own synthesizer and the top's calibration error."
    ),
    presets=PRESETS,
    arms=(*METHODS, EXACT),
    tasks=make_tasks,
    findings=find,
)
