"""The plain convolutional networks of Jaderberg et al. 2017."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from synthgrad.errors import ConfigError


def cnn(
    input_shape: Sequence[int], num_classes: int, depth: int, filters: int, kernel: int = 5
) -> nn.Sequential:
    """Return blocks of convolution, batch norm, ReLU and pooling, then a linear layer.

    The first block pools by the maximum, the others by the mean, over 3 x 3 places at stride 2
    with a padding of 1 (not counted in the mean): a side of n places becomes one of ceil(n / 2).

    Args:
        input_shape: channels, height and width of one example.
        num_classes: outputs.
        depth: layers, the last of them linear, as in `fcn`: depth 4 has three blocks.
        filters: channels of a block; 64 for MNIST and 128 for CIFAR-10 in the paper.
        kernel: side of a filter, odd; the padding keeps the resolution.

    Returns:
        A network [batch, *input_shape] -> [batch, num_classes] with children layer1, layer2, ...,
        output.

    Raises:
        ConfigError: a size cannot work.

    Source: Jaderberg et al. 2017, supplement, where filters, norms and pools stand as here. The
    stride and the padding of the pools are not known to us. Neither is what its "3 layers" count:
    as in `fcn` they are `depth=3` here, two blocks and a linear layer; a public reproduction
    (the comparisons of Belilovsky et al. 2020) took three blocks and a linear one, `depth=4`.

    Example:
        >>> [name for name, _ in cnn((3, 32, 32), 10, depth=4, filters=128).named_children()]
        ['layer1', 'layer2', 'layer3', 'output']
    """
    if len(input_shape) != 3:
        raise ConfigError(f"input_shape={tuple(input_shape)} must be (channels, height, width)")
    if depth < 2 or filters < 1:
        raise ConfigError(
            f"depth={depth} must be 2 or more, to have an interface, and filters={filters} 1 or "
            "more"
        )
    if kernel < 1 or kernel % 2 == 0:
        raise ConfigError(f"kernel={kernel} must be odd, so that the padding keeps the resolution")
    channels, height, width = input_shape
    layers = OrderedDict[str, nn.Module]()
    for index in range(1, depth):
        layers[f"layer{index}"] = nn.Sequential(
            nn.Conv2d(channels, filters, kernel, padding=kernel // 2),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1)
            if index == 1
            else nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
        )
        channels, height, width = filters, (height + 1) // 2, (width + 1) // 2
    layers["output"] = nn.Sequential(
        nn.Flatten(), nn.Linear(channels * height * width, num_classes)
    )
    return nn.Sequential(layers)
