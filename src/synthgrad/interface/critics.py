"""What critics are fitted by: they wait for the model's output, all others for a gradient."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from synthgrad.errors import InterfaceError
from synthgrad.interface.interface import Interface
from synthgrad.interface.measures import measure
from synthgrad.interface.step import Step, Verdict
from synthgrad.signals import Units
from synthgrad.signals.units import squared_distance
from synthgrad.trees import Tree


def critics_losses(
    interfaces: Sequence[Interface], step: Step, output: Tree
) -> Iterator[tuple[Interface, Tensor]]:
    """Give the regression loss of every critic of this step, now that the output is there.

    Args:
        interfaces: of the model, from the bottom up.
        step: with the critics' verdicts in it.
        output: of the model; nothing flows back into it.

    Yields:
        The interface, and the loss with its graph.

    Raises:
        InterfaceError: a critic's loss does not give one number an example.
    """
    known = dict[int, Tensor]()  # by identity: a loss need not be hashable
    for verdict in step.verdicts:
        interface = interfaces[verdict.interface]
        key = id(interface.signal)
        if key not in known:
            known[key] = interface.signal.losses(output, step.condition)
        yield interface, _fit(interface, verdict, known[key])


def _fit(interface: Interface, verdict: Verdict, losses: Tensor) -> Tensor:
    """Return the regression loss of the critic, and note how good it was."""
    values = verdict.values
    if losses.shape != values.shape:
        raise InterfaceError(
            f"the critic at interface {interface.name!r} predicts the losses of "
            f"{len(values)} examples, and its loss returned {len(losses)}: give one an example."
        )
    if verdict.tensor == 0:
        interface.num_fits += 1
    if interface.step.measuring:
        found = measure(values, losses, Units.of(len(losses), mean=False))
        interface.measures[verdict.tensor].update(found)
    return squared_distance(values, losses.to(values.device), verdict.units)
