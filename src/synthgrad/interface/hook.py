"""How a module's output goes up through an interface: a forward hook, and a way for each signal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from synthgrad.errors import InterfaceError
from synthgrad.interface.by_error import feed_back, kick_back
from synthgrad.interface.exchange import exchange
from synthgrad.interface.interface import Interface
from synthgrad.interface.once import inside_checkpoint
from synthgrad.interface.own_loss import train_by_own_loss
from synthgrad.interface.reach import check_reach
from synthgrad.interface.substitute import substitute
from synthgrad.signals import Need
from synthgrad.trees import Tree, float_tensors

Way = Callable[[Interface, Tree], Tree]
"""From what the stage below gave to what goes up; it sees to what will come down."""


def way_up(interface: Interface) -> Way:
    """Return what an interface does with an activation: one way for each kind of signal."""
    signal = interface.signal
    if signal.fits_target:
        return substitute
    if interface.is_local:
        return train_by_own_loss
    if signal.needs is Need.OUTPUT_ERROR:
        return feed_back
    if signal.needs is Need.STAGE_ABOVE and not interface.is_topmost:
        return kick_back
    # Nothing comes down, or the gradient from above itself does. So it is at the topmost Kickback:
    # the error through the last stage, which ends in the output, is that gradient.
    return _as_it_is


def _as_it_is(interface: Interface, output: Tree) -> Tree:
    del interface
    return output


@dataclass(frozen=True)
class Hook:
    """Takes a module's output up through an interface.

    Its `cross` is registered on the module: a bound method rather than a closure, so that
    `deepcopy` carries it over to the copy.
    """

    interface: Interface

    @torch._disable_dynamo  # imports Dynamo at the first call, as making an optimizer does
    def cross(self, module: nn.Module, args: Any, output: Tree) -> Tree:
        """Take a stage's output up through the interface; a forward hook."""
        interface, step = self.interface, self.interface.step
        if not step.active:
            return output
        self._check_passage()
        step.position += 1
        if interface.updates_below:
            check_reach(f"the stage below interface {interface.name!r}", interface.below, output)
        came = self._seen(output)
        with torch.enable_grad():
            output = way_up(interface)(interface, came)
        # A stage that is not updated runs without a graph, and so costs no backward.
        torch.set_grad_enabled(interface.updates_above)
        if len(interface.synthetic_inputs):
            output = exchange(interface, came, output)
        return output

    def _check_passage(self) -> None:
        name, index = self.interface.name, self.interface.index
        position = self.interface.step.position
        if position != index:
            raise InterfaceError(
                f"interface {name!r} was crossed as number {position} in this forward "
                f"pass; with the example inputs it was number {index}. The path must not "
                "depend on the data: cut where every pass crosses each interface once, in order."
            )
        if (self.interface.updates_below and not torch.is_grad_enabled()) or inside_checkpoint():
            raise InterfaceError(
                f"interface {name!r} lies inside an activation checkpoint (or torch.no_grad), "
                "which would run it twice. Checkpoint inside a stage instead: wrap the layers "
                f"within {name!r}, not the call of {name!r} itself, or set the interface after "
                "the module that calls checkpoint()."
            )

    def _seen(self, output: Tree) -> Tree:
        """Show the activations to those who asked for them: a diagnostic, the interface below."""
        interface, step = self.interface, self.interface.step
        if interface.updates_below and step.probed is not None:
            # Above frozen stages an activation is a leaf; it is handed a signal all the same.
            leaves = [
                h if h.requires_grad else h.detach().requires_grad_() for h in float_tensors(output)
            ]
            step.probed[interface.name] = leaves
            output = interface.hand_up(output, leaves)
        if step.kicked is not None:
            step.kicked.outputs = float_tensors(output)
            step.kicked = None
        return output
