"""The auxiliary task: the core itself learns to foresee the synthetic gradient.

A synthesizer reads only what the state holds. A core that must foresee the signal keeps in its
state what the signal depends on, and so learns beyond what its own chunk asks for.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synthgrad.errors import ConfigError
from synthgrad.signals.units import Units, squared_distance
from synthgrad.synthesizers.dense import zero_
from synthgrad.synthesizers.scaling import MOMENTUM
from synthgrad.synthesizers.statistics import Statistics


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """Predict the synthetic gradient at a chunk's end from the output of the chunk's first step.

    Math: weight / (2 B) * sum_b |A(o_b) - M(s_b) / r|^2, where o is the first output, A a head, s
    the state at the end of the chunk, M(s) the synthetic gradient there, held fixed, and r the
    running root mean square of its elements, so that the weight means the same for every loss.

    Args:
        weight: of this loss beside the task's.
        hidden: widths of the head's hidden layers.
        features: of an output; needed for a core of your own.

    Raises:
        ConfigError: the weight is not positive.

    Source: Jaderberg et al. 2017, section 3.2 ("DNI + Aux"). They do not say from where in the
    segment and with what weight; both are ours.
    """

    weight: float = 0.1
    hidden: Sequence[int] = ()
    features: int | None = None

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ConfigError(f"weight={self.weight} must be above 0; for no task give None")

    def build(self, core: nn.Module, size: int, like: Tensor) -> "AuxiliaryHead":
        """Make the head.

        Args:
            core: which it hangs on.
            size: of the flat state of one example.
            like: a tensor of the state, for its device and type.

        Raises:
            ConfigError: it is not known how many features the core's outputs have.
        """
        features = self.features or _features(core)
        if features is None:
            raise ConfigError(
                f"how many features an output of {type(core).__name__} has is not known: give "
                "Auxiliary(features=...)"
            )
        head = AuxiliaryHead(features, size, self.hidden, self.weight)
        return head.to(device=like.device, dtype=like.dtype)


class AuxiliaryHead(Statistics):
    """The head A, and its loss."""

    def __init__(self, features: int, size: int, hidden: Sequence[int], weight: float) -> None:
        super().__init__()
        widths = [features, *hidden]
        layers = [
            part
            for fan_in, fan_out in itertools.pairwise(widths)
            for part in (nn.Linear(fan_in, fan_out), nn.ReLU())
        ]
        self.layers = nn.Sequential(*layers, zero_(nn.Linear(widths[-1], size)))
        self.weight = weight
        self.mean_square: Tensor
        self.register_buffer("mean_square", torch.zeros(()))

    def forward(self, output: Tensor) -> Tensor:
        """Map outputs [batch, features] to foreseen signals [batch, size], of size one."""
        return self.layers(output)

    def loss(self, foreseen: Tensor, signal: Tensor, rows: Tensor, units: Units) -> Tensor:
        """Return the loss of foreseen signals [batch, size], over the marked rows.

        Args:
            foreseen: what `forward` returned.
            signal: the synthetic gradient at the chunk's end, in per-example units.
            rows: [batch] bool: with a signal.
            units: of this batch.
        """
        with torch.no_grad():
            square = signal.square().mean().to(self.mean_square)
            mean = self.mean_square.lerp(square, MOMENTUM)
            self.mean_square.copy_(torch.where(self.mean_square > 0, mean, square))
            scale = self.mean_square.sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        marked = rows[:, None]
        distance = squared_distance(foreseen * marked, signal / scale * marked, units)
        return distance * (self.weight / 2)


def _features(core: nn.Module) -> int | None:
    if isinstance(core, nn.RNNBase):
        return core.proj_size or core.hidden_size
    return core.hidden_size if isinstance(core, nn.RNNCellBase) else None
