"""What a module may return: a tensor, or tuples, lists and dicts of them and of other things."""

import copy
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

from torch import Tensor

Tree = Any


def float_tensors(tree: Tree) -> list[Tensor]:
    """Return the floating-point tensors in nested tuples, lists and dicts, in order."""
    if isinstance(tree, Tensor):
        return [tree] if tree.is_floating_point() else []
    if isinstance(tree, MutableMapping):
        return [t for value in tree.values() for t in float_tensors(value)]
    if isinstance(tree, (tuple, list)):
        return [t for value in tree for t in float_tensors(value)]
    return []


def replace_float_tensors(tree: Tree, tensors: Iterable[Tensor]) -> Tree:
    """Return the tree with its floating-point tensors replaced, in order."""
    return _rebuild(tree, iter(tensors))


# No closure: one that calls itself is a cycle, and would keep the tensors until the next garbage
# collection.
def _rebuild(node: Tree, new: Iterator[Tensor]) -> Tree:
    if isinstance(node, Tensor):
        return next(new) if node.is_floating_point() else node
    if isinstance(node, MutableMapping):
        rebuilt: MutableMapping[Any, Any] = copy.copy(node)  # a subclass stays what it is
        for key, value in node.items():
            rebuilt[key] = _rebuild(value, new)
        return rebuilt
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return type(node)(*(_rebuild(value, new) for value in node))
    if isinstance(node, (tuple, list)):
        return type(node)(_rebuild(value, new) for value in node)
    return node
