"""A graph that backward goes through twice: what that asks of compiled modules."""

from collections.abc import Generator
from contextlib import contextmanager

from synthgrad.errors import InterfaceError


@contextmanager
def kept_graph(name: str) -> Generator[None]:
    """Run a first pass through a graph that is kept for a second one.

    Args:
        name: of what asks for two passes, for the message.

    Raises:
        InterfaceError: a module in the graph works in one pass only: it was compiled to reuse its
            buffers in backward, or lies in a checkpoint of the reentrant kind.
    """
    try:
        yield
    except RuntimeError as error:
        if "donated buffer" in str(error):
            raise InterfaceError(
                f"{name} takes two backward passes through one graph, and a compiled module in it "
                "is made for one, which overwrites what was saved (torch decides that in its first "
                "backward pass): set torch._functorch.config.donated_buffer = False before the "
                "first call of the compiled modules."
            ) from error
        if "use_reentrant=True" in str(error):
            raise InterfaceError(
                f"{name} takes a backward pass to the activations alone, which an activation "
                "checkpoint of the reentrant kind cannot run: call checkpoint(..., "
                "use_reentrant=False)."
            ) from error
        raise
