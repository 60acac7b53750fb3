"""Synthesizers for activations whose last axis holds features: linear, MLP, and mirror."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthgrad.errors import ConfigError
from synthgrad.synthesizers.conditioning import join_features


class DenseSynthesizer(nn.Module):
    """Predict a gradient of shape [batch, ..., features] by a linear layer or an MLP.

    Hidden layers are Linear, batch norm, ReLU (Jaderberg et al. 2017, supplement); without any it
    is one linear layer. The last layer starts at zero, weight and bias, so that an untrained
    synthesizer is exactly "no signal".

    Args:
        features: size of the last axis of the activation, and of the prediction.
        condition_size: number of features that the condition adds (0: unconditioned).
        hidden: widths of the hidden layers.
    """

    def __init__(self, features: int, condition_size: int = 0, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        widths = [features + condition_size, *hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            # The batch norm that follows has its own bias.
            layers += [nn.Linear(fan_in, fan_out, bias=False), nn.BatchNorm1d(fan_out), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.last = zero_(nn.Linear(widths[-1], features))

    def forward(self, h: Tensor, code: Tensor | None) -> Tensor:
        """Map activations [batch, ..., features] to per-example gradients of the same shape."""
        x = join_features(h, code)
        if len(self.hidden):
            x = self.hidden(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)
        return self.last(x)


def linear(shape: torch.Size, condition_size: int) -> nn.Module:
    """Build a linear synthesizer: the default for cDNI, and the cheapest.

    A linear synthesizer assumes a loss that is quadratic in the activation (Czarnecki et al.
    2017); conditioned on labels it is as accurate as larger ones on MNIST.

    Args:
        shape: one example's activation, without the batch axis; its last axis holds features.
        condition_size: number of features that the condition adds.
    """
    return DenseSynthesizer(_features(shape, "linear"), condition_size)


def mlp(
    shape: torch.Size, condition_size: int, *, hidden: Sequence[int] = (1024, 1024)
) -> nn.Module:
    """Build an MLP synthesizer, by default the 2 x 1024 of Jaderberg et al. 2017 for plain DNI."""
    return DenseSynthesizer(_features(shape, "mlp"), condition_size, hidden)


def mirror(shape: torch.Size, condition_size: int) -> nn.Module:
    """Build a synthesizer with one hidden layer like the stage's own: same width, batch norm, ReLU.

    This is our reading of Bisong 2017, whose synthesizer is "structurally identical" to the
    inference network's layer.
    """
    features = _features(shape, "mirror")
    return DenseSynthesizer(features, condition_size, (features,))


def zero_(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """Set a layer's weight and bias to zero, in place, and return it."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _features(shape: torch.Size, kind: str) -> int:
    if len(shape) not in (1, 2):
        raise ConfigError(
            f"a {kind} synthesizer takes activations [batch, features] or [batch, time, features]; "
            f"one example here has shape {tuple(shape)}. For feature maps use "
            "synthesizer='low-rank', or 'conv' where inputs have many sizes."
        )
    return shape[-1]
