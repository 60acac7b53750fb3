"""The residual network for CIFAR, with a child for each of its stages."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from synthgrad.errors import ConfigError


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and a shortcut without parameters around them.

    Math: relu(x' + bn(conv(relu(bn(conv(x)))))), where x' is x, or every second place of x with
    zeros for the channels that it lacks.

    Args:
        in_channels: of the input.
        channels: of the output, at least as many.
        stride: of the first convolution.

    Source: He et al. 2016, section 4.2, shortcuts "option A".
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(in_channels, channels, stride),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            _convolution(channels, channels, 1),
            nn.BatchNorm2d(channels),
        )
        self.stride = stride
        self.new_channels = channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, in_channels, height, width] to [batch, channels, height', width']."""
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(self.body(x) + shortcut)


def resnet(
    input_shape: Sequence[int], num_classes: int, blocks_per_stage: int = 3, width: int = 16
) -> nn.Sequential:
    """Return a residual network of 6 n + 2 layers, split where its resolution changes.

    Args:
        input_shape: channels, height and width of one example.
        num_classes: outputs.
        blocks_per_stage: n, blocks of two convolutions: 3 is ResNet-20, 18 is ResNet-110.
        width: channels of the first stage; the second has twice, the third four times as many.

    Returns:
        A network [batch, *input_shape] -> [batch, num_classes] with children stem, stage1, stage2,
        stage3, head.

    Raises:
        ConfigError: a size cannot work.

    Source: He et al. 2016, section 4.2 (CIFAR-10), with their initialization.

    Example:
        >>> network = resnet((3, 32, 32), 10)
        >>> sum(p.numel() for p in network.parameters())  # the paper: 0.27 million
        269722
    """
    if len(input_shape) != 3:
        raise ConfigError(f"input_shape={tuple(input_shape)} must be (channels, height, width)")
    if blocks_per_stage < 1 or width < 1:
        raise ConfigError(
            f"blocks_per_stage={blocks_per_stage} and width={width} must be 1 or more"
        )
    stages = OrderedDict[str, nn.Module]()
    stages["stem"] = nn.Sequential(
        _convolution(input_shape[0], width, 1), nn.BatchNorm2d(width), nn.ReLU()
    )
    in_channels = width
    for index in range(3):
        channels = width * 2**index
        blocks = list[nn.Module]()
        for block in range(blocks_per_stage):
            blocks.append(ResidualBlock(in_channels, channels, 2 if index and not block else 1))
            in_channels = channels
        stages[f"stage{index + 1}"] = nn.Sequential(*blocks)
    stages["head"] = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes)
    )
    return nn.Sequential(stages)


def _convolution(in_channels: int, channels: int, stride: int) -> nn.Conv2d:
    convolution = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return convolution
