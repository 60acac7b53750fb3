"""The networks that experiments compare signals on, by kind: what each takes is depth and width."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from synthgrad.experiments.networks.convolutional import cnn
from synthgrad.experiments.networks.dense import fcn
from synthgrad.experiments.networks.residual import resnet

Kind = Literal["fcn", "cnn", "resnet"]
_NETWORKS = {"fcn": fcn, "cnn": cnn, "resnet": resnet}


def make_network(
    kind: Kind, depth: int, width: int, input_shape: Sequence[int], num_classes: int
) -> nn.Sequential:
    """Return a fully connected, a convolutional or a residual network of the papers.

    Args:
        kind: of network.
        depth: layers, the last of them linear; of a residual network, blocks a stage.
        width: units of a hidden layer, or filters of a convolution.
        input_shape: of one example.
        num_classes: outputs.

    Raises:
        ConfigError: a size cannot work.
    """
    return _NETWORKS[kind](input_shape, num_classes, depth, width)
