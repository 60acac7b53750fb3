"""The synthesizer for feature maps that a dense layer reads: linear, through a few numbers."""

import math

import torch
from torch import Tensor, nn

from synthgrad.errors import ConfigError, InterfaceError
from synthgrad.synthesizers.conditioning import join_features
from synthgrad.synthesizers.dense import zero_


class LowRankSynthesizer(nn.Module):
    """Predict a whole example's gradient as a linear function of rank `rank` of its activation.

    Math:
        M(h, c) = B [A vec(h), c] + b with A of shape [rank, n], B of shape [n, rank + size of c]
        and n numbers in an activation. B and b start at zero.

    Args:
        shape: one example's activation.
        condition_size: number of features that the condition adds (0: unconditioned).
        rank: rows of A.
    """

    def __init__(self, shape: torch.Size, condition_size: int, rank: int) -> None:
        super().__init__()
        size = math.prod(shape)
        self.shape = shape
        self.first = nn.Linear(size, rank, bias=False)
        self.last = zero_(nn.Linear(rank + condition_size, size))

    def forward(self, h: Tensor, code: Tensor | None) -> Tensor:
        """Map activations [batch, ...] to per-example gradients of the same shape.

        Raises:
            InterfaceError: an example's activation is not of the shape that it was built for.
        """
        if h.shape[1:] != self.shape:
            raise InterfaceError(
                f"a low-rank synthesizer was built for activations of shape {tuple(self.shape)}; "
                f"one example here has {tuple(h.shape[1:])}. For inputs of many sizes use "
                "synthesizer='conv'."
            )
        return self.last(join_features(self.first(h.flatten(1)), code)).view_as(h)


def low_rank(shape: torch.Size, condition_size: int, *, rank: int = 32) -> nn.Module:
    """Build a low-rank linear synthesizer, for feature maps above all.

    When to use it: on feature maps, where it is the default ("auto"). A label then moves each
    place in its own way, as the gradient of a classifier over places does; a convolution hands
    every place the same. It also takes fewer operations: 2 n (2 rank + classes) a forward pass for
    n numbers, where one convolution from C to C channels takes 2 n C kernel_size^2. And on wide
    layers, where it learns sooner than a linear synthesizer with n^2 weights. Not where inputs have
    many sizes.

    Args:
        shape: one example's activation, of any number of axes.
        condition_size: number of features that the condition adds.
        rank: of the linear map from activation to gradient. The gradient of a linear classifier
            has at most as many as there are classes.

    Raises:
        ConfigError: the rank is below 1.

    Source: ours; the form is that of cDNI's linear synthesizer (Jaderberg et al. 2017) through a
    bottleneck.

    Example:
        >>> import synthgrad as sg, torch
        >>> module = sg.synthesizers.low_rank(torch.Size([64, 14, 14]), 10, rank=16)
        >>> module(torch.randn(2, 64, 14, 14), torch.eye(2, 10)).shape
        torch.Size([2, 64, 14, 14])
    """
    if rank < 1:
        raise ConfigError(f"rank={rank} must be 1 or more.")
    return LowRankSynthesizer(shape, condition_size, rank)
