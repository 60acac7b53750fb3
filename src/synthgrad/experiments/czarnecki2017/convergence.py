"""Czarnecki et al. 2017, the toy study: does a linear model with SG reach backprop's solution?

Linear and deep linear models on four artificial data sets in 2 and in 100 dimensions, with the MSE
and the log loss. Because every model is linear end to end, all are compared by their end-to-end
weights with the exact minimum of the loss: least squares, or Newton's method. The paper trained 1M
iterations with batches of 100; all presets but that use all examples in every iteration, so that
nothing but the signal keeps a model from the minimum.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from typing import Any, Literal, get_args

import numpy as np

from synthgrad.bench.running.tasks import Task
from synthgrad.errors import ConfigError
from synthgrad.experiments.czarnecki2017.convergence_findings import find
from synthgrad.experiments.czarnecki2017.toy_data import (
    DATA_NAMES,
    Array,
    DataName,
    Loss,
    make_data,
)
from synthgrad.experiments.czarnecki2017.toy_library import train_with_library
from synthgrad.experiments.czarnecki2017.toy_solutions import linear_sg_rest, mean_loss, minimum
from synthgrad.experiments.czarnecki2017.toy_synthesizers import (
    Linear,
    SignalName,
    make_synthesizer,
)
from synthgrad.experiments.czarnecki2017.toy_training import (
    make_model,
    track,
    train,
    triangle,
)
from synthgrad.experiments.study import Study

ModelName = Literal["linear-mse", "linear-log", "deep-mse", "deep-log"]
LABELS: dict[ModelName, str] = {
    "linear-mse": "linear, MSE",
    "linear-log": "linear, log loss",
    "deep-mse": "deep linear, MSE",
    "deep-log": "deep linear, log loss",
}
SIGNALS: dict[Loss, tuple[SignalName, ...]] = {
    "mse": ("backprop", "linear", "search"),
    "log": ("backprop", "linear", "search", "sigmoid", "sigmoid-plus"),
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How one kind of model is trained.

    Args:
        iterations: Updates of a run.
        rate: Learning rate of the model; Theorem 1 wants it small.
        synthesizer_rate: Learning rate of synthesizers without line search.

    Raises:
        ConfigError: A value cannot work.
    """

    iterations: int
    rate: float
    synthesizer_rate: float

    def __post_init__(self) -> None:
        """Check the values."""
        if self.iterations < 1 or not self.rate > 0 or not self.synthesizer_rate > 0:
            raise ConfigError(f"{self}: iterations must be 1 or more, and rates above 0")


@dataclass(frozen=True, kw_only=True)
class ConvergenceConfig:
    """The convergence study.

    Args:
        models: Which kinds of model.
        data_sets: Which data sets.
        dims: Inputs of the data sets.
        num_examples: Examples for each of these dimensions.
        num_hidden: Hidden layers of deep models; the interface stands after half of them.
        width: Of the hidden layers.
        linear_mse: How linear models with MSE are trained.
        linear_log: Linear models with log loss.
        deep_mse: Deep linear models with MSE.
        deep_log: Deep linear models with log loss.
        batch_size: Examples of a batch, and rates that fall linearly to zero; None for all
            examples and constant rates.
        num_looks: Measurements during a run, evenly spaced in the logarithm of the iterations.
        library_iterations: So many iterations are also done by the library, for comparison.
        seeds: Of data sets and initial weights.

    Raises:
        ConfigError: Values do not fit together.
    """

    models: tuple[ModelName, ...] = get_args(ModelName)
    data_sets: tuple[DataName, ...] = DATA_NAMES
    dims: tuple[int, ...] = (2, 100)
    num_examples: tuple[int, ...] = (200, 500)
    num_hidden: int = 10
    width: int = 10
    linear_mse: Schedule = field(
        default_factory=lambda: Schedule(iterations=8000, rate=0.1, synthesizer_rate=0.3)
    )
    linear_log: Schedule = field(
        default_factory=lambda: Schedule(iterations=20_000, rate=0.4, synthesizer_rate=0.3)
    )
    deep_mse: Schedule = field(
        default_factory=lambda: Schedule(iterations=4000, rate=0.02, synthesizer_rate=0.1)
    )
    deep_log: Schedule = field(
        default_factory=lambda: Schedule(iterations=4000, rate=0.04, synthesizer_rate=0.1)
    )
    batch_size: int | None = None
    num_looks: int = 40
    library_iterations: int = 50
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        if len(self.dims) != len(self.num_examples) or min(self.dims, default=0) < 2:
            raise ConfigError(
                f"dims={self.dims} must be 2 or more each, and num_examples={self.num_examples} "
                "must have one number for each of them"
            )
        if self.num_hidden < 1 or self.width < 1 or self.num_looks < 1:
            raise ConfigError(
                f"num_hidden={self.num_hidden}, width={self.width} and num_looks={self.num_looks} "
                "must be 1 or more"
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size} must be 1 or more, or None for all")

    def schedule(self, model: ModelName) -> Schedule:
        """Return how a kind of model is trained."""
        return {
            "linear-mse": self.linear_mse,
            "linear-log": self.linear_log,
            "deep-mse": self.deep_mse,
            "deep-log": self.deep_log,
        }[model]


_TINY = Schedule(iterations=300, rate=0.2, synthesizer_rate=0.3)
_TINY_DEEP = Schedule(iterations=150, rate=0.03, synthesizer_rate=0.1)
_PAPER = Schedule(iterations=1_000_000, rate=0.1, synthesizer_rate=0.1)
_PAPER_DEEP = Schedule(iterations=1_000_000, rate=0.01, synthesizer_rate=0.03)

PRESETS = {
    "smoke": ConvergenceConfig(
        data_sets=("noisy", "teacher"),
        dims=(2,),
        num_examples=(100,),
        linear_mse=_TINY,
        linear_log=_TINY,
        deep_mse=_TINY_DEEP,
        deep_log=_TINY_DEEP,
        num_looks=20,
        library_iterations=10,
        seeds=(0,),
    ),
    "quick": ConvergenceConfig(dims=(2,), num_examples=(200,), seeds=(0,)),
    "full": ConvergenceConfig(),
    "paper": ConvergenceConfig(
        num_examples=(1000, 10_000),
        linear_mse=_PAPER,
        linear_log=_PAPER,
        deep_mse=_PAPER_DEEP,
        deep_log=_PAPER_DEEP,
        batch_size=100,
        num_looks=80,
    ),
}


def make_tasks(config: ConvergenceConfig) -> list[Task]:
    """Return a task for each model, data set, dimension and seed; it trains with every signal."""
    cases = product(
        config.models,
        zip(config.dims, config.num_examples, strict=True),
        config.data_sets,
        config.seeds,
    )
    return [
        Task(
            name=f"{model}/{name}-{dim}d-s{seed}",
            arm=model,
            label=LABELS[model],
            seed=seed,
            options={"data_set": name, "dim": dim, "case_schedule": asdict(config.schedule(model))},
            measure=partial(measure, config, model, name, dim, num, seed),
        )
        for model, (dim, num), name, seed in cases
    ]


def measure(
    config: ConvergenceConfig, model: ModelName, name: DataName, dim: int, num: int, seed: int
) -> Iterator[Mapping[str, Any]]:
    """Train one kind of model on one data set with every signal; yield what was measured."""
    loss: Loss = "mse" if model.endswith("mse") else "log"
    schedule = config.schedule(model)
    data = make_data(name, dim=dim, num=num, loss=loss, seed=seed)
    best = minimum(loss, data)
    rest = linear_sg_rest(data) if loss == "log" else None
    yield {
        "event": "problem",
        "has_minimum": best is not None,
        "minimal_loss": None if best is None else mean_loss(loss, data.x @ best, data.y),
        "rest_to_minimum": _distance(rest, best),
    }
    make = partial(make_model, dim, config.num_hidden if "deep" in model else 0, config.width, seed)
    yield _compare_with_library(make, data, loss, schedule, config.library_iterations)
    spaced = np.geomspace(1, schedule.iterations, config.num_looks)
    look_at = frozenset(int(iteration) for iteration in spaced.round())
    short = triangle(data.x)
    for signal in SIGNALS[loss]:
        net = make()
        out = net.weights[net.cut - 1].shape[0]
        synthesizer = make_synthesizer(signal, out, schedule.synthesizer_rate)
        looks = list[dict[str, float | None]]()

        def look(
            iteration: int,
            net: Any = net,
            synthesizer: Any = synthesizer,
            looks: list[dict[str, float | None]] = looks,
        ) -> None:
            weights = net.map()
            tracked = None if synthesizer is None else track(net, synthesizer, data, loss, short)
            looks.append(
                {
                    "iteration": iteration,
                    "loss": mean_loss(loss, data.x @ weights, data.y),
                    "distance": _distance(weights, best),
                    "to_rest": _distance(weights, rest),
                    "ratio": tracked.ratio if tracked else None,
                    "relative_error": tracked.relative_error if tracked else None,
                }
            )

        finite = train(
            net,
            synthesizer,
            data,
            loss,
            iterations=schedule.iterations,
            rate=schedule.rate,
            batch_size=config.batch_size,
            seed=seed,
            look=look,
            look_at=look_at,
        )
        columns = {key: [one[key] for one in looks] for key in looks[0]}
        yield {"event": "trained", "signal": signal, "finite": finite, **columns}


def _compare_with_library(
    make: Any, data: Any, loss: Loss, schedule: Schedule, iterations: int
) -> Mapping[str, Any]:
    """Return the largest difference between weights trained by formulas and by the library."""
    net = make()
    theirs = train_with_library(
        net,
        data,
        loss,
        iterations=iterations,
        rate=schedule.rate,
        synthesizer_rate=schedule.synthesizer_rate,
    )
    out = net.weights[net.cut - 1].shape[0]
    train(
        net,
        Linear(out, schedule.synthesizer_rate),
        data,
        loss,
        iterations=iterations,
        rate=schedule.rate,
        batch_size=None,
        seed=0,
        look=lambda _: None,
    )
    largest = max(float(np.abs(w).max()) for w in net.weights)
    pairs = zip(net.weights, theirs, strict=True)
    difference = max(float(np.abs(ours - w).max()) for ours, w in pairs)
    return {"event": "library", "iterations": iterations, "difference": difference / largest}


def _distance(weights: Array | None, best: Array | None) -> float | None:
    """Return |weights - best| / |best|; None where one of them does not exist."""
    if weights is None or best is None:
        return None
    return float(np.linalg.norm(weights - best) / np.linalg.norm(best))


EXPERIMENT = Study(
    name="czarnecki2017/convergence",
    title="Do linear models with synthetic gradients reach backprop's solution?",
    description=(
        "Linear and deep linear models, MSE and log loss, four artificial data sets: the distance "
        "to the exact minimum, and whether Proposition 2's condition is met."
    ),
    presets=PRESETS,
    arms=tuple(LABELS),
    tasks=make_tasks,
    findings=find,
)
