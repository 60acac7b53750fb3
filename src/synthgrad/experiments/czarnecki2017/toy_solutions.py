"""What linear models converge to: the loss's minimum, and where a linear SG comes to rest.

A deep linear model computes the same functions, so its end-to-end map has the same minimum.
"""

import numpy as np
from scipy.special import expit

from synthgrad.experiments.czarnecki2017.toy_data import Array, Loss, ToyData

_MAX_STEPS = 200


def mean_loss(loss: Loss, score: Array, y: Array) -> float:
    """Return the mean loss of scores [num]: (p - y)² / 2, or the log loss of a logit p."""
    if loss == "mse":
        return float(np.mean((score - y) ** 2) / 2)
    return float(np.mean(np.logaddexp(0.0, score) - y * score))


def error(loss: Loss, score: Array, y: Array) -> Array:
    """Return d loss / d score for each example: p - y, or sigmoid(p) - y."""
    return (score if loss == "mse" else expit(score)) - y


def is_separable(data: ToyData) -> bool:
    """Whether a plane divides the two classes, so that the log loss has no minimum.

    A linear program decides it: is there a w with <w, x> >= 1 on one class and <= -1 on the other?
    """
    from scipy.optimize import linprog  # late: scipy takes long to import

    if not np.all((data.y == 0) | (data.y == 1)):
        return False
    sides = (1 - 2 * data.y)[:, None] * data.x
    dim = data.x.shape[1]
    program = linprog(np.zeros(dim), A_ub=sides, b_ub=-np.ones(len(data.y)), bounds=(None, None))
    return program.status == 0


def minimum(loss: Loss, data: ToyData) -> Array | None:
    """Return the weights [dim + 1] of the smallest mean loss; None where there are none.

    Math: for the MSE the least-squares solution; for the log loss Newton's method, whose steps are
    halved until the loss falls, down to a gradient of rounding errors.
    """
    if loss == "mse":
        return _least_squares(data)
    return None if is_separable(data) else _logistic_regression(data)


def linear_sg_rest(data: ToyData) -> Array | None:
    """Return where a linear model with log loss and a linear synthesizer comes to rest, or None.

    Math: at rest the synthesizer SG = h A + y B + c is the least-squares fit of the gradient
    g = sigmoid(h) - y, and X'SG = 0. With A and B not zero that says that h = X w is an affine
    function a f + b of the least-squares fit f = X w_LS of y, and, because what is left of g is
    orthogonal to h and 1, that <sigmoid(a f + b) - y, f> = <sigmoid(a f + b) - y, 1> = 0: logistic
    regression of y on the one feature f. It is the minimum of the loss only where that lies in the
    direction of least squares.

    None where f separates the classes, so that there is no such point.
    """
    direction = _least_squares(data)
    fit = data.x @ direction
    single = ToyData(x=np.stack([fit, np.ones_like(fit)], axis=1), y=data.y)
    if is_separable(single):
        return None
    scale, shift = _logistic_regression(single)
    weights = scale * direction
    weights[-1] += shift
    return weights


def unconditioned_rest_curve(data: ToyData, num: int) -> Array:
    """Return points [num, 3] where a linear model with 2 inputs and MSE rests with SG = h A + c.

    Math: without y the best synthesizer is the fit of g = h - y to (h, 1). X'SG = 0 makes SG zero
    at all examples, which asks of g only <g, h> = <g, 1> = 0: two equations for three weights.
    Every direction u has its point, the multiple of u that fits y best: w = u <u, c> / <u, C u>,
    with C the inputs' covariance and c theirs with y. The minimum is one point of the curve.
    Beside it the network rests at w = 0 with the best bias, whatever A is; where A > 0 that
    attracts.
    """
    x, y = data.x[:, :-1], data.y
    centered, target = x - x.mean(axis=0), y - y.mean()
    angles = np.linspace(0, np.pi, num)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    fit = centered @ directions.T
    weights = directions * ((fit.T @ target) / (fit**2).sum(axis=0))[:, None]
    return np.hstack([weights, (y.mean() - weights @ x.mean(axis=0))[:, None]])


def _least_squares(data: ToyData) -> Array:
    return np.linalg.lstsq(data.x, data.y)[0].astype(np.float64)


def _logistic_regression(data: ToyData) -> Array:
    weights = np.zeros(data.x.shape[1])
    value = mean_loss("log", data.x @ weights, data.y)
    for _ in range(_MAX_STEPS):
        score = data.x @ weights
        gradient = data.x.T @ error("log", score, data.y)
        curvature = expit(score) * expit(-score)
        step = np.linalg.solve(data.x.T @ (curvature[:, None] * data.x), gradient)
        if np.linalg.norm(step) <= 1e-14 * np.linalg.norm(weights):
            return weights
        size = 1.0
        while size > 1e-6 and mean_loss("log", data.x @ (weights - size * step), data.y) > value:
            size /= 2
        if size <= 1e-6:  # no step is better than this place: it is as good as rounding allows
            return weights
        weights = weights - size * step
        value = mean_loss("log", data.x @ weights, data.y)
    return weights
