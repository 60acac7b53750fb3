"""Fully connected networks: those of Jaderberg et al. 2017, and the deep ones of Czarnecki et al.

A record names its network by a seed, so the order in which weights are drawn here must not change.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from synthgrad.errors import ConfigError


def fcn(input_shape: Sequence[int], num_classes: int, depth: int, width: int) -> nn.Sequential:
    """Return hidden layers of Linear, batch norm and ReLU, then a linear one.

    Args:
        input_shape: of one example; it is flattened.
        num_classes: outputs.
        depth: layers, the last of them linear: FCN-3 has two hidden layers.
        width: units of a hidden layer; 256 for MNIST and 1000 for CIFAR-10 in the paper.

    Returns:
        A network [batch, *input_shape] -> [batch, num_classes] with children layer1, layer2, ...,
        output.

    Raises:
        ConfigError: there would be no hidden layer, or no unit in it.

    Source: Jaderberg et al. 2017, supplement. Whether its "3 layers" count the linear one is
    not known to us. We count it: then the error with no signal is about the paper's (recalled).

    Example:
        >>> [name for name, _ in fcn((1, 28, 28), 10, depth=3, width=256).named_children()]
        ['layer1', 'layer2', 'output']
    """
    if depth < 2 or width < 1:
        raise ConfigError(
            f"depth={depth} must be 2 or more, to have an interface, and width={width} 1 or more"
        )
    num_features = math.prod(input_shape)
    layers = OrderedDict[str, nn.Module]()
    for index in range(1, depth):
        hidden = [nn.Linear(num_features, width), nn.BatchNorm1d(width), nn.ReLU()]
        layers[f"layer{index}"] = nn.Sequential(*([nn.Flatten()] if index == 1 else []), *hidden)
        num_features = width
    layers["output"] = nn.Linear(num_features, num_classes)
    return nn.Sequential(layers)


def deep(
    input_shape: Sequence[int], num_classes: int, num_hidden: int, width: int
) -> nn.Sequential:
    """Return a deep network to be cut once, `at=middle(network)`.

    It is `fcn` counted as Czarnecki et al. count: by its hidden layers, of which they had up to 50.

    Args:
        input_shape: of one example; it is flattened.
        num_classes: outputs.
        num_hidden: hidden layers, each of Linear, batch norm and ReLU.
        width: units of a hidden layer.

    Raises:
        ConfigError: there would be no hidden layer, or no unit in it.

    Source: Czarnecki et al. 2017, the experiment with deep ReLU networks (recalled; its width is
    not known to us).

    Example:
        >>> middle(deep((1, 28, 28), 10, num_hidden=50, width=64))
        'layer25'
    """
    return fcn(input_shape, num_classes, num_hidden + 1, width)


def middle(network: nn.Sequential) -> str:
    """Return the name of the child after which one interface halves the layers below the last.

    Of an odd number of them the lower half gets one more.

    Raises:
        ConfigError: the network has one child or none.

    Example:
        >>> middle(fcn((4,), 2, depth=6, width=8))
        'layer3'
    """
    names = [name for name, _ in network.named_children()]
    if len(names) < 2:
        raise ConfigError(f"the network has {len(names)} children; to be cut it needs 2 or more")
    return names[(len(names) - 2) // 2]
