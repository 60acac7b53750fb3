"""Prediction and similarity: a local loss that also asks examples of one class to be alike."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synthgrad.errors import ConfigError, InterfaceError
from synthgrad.signals import heads
from synthgrad.signals.local import LocalSignal, cross_entropy
from synthgrad.signals.units import Units


@dataclass(frozen=True, kw_only=True)
class PredSim(LocalSignal):
    """Train the stage below by a head's cross-entropy and by which of its examples are alike.

    When to use it: where `LocalLoss` with a linear head falls behind; the paper's networks do
    better with both losses than with either. When not: with batches of a few examples, where there
    is little to compare.

    Math: with B examples, z = features of h, y = one-hot labels and u the weight of one example in
    the loss (1/B for a mean), L = u * sum_b [(1 - beta) * CE_b + beta * (1/B) sum_b' D_bb'^2] where
    D = S(z) - S(y) and S(a)_bb' is the cosine of a_b and a_b', each with its mean over the features
    taken off. z is a 3 x 3 convolution of feature maps, of which the standard deviation over the
    positions is taken; a linear layer of features; and of sequences a linear layer at each place,
    with the deviation over the places.

    Units: the similarity of an example is its mean over the examples of its batch, so that with a
    mean-reduced loss L is (1 - beta) * mean(CE) + beta * mean(D^2), whatever the batch size, and
    with a summed one B times that. It is a property of the batch: two half batches (accumulation,
    replicas) compare fewer pairs than the whole, and one example alone gives it no gradient.

    Args:
        num_classes: labels lie in [0, num_classes), one an example; pass them as
            `net(x, condition=y)`.
        weight: beta, the share of the similarity; 0 is the prediction alone, 1 the similarity.
        head: predicts; as of `LocalLoss`. "pooled" averages feature maps to at most 4096 features.

    Raises:
        ConfigError: weight is outside [0, 1], no head has that name, num_classes is not positive.

    Source: Nokland & Eidnes 2019, equations 1 to 3. As in their code D^2 is averaged over pairs,
    where the paper writes a squared Frobenius norm. Ours: their zero initial head weights are not
    kept; sequences; an example whose features are all equal has similarity 0, without NaN.

    Example:
        >>> import synthgrad as sg
        >>> sg.PredSim(num_classes=10).weight
        0.99
    """

    weight: float = 0.99
    head: str | heads.HeadBuilder = "pooled"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.weight <= 1.0:
            raise ConfigError(
                f"weight={self.weight} must lie in [0, 1]: 0 is prediction alone, 1 similarity."
            )

    def build(self, example: Tensor) -> nn.Module:
        """Make head and features for activations like `example`, on its device, in its dtype.

        Raises:
            ConfigError: the activation is neither features, nor a sequence, nor feature maps.
        """
        shape = example.shape[1:]
        module = PredSimHead(shape, heads.resolve(self.head)(shape, self.num_classes))
        return module.to(device=example.device, dtype=example.dtype)

    def local_loss(self, scores: Tensor, code: Tensor, units: Units) -> Tensor:
        """Return (1 - beta) * prediction loss + beta * similarity loss.

        Args:
            scores: [..., batch, classes + features], the scores and then what is compared.
            code: one-hot labels [..., batch, classes].
            units: of this batch.

        Raises:
            InterfaceError: the labels are not one an example.
        """
        prediction = cross_entropy(scores[..., : self.num_classes], code)
        # A product of cosines in half precision would not tell near examples apart.
        with torch.autocast(scores.device.type, enabled=False):
            apart = similarity(scores[..., self.num_classes :]) - similarity(code)
            likeness = apart.square().mean(-1).sum()
        return ((1 - self.weight) * prediction + self.weight * likeness) * units.factor


class PredSimHead(nn.Module):
    """Give scores and, beside them, the features by which examples are compared.

    Args:
        shape: one example's activation, without the batch axis.
        predict: the head, from activations to scores.

    Raises:
        ConfigError: the activation is neither features, nor a sequence, nor feature maps.
    """

    def __init__(self, shape: torch.Size, predict: nn.Module) -> None:
        super().__init__()
        self.predict = predict
        self.compare: nn.Module
        if len(shape) == 3:
            self.compare = nn.Conv2d(shape[0], shape[0], 3, padding=1, bias=False)
        elif len(shape) in (1, 2):
            self.compare = nn.Linear(shape[-1], shape[-1], bias=False)
        else:
            raise ConfigError(
                "PredSim takes activations [batch, features], [batch, time, features] or [batch, "
                f"channels, height, width]; one example here has shape {tuple(shape)}. Use "
                "sg.LocalLoss."
            )

    def forward(self, h: Tensor) -> Tensor:
        """Map activations [batch, ...] to scores and features [batch, classes + features].

        Raises:
            InterfaceError: the head does not give one row of scores an example.
        """
        scores = self.predict(h)
        if scores.dim() != 2:
            raise InterfaceError(
                f"the head returned scores of shape {tuple(scores.shape)}; PredSim compares "
                "examples with one label each, and wants [batch, num_classes]."
            )
        z = self.compare(h)
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        if z.dim() > 2:
            places = z.flatten(2) if z.dim() == 4 else z.mT
            z = places.std(-1) if places.shape[-1] > 1 else places.squeeze(-1)
        return torch.cat([scores, z], -1)


def similarity(features: Tensor) -> Tensor:
    """Return S [..., B, B], the cosines between examples whose features [..., B, F] are centered.

    Source: Nokland & Eidnes 2019, section 2.2 (the adjusted cosine similarity).
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    centered = features.to(wide) - features.to(wide).mean(-1, keepdim=True)
    length = torch.linalg.vector_norm(centered, dim=-1, keepdim=True)
    # An example without features (every unit dead) is like no other, and has a finite gradient.
    unit = centered / length.masked_fill(~(length > 1e-8), 1.0)
    return unit @ unit.mT
