"""The synthesizer for feature maps: convolutions that keep the resolution."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthgrad.errors import ConfigError
from synthgrad.synthesizers.conditioning import join_planes
from synthgrad.synthesizers.dense import zero_


class ConvSynthesizer(nn.Module):
    """Predict a gradient of shape [batch, channels, height, width] by same-padded convolutions.

    Hidden layers are convolution, batch norm, ReLU; the last convolution starts at zero. Labels
    come in as one constant plane a class.

    Args:
        channels: of the activation, and of the prediction.
        condition_size: number of planes that the condition adds (0: unconditioned).
        hidden: channels of the hidden layers.
        kernel_size: odd, so that the resolution is kept.

    Source: Jaderberg et al. 2017, supplement C.1 (two hidden layers, 5 x 5).
    """

    def __init__(
        self, channels: int, condition_size: int, hidden: Sequence[int], kernel_size: int
    ) -> None:
        super().__init__()
        widths = [channels + condition_size, *hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            convolution = nn.Conv2d(fan_in, fan_out, kernel_size, padding="same", bias=False)
            layers += [convolution, nn.BatchNorm2d(fan_out), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.last = zero_(nn.Conv2d(widths[-1], channels, kernel_size, padding="same"))

    def forward(self, h: Tensor, code: Tensor | None) -> Tensor:
        """Map feature maps to per-example gradients of the same shape."""
        return self.last(self.hidden(join_planes(h, code)))


def conv(
    shape: torch.Size,
    condition_size: int,
    *,
    hidden: Sequence[int] | None = None,
    kernel_size: int = 5,
) -> nn.Module:
    """Build a convolutional synthesizer, by default two hidden layers as wide as the activation.

    Args:
        shape: one example's activation: (channels, height, width).
        condition_size: number of planes that the condition adds.
        hidden: channels of the hidden layers; () is one convolution; None is the paper's two.
        kernel_size: odd.

    Raises:
        ConfigError: the activation is no feature map, or the kernel size is even.
    """
    if len(shape) != 3:
        raise ConfigError(
            "a conv synthesizer takes activations [batch, channels, height, width]; one example "
            f"here has shape {tuple(shape)}. For features use synthesizer='linear'."
        )
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ConfigError(f"kernel_size={kernel_size} must be odd, to keep the resolution.")
    channels = shape[0]
    widths = (channels, channels) if hidden is None else tuple(hidden)
    return ConvSynthesizer(channels, condition_size, widths, kernel_size)
