"""Czarnecki et al. 2017, Proposition 1: which points are stationary with SG, and which without?

On networks of a few weights the points where the network and its synthesizer both stand still are
found as roots of their updates, from many starts. Each is classified by the true gradient there and
by whether the dynamics attract; training runs show whether they end there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from synthgrad.bench.running.tasks import Task
from synthgrad.bench.seeds import generator
from synthgrad.errors import ConfigError
from synthgrad.experiments.czarnecki2017.critical_points_findings import find
from synthgrad.experiments.czarnecki2017.stationary import (
    Problem,
    descend,
    find_roots,
    growth_rates,
)
from synthgrad.experiments.czarnecki2017.toy_data import Loss, lopsided_data, make_data
from synthgrad.experiments.czarnecki2017.toy_solutions import (
    linear_sg_rest,
    minimum,
    unconditioned_rest_curve,
)
from synthgrad.experiments.study import Study

ProblemName = Literal["linear-mse", "linear-log", "unconditioned", "tanh-1", "tanh-2"]
LABELS: dict[ProblemName, str] = {
    "linear-mse": "linear model, MSE, SG(h, y)",
    "linear-log": "linear model, log loss, SG(h, y)",
    "unconditioned": "linear model, MSE, SG(h)",
    "tanh-1": "1 tanh unit above, MSE, SG(h, y)",
    "tanh-2": "2 tanh units above, MSE, SG(h, y)",
}

_ROOT = 1e-10  # a field below this is zero
_CURVE_POINTS = 60
_PATH_LOOKS = 200


@dataclass(frozen=True, kw_only=True)
class CriticalPointsConfig:
    """The search for stationary points.

    Args:
        problems: Which networks.
        num_examples: Examples, with two inputs.
        num_starts: Random starts of each search for roots.
        num_runs: Training runs, from other random starts; where they end is searched from, too.
        iterations: Length of a training run with tanh units.
        linear_iterations: Length of a training run of a linear model.
        rate: Learning rate of the network.
        synthesizer_rate: That of the synthesizer, over the network's.
        start_scale: Standard deviation of random weights.
        seeds: Of examples and starts.

    Raises:
        ConfigError: A value cannot work.
    """

    problems: tuple[ProblemName, ...] = tuple(LABELS)
    num_examples: int = 40
    num_starts: int = 16
    num_runs: int = 12
    iterations: int = 40_000
    linear_iterations: int = 5000
    rate: float = 0.05
    synthesizer_rate: float = 2.0
    start_scale: float = 1.0
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        """Check the values."""
        counts = (self.num_starts, self.num_runs, self.iterations, self.linear_iterations)
        if min(counts) < 1 or self.num_examples < 4:
            raise ConfigError(
                f"num_starts, num_runs, iterations and linear_iterations are {counts}: each must "
                f"be 1 or more; and num_examples={self.num_examples} must be 4 or more"
            )
        if min(self.rate, self.synthesizer_rate, self.start_scale) <= 0:
            raise ConfigError(
                f"rate={self.rate}, synthesizer_rate={self.synthesizer_rate} and "
                f"start_scale={self.start_scale} must be above 0"
            )


PRESETS = {
    "smoke": CriticalPointsConfig(
        num_starts=1,
        num_runs=1,
        iterations=300,
        linear_iterations=2000,
        seeds=(0,),
    ),
    "quick": CriticalPointsConfig(num_starts=10, num_runs=8, iterations=10_000, seeds=(0,)),
    "full": CriticalPointsConfig(),
    "paper": CriticalPointsConfig(
        num_starts=200,
        num_runs=100,
        iterations=400_000,
        linear_iterations=50_000,
        seeds=(0, 1, 2, 3, 4),
    ),
}


def make_problem(name: ProblemName, num_examples: int, seed: int) -> Problem:
    """Return a problem with its examples."""
    loss: Loss = "log" if name == "linear-log" else "mse"
    make = partial(make_data, dim=2, num=num_examples, loss=loss, seed=seed)
    match name:
        case "linear-mse" | "unconditioned":
            data, num_hidden = make("teacher"), 0
        case "linear-log":
            data, num_hidden = lopsided_data(num_examples, seed), 0
        case "tanh-1":
            data, num_hidden = make("noisy"), 1
        case "tanh-2":
            data, num_hidden = make("xor"), 2
    return Problem(data=data, loss=loss, num_hidden=num_hidden, conditioned=name != "unconditioned")


def make_tasks(config: CriticalPointsConfig) -> list[Task]:
    """Return a task for each problem and seed."""
    return [
        Task(
            name=f"{name}-s{seed}",
            arm=name,
            label=LABELS[name],
            seed=seed,
            measure=partial(measure, config, name, seed),
        )
        for name in config.problems
        for seed in config.seeds
    ]


def measure(
    config: CriticalPointsConfig, name: ProblemName, seed: int
) -> Iterator[Mapping[str, Any]]:
    """Search the rest points of one problem with and without SG, and train; yield all of it."""
    problem = make_problem(name, config.num_examples, seed)
    random = generator(seed, f"starts of {name}")
    draws = (config.num_starts + config.num_runs, problem.num_weights)
    weights = config.start_scale * torch.randn(draws, generator=random, dtype=torch.float64)
    starts, first = weights[: config.num_starts], weights[config.num_starts :]

    def field(state: Tensor) -> Tensor:
        return problem.update(state, config.synthesizer_rate)

    def descent(at: Tensor) -> Tensor:
        return -problem.gradient(at)

    yield {
        "event": "scale",
        "gradient": float(problem.gradient(weights).norm(dim=-1).median()),
        "rate": config.rate,
    }
    iterations = config.iterations if problem.num_hidden else config.linear_iterations
    go = partial(descend, rate=config.rate, iterations=iterations)
    silent = first.new_zeros(len(first), problem.size - problem.num_weights)
    ends = go(field, torch.cat([first, silent], dim=-1))
    plain = go(descent, first)
    yield _runs(problem, field, ends, plain)
    roots = find_roots(field, _finite(problem.fitted(starts), ends), tolerance=_ROOT)
    yield {"event": "sg", **_points(problem, field, roots)}
    minima = find_roots(descent, _finite(starts, plain), tolerance=_ROOT)
    yield {
        "event": "loss",
        "growth": [float(growth_rates(descent, at)[0]) for at in minima],
        **_points(problem, field, [problem.fitted(at) for at in minima]),
    }
    if not problem.num_hidden:
        yield _plane(name, problem, field, first, config)


def _finite(*states: Tensor) -> Tensor:
    together = torch.cat(states)
    return together[together.isfinite().all(-1)]


def _points(
    problem: Problem, field: Callable[[Tensor], Tensor], states: list[Tensor]
) -> Mapping[str, list[float] | list[int]]:
    """Return what is known of states: loss, gradient, the network's update, growth rates."""
    below = problem.num_weights
    rates = [growth_rates(field, state) for state in states]
    return {
        "mean_loss": [float(problem.mean_loss(state[:below])) for state in states],
        "gradient": [float(problem.gradient(state[:below]).norm()) for state in states],
        "update": [float(field(state)[:below].norm()) for state in states],
        "sg_growth": [float(growth[0]) for growth in rates],
    }


def _runs(
    problem: Problem, field: Callable[[Tensor], Tensor], ends: Tensor, plain: Tensor
) -> Mapping[str, Any]:
    """Return where training runs ended, and how far the rest point is that they tend to."""
    below = problem.num_weights
    to_rest = list[float | None]()
    rest_gradient = list[float | None]()
    for end in ends:
        found = find_roots(field, end[None], tolerance=_ROOT) if end.isfinite().all() else []
        moved = [float((root - end)[:below].norm() / end[:below].norm()) for root in found]
        to_rest += moved or [None]
        rest_gradient += [float(problem.gradient(root[:below]).norm()) for root in found] or [None]
    return {
        "event": "runs",
        "mean_loss": problem.mean_loss(ends[:, :below]).tolist(),
        "gradient": problem.gradient(ends[:, :below]).norm(dim=-1).tolist(),
        "to_rest": to_rest,
        "rest_gradient": rest_gradient,
        "backprop_loss": problem.mean_loss(plain).tolist(),
        "backprop_gradient": problem.gradient(plain).norm(dim=-1).tolist(),
    }


def _plane(
    name: ProblemName,
    problem: Problem,
    field: Callable[[Tensor], Tensor],
    first: Tensor,
    config: CriticalPointsConfig,
) -> Mapping[str, Any]:
    """Return paths in the plane of the two weights, and the points they should lead to."""
    iterations = config.linear_iterations
    keep = max(1, iterations // _PATH_LOOKS)
    few = first[:6]
    go = partial(descend, rate=config.rate, iterations=iterations, keep_every=keep)
    silent = few.new_zeros(len(few), problem.size - problem.num_weights)
    paths = {
        "sg": go(field, torch.cat([few, silent], dim=-1)),
        "backprop": go(lambda at: -problem.gradient(at), few),
    }
    best = minimum(problem.loss, problem.data)
    if name == "unconditioned":
        rest = unconditioned_rest_curve(problem.data, _CURVE_POINTS)[:, :2].T.tolist()
    else:
        point = best if name == "linear-mse" else linear_sg_rest(problem.data)
        rest = [[], []] if point is None else point[:2, None].tolist()
    return {
        "event": "plane",
        "minimum": None if best is None else best[:2].tolist(),
        "rest": rest,
        **{key: path[..., :2].permute(1, 2, 0).tolist() for key, path in paths.items()},
    }


EXPERIMENT = Study(
    name="czarnecki2017/critical-points",
    title="Points that are stationary with synthetic gradients and not for the loss",
    description=(
        "Networks of a few weights: every rest point of network and synthesizer, found by root "
        "finding and classified, and where training ends."
    ),
    presets=PRESETS,
    arms=tuple(LABELS),
    tasks=make_tasks,
    findings=find,
)
