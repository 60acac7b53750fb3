"""Sign-symmetric feedback: errors go down through the signs of the weights."""

from dataclasses import dataclass

from torch import Tensor

from synthgrad.errors import ConfigError
from synthgrad.signals.transposes import TransposeSignal, init_deviation


@dataclass(frozen=True, kw_only=True)
class SignSymmetric(TransposeSignal):
    """Send errors down through the signs of the layers' weights, at one fixed magnitude.

    When to use it: to study how much of the weights the way down must know; it is
    reported to stay closer to backprop than feedback alignment does (recalled; measure yours).
    When not: to open a lock or to save work. It is backprop's chain at backprop's cost.

    Math: as `FeedbackAlignment`, with B = m sign(W), W as it is when the error goes down.

    Args:
        magnitude: m. None is, a layer, the standard deviation with which torch initializes it,
            1/sqrt(3 fan_in), so that errors keep the size that they have in backprop at the start.

    Raises:
        ConfigError: magnitude is not positive.
        UnsupportedModelError: by `decouple`, as for `FeedbackAlignment`.

    Equals backprop when all weights of a layer have the magnitude m. All interfaces of a model
    must have it.

    Source: Liao et al. 2016 (uniform sign-concordant feedback), there with m = 1 (recalled);
    the default magnitude is ours.

    Example:
        >>> import synthgrad as sg
        >>> sg.SignSymmetric().magnitude is None
        True
    """

    magnitude: float | None = None

    def __post_init__(self) -> None:
        if self.magnitude is not None and not self.magnitude > 0:
            raise ConfigError(f"magnitude={self.magnitude} must be positive, or None.")

    def draw(self, weight: Tensor, layer: str) -> None:
        """Return None: nothing is random."""

    def feedback(self, weight: Tensor, fixed: Tensor | None) -> Tensor:
        """Return m sign(W)."""
        del fixed
        magnitude = init_deviation(weight) if self.magnitude is None else self.magnitude
        return weight.sign() * magnitude
