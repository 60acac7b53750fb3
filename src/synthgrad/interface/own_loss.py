"""The stage below is trained by a loss of its own: a local signal's, or what a critic predicts."""

from synthgrad.interface.interface import Interface
from synthgrad.trees import Tree


def train_by_own_loss(interface: Interface, output: Tree) -> Tree:
    """Leave the loss where backward reaches it: at the anchor, not at what goes up.

    What goes up needs no gradient then, so the stage above does not compute one.
    """
    if interface.updates_below:
        interface.learn(interface.local_loss(output))
    return interface.detached(output)
