"""Feedback alignment: backprop with fixed random weights on the way down."""

from dataclasses import dataclass

from torch import Tensor

from synthgrad.signals.fixed import fixed_uniform
from synthgrad.signals.transposes import TransposeSignal, init_bound


@dataclass(frozen=True, kw_only=True)
class FeedbackAlignment(TransposeSignal):
    """Send errors down through fixed random weights instead of the layers' own.

    When to use it: as the classical answer to "does the way down need the way up's weights". When
    not: to open a lock or to save work. It is backprop's chain at backprop's cost, and in
    convolutional networks it is reported to learn worse (recalled; measure yours).

    Math: backprop takes an error d down through a layer y = x W^T + b as d W; here it goes as
    d B, with B of W's shape, fixed, drawn uniformly from [-1/sqrt(fan_in), 1/sqrt(fan_in)] as
    torch draws W. Convolutions likewise. Nonlinearities, normalizations and layers without
    parameters keep their derivative, and each W has its true local gradient. It holds in all
    stages above the lowest interface; inside the bottom stage errors go down through the layers'
    own weights, so set the lowest interface after the first layer for the method of the paper.

    Args:
        seed: of the weights B; each layer's depend on its dotted name.

    Raises:
        UnsupportedModelError: by `decouple`, if a layer above the lowest interface has parameters
            and is no linear, convolutional or normalization layer.

    Equals backprop when every B is its layer's W. All interfaces of a model must have it.

    Source: Lillicrap et al. 2016.

    Example:
        >>> import synthgrad as sg
        >>> sg.FeedbackAlignment().needs.value
        'the gradient from the stage above'
    """

    seed: int = 0

    def draw(self, weight: Tensor, layer: str) -> Tensor:
        """Draw B for a layer."""
        key = f"feedback {self.seed} {layer}"
        return fixed_uniform(weight.shape, init_bound(weight), like=weight, key=key)

    def feedback(self, weight: Tensor, fixed: Tensor | None) -> Tensor:
        """Return B."""
        del weight
        assert fixed is not None
        return fixed
