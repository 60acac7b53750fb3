"""The stage below is trained by a loss of its own: a local signal's, or what a critic predicts."""

import torch
from torch import Tensor, nn

from synthgrad.errors import InterfaceError
from synthgrad.interface.interface import Interface
from synthgrad.interface.step import Verdict
from synthgrad.trees import Tree


def train_by_own_loss(interface: Interface, output: Tree) -> Tree:
    """Leave the loss where backward reaches it: at the anchor, not at what goes up.

    What goes up needs no gradient then, so the stage above does not compute one.
    """
    if interface.updates_below:
        interface.learn(local_loss(interface, output))
    return interface.detached(output)


def local_loss(interface: Interface, output: Tree) -> Tensor:
    """Return the own loss of the stage below, with its graph; for local signals and critics only.

    A critic's stands in for its signal, which is its gradient; `critics_losses` gives what the
    critic itself is fitted by when the model's output is there.

    Args:
        interface: on top of the stage.
        output: of the stage.

    Returns:
        A scalar, in the units of the network's loss.

    Raises:
        InterfaceError: the labels are missing or wrong, or do not suit the head.
    """
    leaves = interface.leaves(output, interface.synthesizers)
    try:
        losses = [
            _loss_of_one(interface, index, module, h)
            for index, (module, h) in enumerate(zip(interface.synthesizers, leaves, strict=True))
        ]
    except InterfaceError as error:
        raise type(error)(f"at interface {interface.name!r}: {error}") from error
    return torch.stack(losses).sum() if len(losses) > 1 else losses[0]


def _loss_of_one(interface: Interface, index: int, module: nn.Module, h: Tensor) -> Tensor:
    signal, code = interface.signal, interface.code(h)
    if not signal.fits_loss:
        assert code is not None
        # A mean is over all labels, as cross_entropy takes it; an example may have several.
        return signal.local_loss(module(h), code, interface.units_of(code[..., 0].numel()))
    units = interface.units(h)
    values, gradient = signal.judge(module, h, code)
    interface.step.verdicts.append(Verdict(interface.index, index, values, units))
    emitted = signal.emit(gradient, None, units, interface.num_fits)
    assert emitted is not None
    return (h * emitted.to(h.dtype)).sum()
