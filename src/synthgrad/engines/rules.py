"""What an engine asks of a chain before and during training; every engine has it in common."""

from collections.abc import Callable, Sequence

from torch import nn
from torch.optim import Optimizer

from synthgrad.errors import ConfigError
from synthgrad.signals import Need
from synthgrad.stage import Chain, Stage

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]


def check_delays(delays: int | Sequence[int], chain: Chain) -> tuple[int, ...]:
    """Return one target delay an interface, bottom first, or say what is wrong with them.

    Raises:
        ConfigError: their number or a value is wrong, or a signal cannot have a delay.
    """
    number = len(chain) - 1
    given = (delays,) * number if isinstance(delays, int) else tuple(delays)
    if len(given) != number or any(d < 0 for d in given):
        raise ConfigError(
            f"target_delays={delays!r}: give one number of batches (0 or more) for all, or one for "
            f"each of the {number} interfaces."
        )
    late = [
        s
        for d, s in zip(given, chain.signals(), strict=True)
        if d and (s.needs is Need.GRADIENT_FROM_ABOVE or s.passes_trace)
    ]
    critics = [s for d, s in zip(given, chain.signals(), strict=True) if d and s.fits_loss]
    if critics:
        raise ConfigError(
            f"target_delays={delays!r} with {critics[0]}, which has no target from above: it is "
            "fitted to the losses of its own batch, so only a delay of 0 works for it."
        )
    if late:
        raise ConfigError(
            f"target_delays={delays!r} with {late[0]}, which needs the gradient of the same batch: "
            "only a delay of 0 works for it."
        )
    return given


def waits(stage: Stage) -> bool:
    """Return whether the stage needs the gradient from above before it can be updated."""
    return stage.interface is not None and stage.interface.signal.needs is Need.GRADIENT_FROM_ABOVE


def traces(stage: Stage) -> bool:
    """Return whether the signal on top passes a trace of its target on."""
    return stage.interface is not None and stage.interface.signal.passes_trace


def is_local(stage: Stage) -> bool:
    """Return whether all that trains the stage is at hand at its interface."""
    return stage.interface is not None and stage.interface.is_local


def wants_target(stage: nn.Module) -> bool:
    """Return whether the stage is to be sent the gradient at its output."""
    assert isinstance(stage, Stage)
    return waits(stage) or (stage.interface is not None and stage.interface.signal.fits_target)


def is_trained(stage: Stage) -> bool:
    """Return whether the stage is trained at all."""
    return stage.interface is None or stage.interface.signal.trains_below


def make_optimizer(factory: OptimizerFactory, parameters: list[nn.Parameter]) -> Optimizer | None:
    """Make an optimizer; None where there is nothing to optimize."""
    return factory(parameters) if parameters else None


def take_step(optimizer: Optimizer | None) -> None:
    """Take a step with the gradients that are there, and clear them."""
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()
