"""The networks of the papers, each an `nn.Sequential` whose children are its layers or stages.

`at="every"` cuts after each child but the last. All of them take the shape of one example and the
number of classes first, and draw their weights from torch's global generator, as torch does.
"""

from synthgrad.experiments.networks.convolutional import cnn
from synthgrad.experiments.networks.dense import deep, fcn, middle
from synthgrad.experiments.networks.even import even
from synthgrad.experiments.networks.kinds import Kind, make_network
from synthgrad.experiments.networks.residual import ResidualBlock, resnet

__all__ = [
    "Kind",
    "ResidualBlock",
    "cnn",
    "deep",
    "even",
    "fcn",
    "make_network",
    "middle",
    "resnet",
]
