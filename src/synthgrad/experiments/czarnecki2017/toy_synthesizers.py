"""Synthesizers of the toy problems, written out: a prediction, and a step of its least-squares fit.

h [num, width] is the activation, y [num] the target that they are conditioned on; predictions are
per-example gradients [num, width]. All start at zero, so that the untrained ones give no signal,
but for "sigmoid", which cannot. The regression loss is |SG - g|², averaged over examples.
"""

from abc import ABC, abstractmethod
from typing import Literal, get_args

import numpy as np
from scipy.special import expit

from synthgrad.experiments.czarnecki2017.toy_data import Array

SignalName = Literal["backprop", "linear", "search", "sigmoid", "sigmoid-plus"]
SIGNAL_NAMES: tuple[SignalName, ...] = get_args(SignalName)


class ToySynthesizer(ABC):
    """Predicts a gradient from (h, y), and is fitted to the true one."""

    @abstractmethod
    def predict(self, h: Array, y: Array) -> Array:
        """Return per-example gradients; what `fit` needs is kept."""

    @abstractmethod
    def fit(self, target: Array) -> None:
        """Take one step towards per-example gradients, for the batch of the last prediction."""


class Linear(ToySynthesizer):
    """SG(h, y) = h A + y B + c.

    Args:
        width: of h.
        rate: of gradient descent; None chooses it at every step by exact line search: with r the
            residual SG - g and q the change of the prediction along the gradient, <r, q> / <q, q>.
    """

    def __init__(self, width: int, rate: float | None) -> None:
        self.weights = np.zeros((width, width + 2))
        self.rate = rate

    def predict(self, h: Array, y: Array) -> Array:
        """Return h A + y B + c."""
        self._features = _features(h, y)
        self._prediction = self._features @ self.weights.T
        return self._prediction

    def fit(self, target: Array) -> None:
        """Take one step of gradient descent, of the fixed or the best length."""
        residual = self._prediction - target
        gradient = (2 / len(residual)) * (residual.T @ self._features)
        rate = self.rate
        if rate is None:
            change = self._features @ gradient.T
            length = np.vdot(change, change)
            rate = np.vdot(residual, change) / length if length > 0 else 0.0
        self.weights -= rate * gradient


class Sigmoid(ToySynthesizer):
    """SG(h, y) = sigmoid(h A + y B + c): never below zero."""

    def __init__(self, width: int, rate: float) -> None:
        self.weights = np.zeros((width, width + 2))
        self.rate = rate

    def predict(self, h: Array, y: Array) -> Array:
        """Return sigmoid(h A + y B + c)."""
        self._features = _features(h, y)
        self._prediction = expit(self._features @ self.weights.T)
        return self._prediction

    def fit(self, target: Array) -> None:
        """Take one step of gradient descent."""
        p = self._prediction
        inner = (2 / len(p)) * (p - target) * p * (1 - p)
        self.weights -= self.rate * (inner.T @ self._features)


class SigmoidPlus(ToySynthesizer):
    """SG(h, y) = s sigmoid(h A + a) + y B + c: it can be the gradient of the log loss exactly.

    Where h is the logit itself, A = 1, a = 0, s = 1, B = -1, c = 0 is sigmoid(h) - y.
    """

    def __init__(self, width: int, rate: float) -> None:
        self.inner = np.zeros((width, width + 1))
        self.scale = np.zeros(width)
        self.outer = np.zeros((width, 2))
        self.rate = rate

    def predict(self, h: Array, y: Array) -> Array:
        """Return s sigmoid(h A + a) + y B + c."""
        ones = np.ones((len(h), 1))
        self._h = np.hstack([h, ones])
        self._y = np.hstack([y[:, None], ones])
        self._bent = expit(self._h @ self.inner.T)
        self._prediction = self.scale * self._bent + self._y @ self.outer.T
        return self._prediction

    def fit(self, target: Array) -> None:
        """Take one step of gradient descent."""
        residual = (2 / len(target)) * (self._prediction - target)
        inner = residual * self.scale * self._bent * (1 - self._bent)
        scale = (residual * self._bent).sum(axis=0)
        self.inner -= self.rate * (inner.T @ self._h)
        self.scale -= self.rate * scale
        self.outer -= self.rate * (residual.T @ self._y)


def make_synthesizer(name: SignalName, width: int, rate: float) -> ToySynthesizer | None:
    """Return the synthesizer of a signal; None for backprop."""
    match name:
        case "backprop":
            return None
        case "linear":
            return Linear(width, rate)
        case "search":
            return Linear(width, None)
        case "sigmoid":
            return Sigmoid(width, rate)
        case "sigmoid-plus":
            return SigmoidPlus(width, rate)


def _features(h: Array, y: Array) -> Array:
    return np.hstack([h, y[:, None], np.ones((len(h), 1))])
