"""Points where a network with a synthetic gradient comes to rest, on problems of a few numbers.

The state is one vector: the weights W [m, d + 1] below the interface, with a nonlinear stage above
v [m] and b, and the synthesizer Phi [m, k]. h = W x; the stage above is the loss itself, or
p = v tanh(h) + b. The synthesizer is linear in z = (h, y, 1), or in (h, 1) where it is not
conditioned: SG = Phi z. All updates are written out, for any number of states at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from synthgrad.experiments.czarnecki2017.toy_data import Array, Loss, ToyData

FAR = 100.0
"""Points with weights beyond this are at infinity, where saturated units have no gradient."""

_MAX_EVALUATIONS = 300


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A network of a few weights on a few examples.

    Args:
        data: the examples.
        loss: at the top.
        num_hidden: tanh units above the interface; 0 sets it on the output of a linear model.
        conditioned: whether the synthesizer sees y.
    """

    data: ToyData
    loss: Loss
    num_hidden: int
    conditioned: bool

    @property
    def width(self) -> int:
        """Size of h."""
        return max(1, self.num_hidden)

    @property
    def num_below(self) -> int:
        """Weights below the interface."""
        return self.width * self.data.x.shape[1]

    @property
    def num_weights(self) -> int:
        """Weights of the network."""
        return self.num_below + (self.num_hidden + 1 if self.num_hidden else 0)

    @property
    def num_features(self) -> int:
        """What the synthesizer sees of an example."""
        return self.width + 1 + self.conditioned

    @property
    def size(self) -> int:
        """Numbers in a state."""
        return self.num_weights + self.width * self.num_features

    def gradient(self, weights: Tensor) -> Tensor:
        """Return the gradient of the mean loss [..., num_weights] at weights of that shape."""
        parts = self._parts(weights)
        return self._join(weights, parts, parts.gradient)

    def update(self, state: Tensor, synthesizer_rate: float) -> Tensor:
        """Return minus what one step subtracts [..., size]: the field of the joint dynamics.

        Args:
            state: [..., size].
            synthesizer_rate: of the synthesizer, over that of the network.
        """
        weights, flat = state[..., : self.num_weights], state[..., self.num_weights :]
        phi = flat.unflatten(-1, (self.width, self.num_features))
        parts = self._parts(weights)
        signal = phi @ parts.features
        fit = (2 / len(self.data.y)) * (signal - parts.gradient) @ parts.features.mT
        down = self._join(weights, parts, signal)
        return -torch.cat([down, synthesizer_rate * fit.flatten(-2)], dim=-1)

    def fitted(self, weights: Tensor) -> Tensor:
        """Return the state [..., size] in which the synthesizer is the best for these weights."""
        parts = self._parts(weights)
        phi = torch.linalg.pinv(parts.features.mT) @ parts.gradient.mT
        return torch.cat([weights, phi.mT.flatten(-2)], dim=-1)

    def mean_loss(self, weights: Tensor) -> Tensor:
        """Return the mean loss [...] at weights [..., num_weights]."""
        score, y = self._parts(weights).score, torch.from_numpy(self.data.y)
        if self.loss == "mse":
            return (score - y).square().mean(-1) / 2
        return (torch.nn.functional.softplus(score) - y * score).mean(-1)

    def _parts(self, weights: Tensor) -> "_Parts":
        x, y = torch.from_numpy(self.data.x), torch.from_numpy(self.data.y)
        h = weights[..., : self.num_below].unflatten(-1, (self.width, x.shape[1])) @ x.T
        if self.num_hidden:
            v = weights[..., self.num_below : -1, None]
            units = torch.tanh(h)
            score = (v * units).sum(-2) + weights[..., -1:]
            slope = v * (1 - units.square())
        else:
            units, score, slope = h, h[..., 0, :], torch.ones_like(h)
        wrong = (score if self.loss == "mse" else torch.sigmoid(score)) - y
        row = torch.ones_like(h[..., :1, :])
        features = [h, y * row, row] if self.conditioned else [h, row]
        return _Parts(
            units=units,
            score=score,
            wrong=wrong,
            gradient=wrong[..., None, :] * slope,
            features=torch.cat(features, dim=-2),
        )

    def _join(self, weights: Tensor, parts: "_Parts", signal: Tensor) -> Tensor:
        """Return the update of all weights, with `signal` at the interface."""
        num = len(self.data.y)
        down = [(signal @ torch.from_numpy(self.data.x)).flatten(-2) / num]
        if self.num_hidden:
            down += [
                (parts.wrong[..., None, :] * parts.units).mean(-1),
                parts.wrong.mean(-1, keepdim=True),
            ]
        return torch.cat(down, dim=-1)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What one forward pass leaves: [..., width or features, num], or [..., num]."""

    units: Tensor
    score: Tensor
    wrong: Tensor
    gradient: Tensor
    features: Tensor


def find_roots(
    field: Callable[[Tensor], Tensor], starts: Tensor, *, tolerance: float
) -> list[Tensor]:
    """Return where a field [size] -> [size] is zero, searched for from each start [num, size].

    Math: Levenberg-Marquardt on the field, with its exact Jacobian. A search that ends where the
    field is not zero, or at infinity, gives nothing.

    Args:
        field: of one state.
        starts: states.
        tolerance: of the field's norm.
    """
    from scipy.optimize import least_squares  # late: scipy takes long to import

    jacobian = torch.func.jacrev(field)

    def value(at: Array) -> Array:
        return field(torch.from_numpy(at)).numpy()

    def slope(at: Array) -> Array:
        return jacobian(torch.from_numpy(at)).numpy()

    roots = list[Tensor]()
    for start in starts:
        found = least_squares(
            value,
            start.numpy(),
            cast(Any, slope),  # the type of scipy's function knows only names of methods
            method="lm",
            ftol=1e-15,
            xtol=1e-15,
            gtol=1e-15,
            max_nfev=_MAX_EVALUATIONS,
        )
        if np.linalg.norm(found.fun) <= tolerance and np.abs(found.x).max() < FAR:
            roots.append(torch.from_numpy(found.x))
    return roots


def growth_rates(field: Callable[[Tensor], Tensor], at: Tensor) -> Array:
    """Return the real parts of the eigenvalues of a field's Jacobian, largest first.

    A rest point attracts where all are negative; one that is zero belongs to a line of rest points.
    """
    jacobian = torch.func.jacrev(field)(at)
    return np.sort(torch.linalg.eigvals(jacobian).real.numpy())[::-1].copy()


def descend(
    field: Callable[[Tensor], Tensor],
    states: Tensor,
    *,
    rate: float,
    iterations: int,
    keep_every: int | None = None,
) -> Tensor:
    """Take steps of `rate` along a field from many states [num, size] at once.

    Returns:
        The last states [num, size]; with `keep_every` a path [looks, num, size].
    """
    path = [states]
    for iteration in range(1, iterations + 1):
        states = states + rate * field(states)
        if keep_every is not None and iteration % keep_every == 0:
            path.append(states)
    return states if keep_every is None else torch.stack(path)
