"""What all local signals have in common: labels, a head, and nothing from above."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from synthgrad.errors import InterfaceError
from synthgrad.signals import heads
from synthgrad.signals.contract import ErrorSignal, Lock, Need
from synthgrad.signals.units import Units
from synthgrad.synthesizers import OneHot


@dataclass(frozen=True, kw_only=True)
class LocalSignal(ErrorSignal):
    """Train the stage below by a loss of its own, against the labels.

    Args:
        num_classes: labels lie in [0, num_classes); pass them as `net(x, condition=y)`.
        head: a name in `heads.HEADS`, or a callable (shape_of_one_example, num_classes) ->
            nn.Module from activations [batch, ...] to scores [batch, num_classes].
    """

    num_classes: int
    head: str | heads.HeadBuilder = "linear"

    def __post_init__(self) -> None:
        OneHot(self.num_classes)
        heads.resolve(self.head)

    @property
    def needs(self) -> Need:
        """Nothing but the labels."""
        return Need.NOTHING

    @property
    def opens(self) -> frozenset[Lock]:
        """Update and backward lock."""
        return frozenset({Lock.UPDATE, Lock.BACKWARD})

    @property
    def is_local(self) -> bool:
        """Yes."""
        return True

    @property
    def conditioned_on(self) -> OneHot:
        """The labels."""
        return OneHot(self.num_classes)

    def emit(
        self, prediction: Tensor | None, target: Tensor | None, units: Units, num_fits: int
    ) -> Tensor | None:
        """Return None: the signal comes from the local loss's own backward."""
        return None


def cross_entropy(scores: Tensor, code: Tensor) -> Tensor:
    """Return the cross-entropy of scores [..., classes] against one-hot labels, summed.

    Raises:
        InterfaceError: the scores have not the labels' shape.
    """
    if scores.shape != code.shape:
        raise InterfaceError(
            f"the head returned scores of shape {tuple(scores.shape)}, and these labels want "
            f"{tuple(code.shape)}: one score a class for each label."
        )
    wide = torch.promote_types(scores.dtype, torch.float32)
    return -(code * F.log_softmax(scores.to(wide), -1)).sum()
