"""The networks M(h, c) that predict a gradient from an activation and a condition.

A synthesizer is any module `forward(h, code) -> prediction` of h's shape, where `code` is the
encoded condition or None. What it predicts is d(loss of example b) / d(h_b), *per example*: the
batch size is put in at the interface. A builder makes one for an activation's shape:
`build(shape_of_one_example, condition_size) -> nn.Module`.
"""

from collections.abc import Callable

import torch
from torch import nn

from synthgrad.choices import choose
from synthgrad.synthesizers.conditioning import Condition, Features, OneHot
from synthgrad.synthesizers.conv import ConvSynthesizer, conv
from synthgrad.synthesizers.critics import CRITICS, conv_critic, mlp_critic, quadratic_critic
from synthgrad.synthesizers.dense import DenseSynthesizer, linear, mirror, mlp
from synthgrad.synthesizers.low_rank import LowRankSynthesizer, low_rank
from synthgrad.synthesizers.scaling import NormalizedSynthesizer

Builder = Callable[[torch.Size, int], nn.Module]


def automatic(shape: torch.Size, condition_size: int) -> nn.Module:
    """Build a low-rank synthesizer for feature maps, and a linear one for anything else."""
    return (low_rank if len(shape) == 3 else linear)(shape, condition_size)


BUILDERS: dict[str, Builder] = {
    "auto": automatic,
    "linear": linear,
    "mlp": mlp,
    "mirror": mirror,
    "conv": conv,
    "low-rank": low_rank,
}


def resolve(builder: str | Builder) -> Builder:
    """Return the builder of that name, or the callable as it is.

    Raises:
        ConfigError: no builder has that name.
    """
    return choose("synthesizer", builder, BUILDERS, "shape, condition_size")


__all__ = [
    "BUILDERS",
    "CRITICS",
    "Builder",
    "Condition",
    "ConvSynthesizer",
    "DenseSynthesizer",
    "Features",
    "LowRankSynthesizer",
    "NormalizedSynthesizer",
    "OneHot",
    "automatic",
    "conv",
    "conv_critic",
    "linear",
    "low_rank",
    "mirror",
    "mlp",
    "mlp_critic",
    "quadratic_critic",
    "resolve",
]
