"""The best prediction of a gradient that can be made of what an interface sees, offline.

Each is fitted on a first part of the examples, chosen on a second and judged on a third, so that
its error bounds that of the best predictor, E[delta | inputs], from above, without having seen the
examples that it is judged on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from synthgrad.metrics import relative_error

_PENALTIES = tuple(10.0**k for k in range(-6, 4))
_BATCH_SIZE = 256
_RATE = 2e-3


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Where the examples are divided: 3/4 to fit, 1/8 to choose, 1/8 to judge.

    Args:
        num_examples: all of them.
    """

    num_examples: int

    @property
    def fit(self) -> slice:
        """The examples that predictors are fitted on."""
        return slice(0, self.num_examples * 3 // 4)

    @property
    def choose(self) -> slice:
        """The examples on which a penalty or an epoch is chosen."""
        return slice(self.fit.stop, self.num_examples * 7 // 8)

    @property
    def judge(self) -> slice:
        """The examples of the error that is reported."""
        return slice(self.choose.stop, self.num_examples)


class Errors(NamedTuple):
    """Relative errors |M - delta| / |delta|; the smaller of two is chosen by the first field."""

    chosen_by: float
    judged: float


class Best(NamedTuple):
    """The relative errors of the best predictors, on the examples that judge."""

    linear: float
    any: float


def best_predictors(
    inputs: Tensor, gradients: Tensor, *, hidden: Sequence[int], epochs: int
) -> Best:
    """Return the errors of the best linear predictor, and of the better of it and an MLP.

    The first is ridge regression with an intercept, in float64, its penalty chosen out of a grid.
    The MLP has batch norm, starts at a prediction of zero and is trained by Adam with one cycle of
    its rate; its epoch is chosen. Draws from torch's global generator.

    Args:
        inputs: [examples, features].
        gradients: delta [examples, outputs].
        hidden: units of the MLP's hidden layers.
        epochs: passes over the examples that it is fitted on.
    """
    parts = Parts(num_examples=len(inputs))
    linear = _ridge(inputs.double(), gradients.double(), parts)
    size = gradients[parts.fit].square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    targets = gradients / size
    net = _mlp(inputs.shape[1], hidden, gradients.shape[1]).to(inputs.device)
    trained = _train(net, inputs[parts.fit], targets[parts.fit], epochs)
    mlp = min(_evaluate(net, inputs, targets, parts) for _ in trained)
    return Best(linear.judged, min(linear, mlp).judged)


def _ridge(x: Tensor, t: Tensor, parts: Parts) -> Errors:
    """Return the errors with the best penalty."""
    x_mean, t_mean = x[parts.fit].mean(0), t[parts.fit].mean(0)
    fitted = x[parts.fit] - x_mean
    values, basis = torch.linalg.eigh(fitted.T @ fitted)
    moments = basis.T @ (fitted.T @ (t[parts.fit] - t_mean))

    def errors(penalty: float) -> Errors:
        shrunk = values.clamp_min(0) + penalty * values.mean()
        weights = basis @ (moments / shrunk[:, None])

        def predict(part: slice) -> Tensor:
            return (x[part] - x_mean) @ weights + t_mean

        return _errors(predict, t, parts)

    return min(map(errors, _PENALTIES))


def _train(net: nn.Module, inputs: Tensor, targets: Tensor, epochs: int) -> Iterator[None]:
    """Train, and stop after each epoch for a look."""
    num_steps = max(1, len(inputs) // _BATCH_SIZE)
    optimizer = torch.optim.Adam(net.parameters(), lr=_RATE, fused=True)
    # One more than there are, since the schedule goes on once after the last of them too.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _RATE, total_steps=epochs * num_steps + 1
    )
    for _ in range(epochs):
        order = torch.randperm(len(inputs)).to(inputs.device)
        for batch in order[: num_steps * _BATCH_SIZE].chunk(num_steps):
            loss = (net(inputs[batch]) - targets[batch]).square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        yield


def _mlp(num_inputs: int, hidden: Sequence[int], num_outputs: int) -> nn.Sequential:
    layers = list[nn.Module]()
    for before, after in pairwise((num_inputs, *hidden)):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    last = nn.Linear(hidden[-1], num_outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


@torch.no_grad()
def _evaluate(net: nn.Module, inputs: Tensor, targets: Tensor, parts: Parts) -> Errors:
    def predict(part: slice) -> Tensor:
        return net(inputs[part])

    net.eval()
    errors = _errors(predict, targets, parts)
    net.train()
    return errors


def _errors(predict: Callable[[slice], Tensor], targets: Tensor, parts: Parts) -> Errors:
    chosen_by, judged = (
        relative_error(predict(part), targets[part]).item() for part in (parts.choose, parts.judge)
    )
    return Errors(chosen_by, judged)
