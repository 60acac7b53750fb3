"""The heads of local losses: small classifiers on top of a stage's activation.

A head is any module `forward(h) -> scores` [batch, num_classes]; a builder makes one for an
activation's shape: `build(shape_of_one_example, num_classes) -> nn.Module`. Those with hidden
layers are the auxiliary networks of decoupled greedy learning, batch norm included: they are
published with it, and without it torch's initial weights shrink a gradient at each hidden layer.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from synthgrad.choices import choose
from synthgrad.errors import ConfigError, InterfaceError

HeadBuilder = Callable[[torch.Size, int], nn.Module]


class NormedHead(nn.Module):
    """Layers in a row with batch norm among them, which refuse to train on one example.

    Args:
        *layers: what to run.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, h: Tensor) -> Tensor:
        """Map activations [batch, ...] to scores [batch, num_classes].

        Raises:
            InterfaceError: there is one example alone, and it is training.
        """
        if self.training and h.shape[0] == 1:
            raise InterfaceError(
                f"the head normalizes over the batch, and was given one example alone, of shape "
                f"{tuple(h.shape)}: use larger batches (drop_last=True in a DataLoader), or "
                "head='linear' or 'pooled'."
            )
        return self.layers(h)


def linear(shape: torch.Size, num_classes: int) -> nn.Module:
    """Build a linear classifier on the flattened activation: the cheapest for features.

    Args:
        shape: one example's activation, without the batch axis.
        num_classes: how many scores it gives.
    """
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.numel(), num_classes))


def pooled(shape: torch.Size, num_classes: int, *, max_features: int = 4096) -> nn.Module:
    """Build a linear classifier that averages feature maps to a smaller grid first.

    The grid's height and width are halved in turn until channels x height x width is at most
    `max_features`. Anything but feature maps is flattened, as by `linear`.

    Source: the prediction loss of Nokland & Eidnes 2019, and the limit of their code.
    """
    if len(shape) != 3:
        return linear(shape, num_classes)
    channels, height, width = shape
    while channels * height * width > max_features and height * width > 1:
        if height >= width:
            height = math.ceil(height / 2)
        else:
            width = math.ceil(width / 2)
    features = channels * height * width
    pool = nn.AdaptiveAvgPool2d((height, width))
    return nn.Sequential(pool, nn.Flatten(), nn.Linear(features, num_classes))


def mlp(shape: torch.Size, num_classes: int, *, hidden: Sequence[int] | None = None) -> nn.Module:
    """Build an MLP, by default with three hidden layers as wide as what it sees.

    It sees feature maps averaged to a grid of 2 x 2, and anything else flattened. Hidden layers
    are Linear, batch norm, ReLU.

    Args:
        shape: one example's activation.
        num_classes: how many scores it gives.
        hidden: widths of the hidden layers.

    Source: Belilovsky et al. 2020, MLP-aux.
    """
    pool, features = _grid(shape) if len(shape) == 3 else ([], shape.numel())
    return NormedHead(*pool, nn.Flatten(), *_dense(features, num_classes, hidden))


def mlp_sr(
    shape: torch.Size,
    num_classes: int,
    *,
    hidden: Sequence[int] | None = None,
    channels: Sequence[int] | None = None,
) -> nn.Module:
    """Build an MLP on feature maps whose resolution is first divided by 4: cheaper than `conv`.

    Three 1 x 1 convolutions as wide as the activation, then `mlp` on a grid of 2 x 2.

    Args:
        shape: one example's activation: (channels, height, width).
        num_classes: how many scores it gives.
        hidden: widths of the hidden layers of the MLP.
        channels: of the convolutions.

    Raises:
        ConfigError: the activation is no feature map.

    Source: Belilovsky et al. 2020, MLP-SR-aux.
    """
    _check_maps(shape, "mlp_sr")
    reduced = tuple(math.ceil(side / 4) for side in shape[1:])
    widths = (shape[0],) * 3 if channels is None else tuple(channels)
    out = torch.Size([[shape[0], *widths][-1], *reduced])
    pool, features = _grid(out)
    return NormedHead(
        nn.AdaptiveAvgPool2d(reduced),
        *_convolutions(shape[0], widths, 1),
        *pool,
        nn.Flatten(),
        *_dense(features, num_classes, hidden),
    )


def conv(
    shape: torch.Size,
    num_classes: int,
    *,
    channels: Sequence[int] | None = None,
    kernel_size: int = 3,
) -> nn.Module:
    """Build convolutions at the activation's resolution, a grid of 2 x 2, and a linear classifier.

    By default two convolutions as wide as the activation, each with batch norm and ReLU: about
    twice the work of a stage of one convolution. What is on the grid is normalized as well.

    Args:
        shape: one example's activation: (channels, height, width).
        num_classes: how many scores it gives.
        channels: of the convolutions.
        kernel_size: odd.

    Raises:
        ConfigError: the activation is no feature map, or the kernel size is even.

    Source: Belilovsky et al. 2020, CNN-aux.
    """
    _check_maps(shape, "conv")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ConfigError(f"kernel_size={kernel_size} must be odd, to keep the resolution.")
    widths = (shape[0],) * 2 if channels is None else tuple(channels)
    last = [shape[0], *widths][-1]
    pool, features = _grid(torch.Size([last, *shape[1:]]))
    return NormedHead(
        *_convolutions(shape[0], widths, kernel_size),
        *pool,
        nn.BatchNorm2d(last),
        nn.Flatten(),
        nn.Linear(features, num_classes),
    )


def automatic(shape: torch.Size, num_classes: int) -> nn.Module:
    """Build a `conv` head for feature maps, and a `linear` one for anything else."""
    return (conv if len(shape) == 3 else linear)(shape, num_classes)


HEADS: dict[str, HeadBuilder] = {
    "auto": automatic,
    "linear": linear,
    "pooled": pooled,
    "mlp": mlp,
    "mlp_sr": mlp_sr,
    "conv": conv,
}


def resolve(head: str | HeadBuilder) -> HeadBuilder:
    """Return the builder of that name, or the callable as it is.

    Raises:
        ConfigError: no head has that name.
    """
    return choose("head", head, HEADS, "shape, num_classes")


def _check_maps(shape: torch.Size, kind: str) -> None:
    if len(shape) != 3:
        raise ConfigError(
            f"a {kind} head takes activations [batch, channels, height, width]; one example here "
            f"has shape {tuple(shape)}. For features use head='linear' or 'mlp'."
        )


def _grid(shape: torch.Size) -> tuple[list[nn.Module], int]:
    """Return the pooling of maps to 2 x 2 (where they are not smaller), and what remains."""
    grid = (min(shape[1], 2), min(shape[2], 2))
    return [nn.AdaptiveAvgPool2d(grid)], shape[0] * grid[0] * grid[1]


def _convolutions(channels: int, widths: Sequence[int], kernel_size: int) -> list[nn.Module]:
    layers = list[nn.Module]()
    for fan_in, fan_out in itertools.pairwise((channels, *widths)):
        convolution = nn.Conv2d(fan_in, fan_out, kernel_size, padding="same", bias=False)
        layers += [convolution, nn.BatchNorm2d(fan_out), nn.ReLU()]
    return layers


def _dense(features: int, num_classes: int, hidden: Sequence[int] | None) -> list[nn.Module]:
    widths = [features, *((features,) * 3 if hidden is None else hidden)]
    layers = list[nn.Module]()
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out, bias=False), nn.BatchNorm1d(fan_out), nn.ReLU()]
    return [*layers, nn.Linear(widths[-1], num_classes)]
