"""The networks V(h, c) that predict the loss of each example; a signal is their gradient in h.

A critic is any module `forward(h, code) -> losses` from activations [batch, ...] to [batch]. It
must treat examples one by one (so no batch norm): the gradient of the sum of its values is then
each example's own. The last layer starts at zero, weight and bias, so that an untrained critic is
exactly "no signal".
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthgrad.errors import ConfigError
from synthgrad.synthesizers.conditioning import join_features
from synthgrad.synthesizers.dense import zero_
from synthgrad.synthesizers.statistics import Statistics, widened


class Standardize(Statistics):
    """Subtract each feature's running mean and divide by its running deviation, as constants.

    Unlike batch norm it lets no gradient flow from one example to another. A critic needs it: the
    loss falls while the network trains, and on activations whose mean is not zero (after a ReLU,
    say) V would follow that through the weights on h, which gives all examples the same slope.
    What it keeps is never narrower than float32.

    Args:
        num_features: size of the second axis.
        momentum: share of the newest batch; the first batches are averaged evenly.
    """

    mean: Tensor
    variance: Tensor
    num_batches: Tensor

    def __init__(self, num_features: int, *, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("variance", torch.ones(num_features))
        self.register_buffer("num_batches", torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        """Map [batch, features, ...] to the same shape; in training, take note of it first."""
        if self.training:
            with torch.no_grad():
                axes = [0, *range(2, h.dim())]
                self.num_batches += 1
                share = self.num_batches.reciprocal().clamp_min(self.momentum)
                wide = h.detach().to(self.mean.dtype)
                variance, mean = torch.var_mean(wide, axes, correction=0)
                self.mean.lerp_(mean, share)
                self.variance.lerp_(variance, share)
        shape = (-1, *(1,) * (h.dim() - 2))
        scale = (self.variance + 1e-5).rsqrt()
        return ((widened(h) - self.mean.view(shape)) * scale.view(shape)).to(h.dtype)


class MlpCritic(nn.Module):
    """Predict a loss from all of an activation's features by an MLP, one output a class.

    With labels as condition the label chooses the output, V(h, c) = c'(W phi(h) + b): a critic a
    class on shared hidden units, whose slope depends on the class from the first step on. Hidden
    units are SiLU, smooth because the signal is the derivative (that of a ReLU net jumps).

    Args:
        features: of one example's activation, all axes together.
        condition_size: of the condition (0: unconditioned).
        hidden: widths of the hidden layers; one at least, or the gradient is the same at every h.
    """

    def __init__(self, features: int, condition_size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [Standardize(features)]
        for fan_in, fan_out in itertools.pairwise([features, *hidden]):
            layers += [nn.Linear(fan_in, fan_out), nn.SiLU()]
        self.hidden = nn.Sequential(*layers)
        self.last = zero_(nn.Linear(hidden[-1], condition_size or 1))

    def forward(self, h: Tensor, code: Tensor | None) -> Tensor:
        """Map activations [batch, ...] to losses [batch]."""
        values = self.last(self.hidden(h.flatten(1)))
        return values.squeeze(1) if code is None else (values * code).sum(1)


class ConvCritic(nn.Module):
    """Predict a loss from feature maps: one convolution, pooling to a few places, then an MLP.

    Args:
        channels: of the activation.
        places: height and width after pooling.
        condition_size: of the condition, which chooses among the MLP's outputs.
        width: channels of the convolution.
        hidden: widths of the MLP's hidden layers.
        kernel_size: odd, so that the resolution is kept until the pooling.
    """

    def __init__(
        self,
        channels: int,
        places: tuple[int, int],
        condition_size: int,
        *,
        width: int,
        hidden: Sequence[int],
        kernel_size: int,
    ) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            Standardize(channels),
            nn.Conv2d(channels, width, kernel_size, padding="same"),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(places),
        )
        self.head = MlpCritic(width * places[0] * places[1], condition_size, hidden)

    def forward(self, h: Tensor, code: Tensor | None) -> Tensor:
        """Map feature maps [batch, channels, height, width] to losses [batch]."""
        return self.head(self.maps(h), code)


class QuadraticCritic(nn.Module):
    """Predict a loss as a quadratic form: V = z'Az + w'z + b with z the features and the condition.

    Where the stages above are linear and the loss is the squared error, the loss is such a form,
    and a fitted critic's gradient is the true one. All of A, w, b start at zero. It takes h as it
    is (see `Standardize`), so for training it is the slower one.

    Args:
        features: of one example's activation, all axes together.
        condition_size: number of features that the condition adds (0: unconditioned).
    """

    def __init__(self, features: int, condition_size: int) -> None:
        super().__init__()
        size = features + condition_size
        self.form = zero_(nn.Linear(size, size, bias=False))
        self.last = zero_(nn.Linear(size, 1))

    def forward(self, h: Tensor, code: Tensor | None) -> Tensor:
        """Map activations [batch, ...] to losses [batch]."""
        z = join_features(h.flatten(1), code)
        return self.last(z).squeeze(1) + (self.form(z) * z).sum(1)


def mlp_critic(
    shape: torch.Size, condition_size: int, *, hidden: Sequence[int] = (256,)
) -> nn.Module:
    """Build an MLP critic on standardized activations, by default with one hidden layer.

    Args:
        shape: one example's activation, without the batch axis; it is flattened.
        condition_size: number of features that the condition adds.
        hidden: widths of the hidden layers.

    Raises:
        ConfigError: there is no hidden layer.
    """
    if not hidden:
        raise ConfigError(
            "an MLP critic without a hidden layer is linear, and its gradient the same for every "
            "activation: give `hidden` a width, or use critic='quadratic'."
        )
    return MlpCritic(shape.numel(), condition_size, hidden)


def quadratic_critic(shape: torch.Size, condition_size: int) -> nn.Module:
    """Build a quadratic critic: exact above linear stages under a squared error."""
    return QuadraticCritic(shape.numel(), condition_size)


def conv_critic(
    shape: torch.Size,
    condition_size: int,
    *,
    width: int | None = None,
    hidden: Sequence[int] = (256,),
    kernel_size: int = 5,
    max_places: int = 4,
) -> nn.Module:
    """Build a critic for feature maps.

    Args:
        shape: one example's activation: (channels, height, width).
        condition_size: number of features that the condition adds.
        width: channels of the convolution; by default as many as the activation has.
        hidden: widths of the MLP's hidden layers.
        kernel_size: odd.
        max_places: height and width after pooling, at most.

    Raises:
        ConfigError: the activation is no feature map, or a size cannot work.
    """
    if len(shape) != 3:
        raise ConfigError(
            "a conv critic takes activations [batch, channels, height, width]; one example here "
            f"has shape {tuple(shape)}. Use critic='mlp'."
        )
    if kernel_size < 1 or kernel_size % 2 == 0 or max_places < 1:
        raise ConfigError(
            f"kernel_size={kernel_size} must be odd, to keep the resolution, and "
            f"max_places={max_places} 1 or more."
        )
    channels, high, wide = shape
    return ConvCritic(
        channels,
        (min(high, max_places), min(wide, max_places)),
        condition_size,
        width=channels if width is None else width,
        hidden=hidden,
        kernel_size=kernel_size,
    )


def automatic_critic(shape: torch.Size, condition_size: int) -> nn.Module:
    """Build a convolutional critic for feature maps, and an MLP for anything else."""
    return (conv_critic if len(shape) == 3 else mlp_critic)(shape, condition_size)


CRITICS = {
    "auto": automatic_critic,
    "mlp": mlp_critic,
    "conv": conv_critic,
    "quadratic": quadratic_critic,
}
