"""A deep network of equal layers: what an engine can stack, and what learns at any depth."""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthgrad.errors import ConfigError


class EvenLayer(nn.Module):
    """A residual layer that leaves the width as it is.

    Math: h + relu(bn(W h)).

    A plain layer, relu(bn(W h)), does not do: 32 of 32 units in a row hardly learn, by backprop
    either.

    Args:
        width: units.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, h: Tensor) -> Tensor:
        """Map [batch, width] to [batch, width]."""
        return h + torch.relu(self.norm(self.linear(h)))


class Stem(nn.Module):
    """The way in: a linear layer on the flattened example.

    It is no `nn.Sequential`, so that an engine that lines layers up by their places sees one layer.

    Args:
        num_features: of a flattened example.
        width: units.
    """

    def __init__(self, num_features: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, ...] to [batch, width]."""
        return self.linear(x.flatten(1))


def even(input_shape: Sequence[int], num_classes: int, depth: int, width: int) -> nn.Sequential:
    """Return a linear stem, `depth` equal residual layers, and a linear output.

    Args:
        input_shape: of one example; it is flattened.
        num_classes: outputs.
        depth: equal layers; stem and output are not counted.
        width: units of a layer.

    Returns:
        A network [batch, *input_shape] -> [batch, num_classes] with children stem, layer1, layer2,
        ..., output.

    Raises:
        ConfigError: there would be no layer, or no unit in it.

    Example:
        >>> [name for name, _ in even((1, 28, 28), 10, depth=2, width=32).named_children()]
        ['stem', 'layer1', 'layer2', 'output']
    """
    if depth < 1 or width < 1:
        raise ConfigError(f"depth={depth} and width={width} must be 1 or more")
    layers = OrderedDict[str, nn.Module](stem=Stem(math.prod(input_shape), width))
    for index in range(1, depth + 1):
        layers[f"layer{index}"] = EvenLayer(width)
    layers["output"] = nn.Linear(width, num_classes)
    return nn.Sequential(layers)
