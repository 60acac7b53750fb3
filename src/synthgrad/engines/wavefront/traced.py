"""A tick as one graph: traced once, then run without Python between its kernels.

Tracing runs the function on copies and records the tensor operations, through vmap and the
vector-Jacobian products. The graph takes flat tensors and is handed to the compiler directly: no
graph breaks, and no guards to check at each call, because nothing but tensors comes in.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree


class Traced:
    """A function of nested tensors, traced anew for every set of shapes that it meets.

    Args:
        function: of fixed arguments and moving ones; may change tensors in place.
        plan: its first argument, which holds no tensors that change.
        fixed: its next arguments: nested tensors that are the same objects at every call.
    """

    def __init__(self, function: Callable[..., Any], plan: Any, *fixed: Any) -> None:
        self._function = function
        self._plan = plan
        self._fixed, self._fixed_structure = pytree.tree_flatten(fixed)
        self._graphs = dict[Any, tuple[Callable[..., Any], Any]]()

    def __call__(self, *moving: Any) -> Any:
        """Run the function on the moving arguments, from its compiled graph."""
        flat, structure = pytree.tree_flatten(moving)
        key = tuple([t if t is None else t.shape for t in flat])
        if key not in self._graphs:
            self._graphs[key] = self._compile(flat, structure)
        graph, out_structure = self._graphs[key]
        return pytree.tree_unflatten(graph(*self._fixed, *flat), out_structure)

    def _compile(self, flat: list[Any], structure: Any) -> tuple[Callable[..., Any], Any]:
        count = len(self._fixed)
        out_structure: Any = None

        def flat_function(*tensors: Any) -> list[Any]:
            nonlocal out_structure
            fixed = pytree.tree_unflatten(list(tensors[:count]), self._fixed_structure)
            moving = pytree.tree_unflatten(list(tensors[count:]), structure)
            out, out_structure = pytree.tree_flatten(self._function(self._plan, *fixed, *moving))
            return out

        copies = [t.clone() if isinstance(t, Tensor) else t for t in [*self._fixed, *flat]]
        # A recording of the whole tick is the engine's own affair.
        options = {"triton.cudagraphs": False, "size_asserts": False}
        graph = make_fx(flat_function)(*copies)
        compiled: Any = torch._inductor.compile(graph, copies, options=options)
        return compiled, out_structure
