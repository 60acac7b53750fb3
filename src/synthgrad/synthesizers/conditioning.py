"""What a synthesizer sees beside the activation: labels, as one-hot features or planes, or more."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from synthgrad.errors import ConditionError, ConfigError


class Condition(Protocol):
    """How what is passed as `condition=` becomes features for a synthesizer."""

    @property
    def size(self) -> int:
        """How many features (or planes) it adds."""
        ...

    def encode(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the code [batch, ..., size], in `dtype`.

        Raises:
            ConditionError: as `check` does.
        """
        ...

    def check(self, labels: Tensor) -> None:
        """Refuse what cannot be encoded.

        Raises:
            ConditionError: the type, shape or range is wrong.
        """
        ...


@dataclass(frozen=True)
class Features:
    """Condition on features of your own: the next input, the time, an embedding.

    When to use it: where the synthesizer is to see more than the activation, and it is no class.
    What depends on the labels must not reach the network itself; a condition does not.

    Args:
        num_features: of one example.

    Raises:
        ConfigError: num_features is not positive.

    Source: Jaderberg et al. 2017, section 2: M(h, c) for any c; "input conditioning" where c is the
    input that comes next.

    Example:
        >>> import synthgrad as sg, torch
        >>> sg.SyntheticGradient(condition=sg.Features(2)).conditioned_on.size
        2
    """

    num_features: int

    def __post_init__(self) -> None:
        if self.num_features < 1:
            raise ConfigError(f"Features(num_features={self.num_features}) needs at least one.")

    @property
    def size(self) -> int:
        """How many features the condition adds."""
        return self.num_features

    def encode(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the features [batch, ..., num_features] in `dtype`, without their graph.

        Raises:
            ConditionError: as `check` does.
        """
        self.check(labels)
        return labels.detach().to(dtype)

    def check(self, labels: Tensor) -> None:
        """Refuse features of another number.

        Raises:
            ConditionError: the last axis is not `num_features` long, or there is no batch axis.
        """
        if labels.dim() < 2 or labels.shape[-1] != self.num_features:
            raise ConditionError(
                f"Features({self.num_features}) takes a condition of shape [batch, ..., "
                f"{self.num_features}]; this one has shape {tuple(labels.shape)}"
            )


@dataclass(frozen=True)
class OneHot:
    """Condition on class labels (cDNI): one-hot features, or one-hot planes for feature maps.

    Use it whenever labels exist: without them the best prediction is E[dL/dh | h], which fades as
    the top of the network becomes calibrated. The network itself never sees the labels, so nothing
    changes at test time.

    Args:
        num_classes: how many classes there are; labels lie in [0, num_classes).

    Raises:
        ConfigError: num_classes is not positive.

    Source: Jaderberg et al. 2017, section 2.2 and supplement (one-hot concatenation for fully
    connected nets, one constant plane a class for convolutional ones).

    Example:
        >>> import synthgrad as sg, torch
        >>> sg.OneHot(3).encode(torch.tensor([2, 0]), torch.float32)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """

    num_classes: int

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ConfigError(f"OneHot(num_classes={self.num_classes}) needs at least one class.")

    @property
    def size(self) -> int:
        """How many features (or planes) the condition adds."""
        return self.num_classes

    def encode(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """Turn labels of shape [batch] (or [batch, time]) into [..., num_classes] of `dtype`.

        Raises:
            ConditionError: as `check` does.
        """
        self.check(labels)
        classes = torch.arange(self.num_classes, device=labels.device)
        return (labels.unsqueeze(-1) == classes).to(dtype)

    def check(self, labels: Tensor) -> None:
        """Refuse what are no class labels.

        Raises:
            ConditionError: labels are not integers, or lie outside [0, num_classes). On an
                accelerator the range is asserted there, without waiting for it.
        """
        if labels.dtype not in _INTEGERS:
            raise ConditionError(
                f"OneHot({self.num_classes}) takes integer class labels; the condition has "
                f"dtype {labels.dtype} and shape {tuple(labels.shape)}. For one-hot input pass "
                "condition=y.argmax(-1)."
            )
        if labels.device.type == "cpu":
            if labels.numel():
                low, high = (int(v) for v in torch.aminmax(labels))
                if low < 0 or high >= self.num_classes:
                    raise ConditionError(
                        f"the condition has labels from {low} to {high}; OneHot("
                        f"{self.num_classes}) takes 0 to {self.num_classes - 1}."
                    )
        else:
            inside = (labels >= 0) & (labels < self.num_classes)
            torch._assert_async(inside.all(), "a label lies outside OneHot's classes")


_INTEGERS = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})


def join_features(h: Tensor, code: Tensor | None) -> Tensor:
    """Append a condition's code to activations [batch, ..., D] along the last axis.

    Args:
        h: activations.
        code: [batch, C], the same at every place of an example; or [batch, ..., C], one a place.

    Raises:
        ConditionError: the code has one a place, and other places than the activations.
    """
    if code is None:
        return h
    places = code.shape[1:-1]
    if places and places != h.shape[1:-1]:
        raise _misfit(code, h)
    if not places:
        code = code.reshape(code.shape[0], *(1,) * (h.dim() - 2), code.shape[-1])
    return torch.cat([h, code.expand(*h.shape[:-1], -1)], dim=-1)


def join_planes(h: Tensor, code: Tensor | None) -> Tensor:
    """Append a condition's code [batch, C] to feature maps [batch, D, ...] as constant planes.

    Raises:
        ConditionError: the code is not one an example.
    """
    if code is None:
        return h
    if code.dim() != 2:
        raise _misfit(code, h)
    planes = code.reshape(*code.shape, *(1,) * (h.dim() - 2))
    return torch.cat([h, planes.expand(-1, -1, *h.shape[2:])], dim=1)


def _misfit(code: Tensor, h: Tensor) -> ConditionError:
    return ConditionError(
        f"labels of shape {tuple(code.shape[:-1])} do not fit an activation of shape "
        f"{tuple(h.shape)}: give one label an example, shape ({h.shape[0]},)"
        + (f", or one a place, shape {tuple(h.shape[:-1])}." if h.dim() == 3 else ".")
    )
