"""Linear and deep linear models, trained by formulas with a synthetic gradient at one interface.

A model is a list of matrices, without biases; inputs have a constant 1. The interface stands on top
of the `cut` lowest of them. Because everything is linear, a layer's gradient needs no pass over the
examples: with R = d loss / d (product of a chain W_k ... W_1), dW_l = (W_k ... W_l+1)' R
(W_l-1 ... W_1)'. That the formulas are the library's is checked by `toy_library`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, cast

import numpy as np

from synthgrad.bench.seeds import derive_seed
from synthgrad.experiments.czarnecki2017.toy_data import Array, Loss, ToyData
from synthgrad.experiments.czarnecki2017.toy_solutions import error
from synthgrad.experiments.czarnecki2017.toy_synthesizers import ToySynthesizer


@dataclass(kw_only=True)
class ToyModel:
    """A linear model as a chain of matrices.

    Args:
        weights: from the input up, each [out, in].
        cut: so many of them are below the interface.
    """

    weights: list[Array]
    cut: int

    def map(self) -> Array:
        """Return the end-to-end weights [dim + 1]: what the model computes."""
        return product(self.weights)[0]


def make_model(dim: int, num_hidden: int, width: int, seed: int) -> ToyModel:
    """Return a linear model, which starts at zero, or a deep one with orthogonal layers.

    Args:
        dim: inputs without the constant.
        num_hidden: hidden layers; with none the interface stands on the output, else in the middle.
        width: of the hidden layers.
        seed: of the initial weights.
    """
    if num_hidden == 0:
        return ToyModel(weights=[np.zeros((1, dim + 1))], cut=1)
    random = np.random.default_rng(derive_seed(seed, "toy weights"))
    sizes = [dim + 1, *[width] * num_hidden, 1]
    weights = [_orthogonal(random, n, m) for m, n in pairwise(sizes)]
    return ToyModel(weights=weights, cut=(num_hidden + 1) // 2)


def product(chain: Sequence[Array]) -> Array:
    """Return W_k ... W_1 of a chain from the input up."""
    return reduce(lambda below, w: w @ below, chain)


def chain_gradients(chain: Sequence[Array], end: Array) -> list[Array]:
    """Return the gradient of each matrix of a chain from that of their product, `end`."""
    gradients = list[Array]()
    above = end  # (W_k ... W_l+1)' R, from the top down
    below = [chain[0]]
    for w in chain[1:-1]:
        below.append(w @ below[-1])
    for level in range(len(chain) - 1, 0, -1):
        gradients.append(above @ below[level - 1].T)
        above = chain[level].T @ above
    gradients.append(above)
    return gradients[::-1]


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Proposition 2's condition at one moment.

    Args:
        error: epsilon = |SG - dL/dh|, over all examples.
        jacobian: K = |dh/dtheta|, the largest singular value, over all examples.
        gradient: |dL/dtheta| of the parameters below the interface.
        update_error: |(dh/dtheta)' (SG - dL/dh)|, what is wrong with their update.
    """

    error: float
    jacobian: float
    gradient: float
    update_error: float

    @property
    def ratio(self) -> float:
        """Epsilon K / |dL/dtheta|: below 1 where the condition holds for some delta in (0, 1).

        epsilon K <= |dL/dtheta| (1 - delta) / (1 + delta), and the last factor takes every value
        in (0, 1).
        """
        return self.error * self.jacobian / self.gradient if self.gradient > 0 else np.inf

    @property
    def relative_error(self) -> float:
        """Error of the update over the gradient; never above the ratio."""
        return self.update_error / self.gradient if self.gradient > 0 else np.inf


def triangle(x: Array) -> Array:
    """Return a matrix of fewer rows than x with the same singular values, also of its products."""
    return cast(Array, np.linalg.qr(x, mode="r"))


def track(
    model: ToyModel, synthesizer: ToySynthesizer, data: ToyData, loss: Loss, short: Array
) -> Tracking:
    """Measure the condition on all of the data; `short` is the triangle of their inputs."""
    below, true = _true_gradient(model, data, loss)
    h = data.x @ product(below).T
    wrong = (synthesizer.predict(h, data.y) - true) / len(h)
    return Tracking(
        error=float(np.linalg.norm(wrong)),
        jacobian=jacobian_norm(below, short),
        gradient=_norm(chain_gradients(below, true.T @ data.x / len(h))),
        update_error=_norm(chain_gradients(below, wrong.T @ data.x)),
    )


def jacobian_norm(chain: Sequence[Array], x: Array) -> float:
    """Return the largest singular value of d h / d theta, for h = x (W_k ... W_1)' [num, out].

    Args:
        chain: the matrices, from the input up.
        x: inputs, or their triangle, with which it is quicker.
    """
    out = chain[-1].shape[0]
    from scipy.sparse.linalg import LinearOperator, svds  # late: scipy takes long to import

    sizes = [w.size for w in chain]
    parts = np.cumsum(sizes)[:-1]
    below = [np.eye(x.shape[1]), *(product(chain[:level]) for level in range(1, len(chain)))]
    above = [*(product(chain[level:]) for level in range(1, len(chain))), np.eye(out)]

    def forward(change: Array) -> Array:
        """Change of h for a change of all matrices."""
        changes = np.split(change.ravel(), parts)
        total = sum(
            a @ c.reshape(w.shape) @ b
            for a, c, w, b in zip(above, changes, chain, below, strict=True)
        )
        return (x @ np.transpose(total)).ravel()

    def backward(signal: Array) -> Array:
        """Gradients of all matrices for a signal at h."""
        end = signal.reshape(-1, out).T @ x
        return np.concatenate([g.ravel() for g in chain_gradients(chain, end)])

    shape = (x.shape[0] * out, sum(sizes))
    # The types of scipy's functions are narrower than what they take.
    operator = cast(Any, LinearOperator)(shape, matvec=forward, rmatvec=backward, dtype=np.float64)
    start = np.random.default_rng(0).normal(size=min(shape))
    return float(
        cast(Any, svds)(operator, k=1, v0=start, return_singular_vectors=False, tol=1e-6)[0]
    )


def train(
    model: ToyModel,
    synthesizer: ToySynthesizer | None,
    data: ToyData,
    loss: Loss,
    *,
    iterations: int,
    rate: float,
    batch_size: int | None,
    seed: int,
    look: Callable[[int], Any],
    look_at: Collection[int] = (),
) -> bool:
    """Train by gradient descent, below the interface with the signal; change the model in place.

    As in the library's loop, the signal is the prediction made before this iteration's fit, and all
    updates of an iteration are made at once.

    Args:
        model: to be trained.
        synthesizer: None for backprop.
        data: all examples.
        loss: at the top.
        iterations: so many updates.
        rate: of the model. With batches it falls linearly to zero.
        batch_size: examples of a batch, drawn with replacement; None for all of the data.
        seed: of the batches.
        look: called with the number of updates done.
        look_at: when, beside the beginning and the end.

    Returns:
        Whether the weights stayed finite; it stops where they do not.
    """
    random = np.random.default_rng(derive_seed(seed, "toy batches"))
    weights, cut = model.weights, model.cut
    batch, now = data, rate
    # A signal may drive the weights to infinity, which is found and said.
    with np.errstate(over="ignore", invalid="ignore"):
        for iteration in range(iterations):
            if iteration == 0 or iteration in look_at:
                if not np.isfinite(model.map()).all():
                    return False
                look(iteration)
            if batch_size is not None:
                chosen = random.integers(len(data.y), size=batch_size)
                batch = ToyData(x=data.x[chosen], y=data.y[chosen])
                now = rate * (1 - iteration / iterations)
            gradients = _gradients(weights, cut, synthesizer, batch, loss)
            for w, gradient in zip(weights, gradients, strict=True):
                w -= now * gradient
        if not np.isfinite(model.map()).all():
            return False
        look(iterations)
    return True


def _gradients(
    weights: Sequence[Array],
    cut: int,
    synthesizer: ToySynthesizer | None,
    batch: ToyData,
    loss: Loss,
) -> list[Array]:
    """Return what each matrix is updated with, and fit the synthesizer."""
    num = len(batch.y)
    h = batch.x @ product(weights[:cut]).T
    top = product(weights[cut:]) if weights[cut:] else np.ones((1, 1))
    wrong = error(loss, h @ top[0], batch.y)
    true = wrong[:, None] * top
    signal = true
    if synthesizer is not None:
        signal = synthesizer.predict(h, batch.y)
        synthesizer.fit(true)
    gradients = chain_gradients(weights[:cut], signal.T @ batch.x / num)
    if weights[cut:]:
        gradients += chain_gradients(weights[cut:], wrong[None] @ h / num)
    return gradients


def _true_gradient(model: ToyModel, data: ToyData, loss: Loss) -> tuple[list[Array], Array]:
    """Return the matrices below the interface, and dL/dh of each example [num, width]."""
    above = model.weights[model.cut :]
    top = product(above) if above else np.ones((1, 1))
    return model.weights[: model.cut], error(loss, data.x @ model.map(), data.y)[:, None] * top


def _norm(parts: Sequence[Array]) -> float:
    return float(np.sqrt(sum(np.vdot(part, part) for part in parts)))


def _orthogonal(random: np.random.Generator, rows: int, columns: int) -> Array:
    """Return a matrix [rows, columns] whose shorter side is orthonormal."""
    tall = np.linalg.qr(random.normal(size=(max(rows, columns), min(rows, columns))))[0]
    return tall if rows >= columns else tall.T
