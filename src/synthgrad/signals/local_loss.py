"""The local loss: each stage learns to classify by itself, and nothing comes down from above."""

from dataclasses import dataclass

from torch import Tensor, nn

from synthgrad.signals import heads
from synthgrad.signals.local import LocalSignal, cross_entropy
from synthgrad.signals.units import Units


@dataclass(frozen=True, kw_only=True)
class LocalLoss(LocalSignal):
    """Train the stage below by the loss of a small classifier on top of it, a *head*.

    When to use it: to open the update and backward locks where a chain of synthetic gradients is
    too long to bootstrap; it also costs less, because no stage computes the gradient of its input.
    When not: each stage learns what a shallow classifier needs, which later stages may have wanted
    otherwise. A head with hidden layers of its own leaves the stage below more freedom.

    Math: the signal is dL_aux(head(h), y)/dh with L_aux the cross-entropy. Nothing from the stage
    above takes part. It is a synthetic gradient whose structure is the gradient of a classifier.
    With reduction="mean" L_aux is the mean over all labels, also where an example has several:
    with labels [batch, time] over batch x time, as `F.cross_entropy` takes it. With "sum" it is
    the sum over them.

    The loss is the stage's own, so what the network's loss is multiplied or divided by does not
    reach it: pass that as `net(x, condition=y, loss_scale=...)`, for k accumulated chunks whose
    losses are divided by k `loss_scale=1/k`.

    Args:
        num_classes: labels lie in [0, num_classes); pass them as `net(x, condition=y)`.
        head: "linear", "pooled", "mlp", "mlp_sr", "conv", "auto" (convolutional for feature maps,
            else linear), or a callable (shape_of_one_example, num_classes) -> nn.Module from
            activations [batch, ...] to scores [batch, num_classes] (with labels [batch, time],
            [batch, time, num_classes]). For other sizes use
            `functools.partial(sg.signals.heads.mlp, hidden=(256,))`.

    Raises:
        ConfigError: no head has that name, or num_classes is not positive.

    Source: Belilovsky et al. 2020 (decoupled greedy learning), with their auxiliary networks
    "mlp", "mlp_sr" and "conv"; the last row of the unifying table of Czarnecki et al. 2017.

    Example:
        >>> import synthgrad as sg
        >>> sg.LocalLoss(num_classes=10).head
        'linear'
    """

    def build(self, example: Tensor) -> nn.Module:
        """Make the head for activations like `example`, on its device, in its dtype."""
        module = heads.resolve(self.head)(example.shape[1:], self.num_classes)
        return module.to(device=example.device, dtype=example.dtype)

    def local_loss(self, scores: Tensor, code: Tensor, units: Units) -> Tensor:
        """Return the cross-entropy of scores [..., classes] against one-hot labels.

        Raises:
            InterfaceError: the scores have not the labels' shape.
        """
        return cross_entropy(scores, code) * units.factor
