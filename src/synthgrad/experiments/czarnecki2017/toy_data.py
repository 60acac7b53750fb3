"""Four artificial data sets, in any number of dimensions, each by one rule.

The paper's own four are not known to us beyond that they are artificial, in 2 and in 100
dimensions; these are ours. In all of them inputs are Gaussian, x ~ N(0, I), u is a random unit
vector, and s = <x, u>:

- separable: y = 1 where s > 0, else 0; inputs are moved away from the plane s = 0 by the margin.
- noisy: y = 1 where s > 0, else 0; then a fifth of the labels are flipped.
- teacher: y = s + noise of deviation 0.5, a linear teacher; for the log loss y is squashed by the
  logistic function to a probability.
- xor: y = 1 where the first two coordinates have unlike signs, else 0; no linear model fits it.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from synthgrad.bench.seeds import derive_seed

Array = NDArray[np.float64]
Loss = Literal["mse", "log"]
DataName = Literal["separable", "noisy", "teacher", "xor"]
DATA_NAMES: tuple[DataName, ...] = get_args(DataName)

_MARGIN = 0.5
_FLIPPED = 0.2
_TEACHER_NOISE = 0.5


@dataclass(frozen=True, kw_only=True)
class ToyData:
    """Examples of a scalar target.

    Args:
        x: inputs [num, dim + 1]; the last column is 1 and stands for the bias.
        y: targets [num]; between 0 and 1 where the loss is the log loss.
    """

    x: Array
    y: Array


def make_data(name: DataName, *, dim: int, num: int, loss: Loss, seed: int) -> ToyData:
    """Draw a data set; equal arguments give equal data."""
    random = np.random.default_rng(derive_seed(seed, f"toy data {name} {dim}"))
    x = random.normal(size=(num, dim))
    direction = random.normal(size=dim)
    direction /= np.linalg.norm(direction)
    score = x @ direction
    match name:
        case "separable":
            y = (score > 0).astype(np.float64)
            x += _MARGIN * np.sign(score)[:, None] * direction
        case "noisy":
            y = ((score > 0) != (random.random(num) < _FLIPPED)).astype(np.float64)
        case "teacher":
            y = score + _TEACHER_NOISE * random.normal(size=num)
            if loss == "log":
                y = expit(y)
        case "xor":
            y = (x[:, 0] * x[:, 1] < 0).astype(np.float64)
    return ToyData(x=np.hstack([x, np.ones((num, 1))]), y=y)


def lopsided_data(num: int, seed: int) -> ToyData:
    """Draw a two-class problem in 2-D whose least-squares direction is not that of the log loss.

    "noisy" as above, of `num` examples; then every third example of class 1 is moved by 5 along the
    first axis. Least squares turns after such far points; the log loss hardly sees them.
    """
    data = make_data("noisy", dim=2, num=num, loss="log", seed=seed)
    ones = np.flatnonzero(data.y == 1)
    data.x[ones[::3], 0] += 5.0
    return data
