"""The stages of a model that torch's own pipelining has split."""

from typing import TYPE_CHECKING

from torch import fx, nn

from synthgrad.errors import UnsupportedModelError

if TYPE_CHECKING:
    from torch.distributed.pipelining import Pipe


def stages_of_pipe(pipe: "Pipe") -> list[nn.Module]:
    """Return a pipe's modules, bottom first, if each needs just what the one before it returns.

    Raises:
        UnsupportedModelError: a stage takes more than one value, or from elsewhere; the model
            takes more than one input, or returns something else than what the last stage does.
    """
    split = pipe.split_gm
    modules = list[nn.Module]()
    before: fx.Node | None = None
    for node in split.graph.nodes:
        if node.op == "placeholder":
            if before is not None:
                raise _refused(f"the model takes more than one input ({before}, {node})")
        elif node.op == "call_module":
            taken = [*node.args, *node.kwargs.values()]
            if taken != [before] or node.kwargs:
                raise _refused(f"{node.target} takes {taken}, and {before} stands before it")
            modules.append(split.get_submodule(str(node.target)))
        elif node.op == "output":
            (returned,) = node.args
            if returned != before and returned != (before,):
                raise _refused(f"the model returns {returned}, and {before} is at the end")
            continue
        else:
            raise _refused(f"{node} stands between the stages and is no stage")
        before = node
    return modules


def _refused(what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"a chain's stages take one value each, from the stage before: {what}. Split the model "
        "where a single path goes up, such as after a whole residual block."
    )
