"""Options that take a name or a callable: one way to look them up, and one error for all."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from synthgrad.errors import ConfigError

Maker = TypeVar("Maker", bound=Callable[..., Any])


def choose(option: str, given: str | Maker, named: Mapping[str, Maker], takes: str) -> Maker:
    """Return the callable that has the given name, or a given callable as it is.

    Args:
        option: what the argument is called, for the error.
        given: its value.
        named: what there is, by name.
        takes: the arguments of such a callable, for the error.

    Raises:
        ConfigError: nothing has that name.

    Example:
        >>> from torch import nn
        >>> choose("layer", "dense", {"dense": nn.Linear, "none": nn.Identity}, "inputs, outputs")
        <class 'torch.nn.modules.linear.Linear'>
    """
    if callable(given):
        return given
    if given not in named:
        raise ConfigError(
            f"{option}={given!r} is unknown; choose one of {', '.join(named)}, or pass a callable "
            f"({takes}) -> nn.Module."
        )
    return named[given]
