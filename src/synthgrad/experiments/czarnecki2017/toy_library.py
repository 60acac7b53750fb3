"""The library's own loop on the toy problems, to show that the formulas are its formulas."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import synthgrad as sg
from synthgrad.experiments.czarnecki2017.toy_data import Array, Loss, ToyData
from synthgrad.experiments.czarnecki2017.toy_training import ToyModel


@dataclass(frozen=True)
class Values(sg.OneHot):
    """Condition on real numbers as they are: [num] becomes one column.

    `OneHot` takes class labels alone, and a regression's targets are none.
    """

    num_classes: int = 1

    def encode(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the numbers as one column."""
        return labels.unsqueeze(-1).to(dtype)


def train_with_library(
    model: ToyModel,
    data: ToyData,
    loss: Loss,
    *,
    iterations: int,
    rate: float,
    synthesizer_rate: float,
) -> list[Array]:
    """Train a copy with `sg.decouple`, a linear synthesizer and SGD in float64; return its weights.

    Args:
        model: where to start; it is left as it is.
        data: all examples, one batch.
        loss: at the top.
        iterations: so many updates.
        rate: of the model.
        synthesizer_rate: of the synthesizer.
    """
    num_trained = len(model.weights)
    # `decouple` wants something with a gradient above an interface; this layer is never updated.
    network = _network([*model.weights, np.ones((1, 1))])
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    net = sg.decouple(
        network,
        at=[str(model.cut - 1)],
        example_inputs=(x[:2],),
        signal=sg.SyntheticGradient(synthesizer="linear", condition=Values()),
    )
    optimizer = torch.optim.SGD(
        [
            {"params": list(network[:num_trained].parameters()), "lr": rate},
            {"params": list(net.synthesizer_parameters()), "lr": synthesizer_rate},
        ]
    )
    for _ in range(iterations):
        score = net(x, condition=y)[:, 0]
        value = (
            F.mse_loss(score, y) / 2
            if loss == "mse"
            else F.binary_cross_entropy_with_logits(score, y)
        )
        value.backward()
        optimizer.step()
        net.zero_grad()
    return [w.detach().numpy() for w in network[:num_trained].parameters()]


def _network(weights: Sequence[Array]) -> nn.Sequential:
    layers = list[nn.Linear]()
    for w in weights:
        layer = nn.Linear(w.shape[1], w.shape[0], bias=False, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(w))
        layers.append(layer)
    return nn.Sequential(*layers)
