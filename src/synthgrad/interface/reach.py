"""A stage that is to be updated must lie where backward can reach it."""

from collections.abc import Iterable

from torch import nn

from synthgrad.errors import InterfaceError
from synthgrad.trees import Tree, float_tensors


def check_reach(stage: str, modules: Iterable[nn.Module], output: Tree) -> None:
    """Refuse a stage whose parameters want a gradient, and whose output leads backward nowhere.

    Args:
        stage: its name, for the message.
        modules: that it calls, each for its own parameters.
        output: of the stage, in a step that updates it.

    Raises:
        InterfaceError: nothing in the output needs a gradient, and a parameter does.
    """
    if any(h.requires_grad for h in float_tensors(output)):
        return
    if any(p.requires_grad for m in modules for p in m.parameters(recurse=False)):
        raise InterfaceError(
            f"{stage} has parameters to train, and nothing that it returned needs a gradient. "
            "An activation checkpoint of the reentrant kind does that where what comes into it "
            "needs no gradient, as under signals that ask for none: call checkpoint(..., "
            "use_reentrant=False). If the stage is not to be trained (it runs under no_grad), "
            "freeze its parameters by requires_grad_(False)."
        )
