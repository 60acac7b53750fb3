"""The limit where it is exact: below a linear top that is stationary, a linear M has nothing left.

Math: the top is softmax(V'x), x = (h, 1), and its parameters V [features + 1, classes] are
stationary on the examples if E[x (p - y)'] = 0, with p its probabilities and y the labels as
one-hot vectors. With W the rows of V that belong to h, the true gradient is delta = W (p - y). The
least squares problem of a linear synthesizer, min over A of E|A'x - delta|^2, has the solution

    A = E[x x']^+ E[x delta'] = E[x x']^+ E[x (p - y)'] W' = 0.

So a linear synthesizer can hand down what a linear top has not yet learned, and nothing else. With
the labels c among its inputs the last factor is E[(x, c) (p - y)'], whose lower part is not zero.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from synthgrad.metrics import norm


@dataclass(frozen=True, kw_only=True)
class Look:
    """A linear top during its training.

    Attributes:
        step: of Newton's method.
        top_gradient: |dL/dV|, which is zero for a stationary top.
        predicted: |A'x| / |delta| of the best linear predictor, with an intercept.
        predicted_with_labels: the same with the labels among its inputs.
    """

    step: int
    top_gradient: float
    predicted: float
    predicted_with_labels: float


def train_linear_top(h: Tensor, labels: Tensor, *, num_classes: int, steps: int) -> Iterator[Look]:
    """Train a linear top on fixed activations by Newton's method, and look at every step.

    Draws the first weights from torch's global generator: with zeros there would be no gradient.

    Args:
        h: [examples, features], float64; the classes must overlap, or there is no minimum.
        labels: [examples].
        num_classes: of the top.
        steps: Newton steps.

    Yields:
        What there is to see before the first step, and after each.
    """
    x = torch.cat([h, h.new_ones(len(h), 1)], 1)
    y = F.one_hot(labels, num_classes).to(h.dtype)
    weights = torch.randn(x.shape[1], num_classes, dtype=h.dtype) / x.shape[1] ** 0.5
    for step in range(steps + 1):
        probabilities = (x @ weights).softmax(1)
        gradient = x.T @ (probabilities - y) / len(x)
        delta = (probabilities - y) @ weights[:-1].T
        yield Look(
            step=step,
            top_gradient=norm(gradient).item(),
            predicted=_share(x, delta),
            predicted_with_labels=_share(torch.cat([x, y[:, 1:]], 1), delta),
        )
        weights = _newton_step(weights, x, y, probabilities, gradient)


def _share(inputs: Tensor, delta: Tensor) -> float:
    """Return the norm of the best linear prediction over that of what it predicts."""
    solution = torch.linalg.lstsq(inputs, delta, driver="gelsd").solution
    return (norm(inputs @ solution) / norm(delta)).item()


def _newton_step(
    weights: Tensor, x: Tensor, y: Tensor, probabilities: Tensor, gradient: Tensor
) -> Tensor:
    curvature = probabilities.diag_embed() - probabilities[:, :, None] * probabilities[:, None]
    hessian = torch.einsum("bi,bcd,bj->icjd", x, curvature, x).reshape(weights.numel(), -1) / len(x)
    # A pseudo-inverse, because a constant added to all logits changes nothing.
    inverse = torch.linalg.pinv(hessian, rtol=1e-10, hermitian=True)
    step = (inverse @ gradient.flatten()).view_as(weights)
    before = F.cross_entropy(x @ weights, y)
    while F.cross_entropy(x @ (weights - step), y) > before and norm(step) > 1e-8:
        step = step / 2
    return weights - step
