"""The local loss: each stage learns to classify by itself, and nothing comes down from above."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthgrad.errors import ConfigError, InterfaceError
from synthgrad.signals.contract import ErrorSignal, Lock, Need, Units
from synthgrad.synthesizers import OneHot

HeadBuilder = Callable[[torch.Size, int], nn.Module]


def linear_head(shape: torch.Size, num_classes: int) -> nn.Module:
    """Build a linear classifier on a flattened activation.

    Args:
        shape: one example's activation, without the batch axis.
        num_classes: how many scores it gives.
    """
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.numel(), num_classes))


HEADS: dict[str, HeadBuilder] = {"linear": linear_head}


@dataclass(frozen=True, kw_only=True)
class LocalLoss(ErrorSignal):
    """Train the stage below by the loss of a small classifier on top of it, a *head*.

    When to use it: to open the update and backward locks where a chain of synthetic gradients is
    too long to bootstrap; it also costs less, because no stage computes the gradient of its input.
    When not: each stage learns what a shallow classifier needs, which later stages may have wanted
    otherwise.

    Math: the signal is dL_aux(head(h), y)/dh with L_aux the cross-entropy. Nothing from the stage
    above takes part. It is a synthetic gradient whose structure is the gradient of a classifier.

    Args:
        num_classes: labels lie in [0, num_classes); pass them as `net(x, condition=y)`.
        head: "linear", or a callable (shape_of_one_example, num_classes) -> nn.Module from
            activations [batch, ...] to scores [batch, num_classes].

    Raises:
        ConfigError: no head has that name, or num_classes is not positive.

    Source: Belilovsky et al. 2020 (decoupled greedy learning), with the labels' own loss; the last
    row of the unifying table of Czarnecki et al. 2017.

    Example:
        >>> import synthgrad as sg
        >>> sg.LocalLoss(num_classes=10).head
        'linear'
    """

    num_classes: int
    head: str | HeadBuilder = "linear"

    def __post_init__(self) -> None:
        OneHot(self.num_classes)
        if not callable(self.head) and self.head not in HEADS:
            raise ConfigError(
                f"head={self.head!r} is unknown; choose one of {', '.join(HEADS)}, or pass a "
                "callable (shape, num_classes) -> nn.Module."
            )

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

    def build(self, example: Tensor) -> nn.Module:
        """Make the head for activations like `example`, on its device, in its dtype."""
        make = self.head if callable(self.head) else HEADS[self.head]
        module = make(example.shape[1:], self.num_classes)
        return module.to(device=example.device, dtype=example.dtype)

    def emit(
        self, prediction: Tensor | None, target: Tensor | None, units: Units, num_fits: int
    ) -> Tensor | None:
        """Return None: the signal comes from the local loss's own backward."""
        return None

    def local_loss(self, scores: Tensor, code: Tensor, units: Units) -> Tensor:
        """Return the cross-entropy of scores [..., classes] against one-hot labels.

        Raises:
            InterfaceError: the scores have not the labels' shape.
        """
        if scores.shape != code.shape:
            raise InterfaceError(
                f"the head returned scores of shape {tuple(scores.shape)}, and these labels want "
                f"{tuple(code.shape)}: one score a class for each label."
            )
        wide = torch.promote_types(scores.dtype, torch.float32)
        return -(code * F.log_softmax(scores.to(wide), -1)).sum() * units.factor
