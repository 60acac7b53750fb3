"""What does a layer tell apart? Its representational dissimilarity matrix, example by example."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.decoupled import DecoupledModel
from synthgrad.errors import ConfigError
from synthgrad.trees import float_tensors
from synthgrad.validate import At, call, resolve, restored


def rdm(model: nn.Module, inputs: Any, at: At = "every") -> dict[str, Tensor]:
    """Return how dissimilar a layer's activations are, for every two examples and each layer.

    Use it to compare what two networks represent whose units have nothing to do with each other:
    one trained by backprop and one by synthetic gradients, say. Sort the examples by class to see
    class structure as blocks. Not for many examples: it takes N^2 numbers a layer.

    Math: D[m, n] = 1 - r(a_m, a_n), where a_m is the activation of example m, flattened (all of the
    floating-point tensors that the module returns), and r is Pearson's correlation over its
    elements, in float64. A constant activation correlates with nothing: its D is 1 (and 0 with
    itself). The diagonal is exactly 0, and D is symmetric.

    The model runs once, in eval mode, and is left as it was.

    Args:
        model: any module; of a decoupled one the names are those of the user's model.
        inputs: a tuple of arguments, a dict of keyword arguments, or one tensor: N examples.
        at: dotted names of modules, "every" (after each direct child of the outermost
            `nn.Sequential` or `ModuleList` but the last), or a callable (name, module) -> bool.

    Returns:
        By name, in the order in which they ran, D [N, N], float64 in [0, 2], on the model's device.

    Raises:
        ConfigError: a name is unknown, or its module does not run exactly once, or does not return
            floating-point activations [N, ...].

    Example:
        >>> import synthgrad as sg, torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Identity(), nn.Linear(3, 2))
        >>> x = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0]])
        >>> sg.diagnostics.rdm(model, x)["0"].round(decimals=6)
        tensor([[0., 0., 2.],
                [0., 0., 2.],
                [2., 2., 0.]], dtype=torch.float64)

    Source: Kriegeskorte et al. 2008; Czarnecki et al. 2017, the figures of layer-wise
    representations (recalled).
    """
    if isinstance(model, DecoupledModel):
        model = model.model
    names, problems = resolve(model, at)
    if problems:
        raise ConfigError(" ".join(problems))
    found = dict[str, Tensor]()

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            if name in found:
                raise ConfigError(f"module {name!r} runs more than once; name one that runs once.")
            tensors = float_tensors(output)
            if not tensors or len({h.shape[:1] for h in tensors}) != 1 or not tensors[0].dim():
                raise ConfigError(
                    f"module {name!r} returns no floating-point activations [examples, ...]."
                )
            flat = [h.detach().double().reshape(len(h), -1) for h in tensors]
            found[name] = _dissimilarity(torch.cat(flat, dim=1))

        return hook

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        with restored(model), torch.no_grad():
            model.eval()
            call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if idle := [name for name in names if name not in found]:
        raise ConfigError(f"module {idle[0]!r} does not run in a forward pass.")
    return found


def rdm_similarity(rdm_a: Tensor, rdm_b: Tensor) -> float:
    """Return how alike two representations are: the rank correlation of their dissimilarities.

    Math: Spearman's rho of the entries above the diagonal, ties given their average rank; 0 where
    all entries of a matrix are equal.

    Args:
        rdm_a: [N, N], of the same examples in the same order as `rdm_b`.
        rdm_b: [N, N].

    Returns:
        A number in [-1, 1]; 1 for the same order of dissimilarities.

    Raises:
        ConfigError: the matrices are not square, not of one size, or of fewer than 3 examples.

    Example:
        >>> import synthgrad as sg, torch
        >>> near = torch.tensor([[0.0, 0.1, 0.9], [0.1, 0.0, 0.5], [0.9, 0.5, 0.0]])
        >>> sg.diagnostics.rdm_similarity(near, near**2)
        1.0

    Source: Kriegeskorte et al. 2008.
    """
    if rdm_a.shape != rdm_b.shape:
        raise ConfigError(
            f"RDMs of shapes {tuple(rdm_a.shape)} and {tuple(rdm_b.shape)} cannot be compared: "
            "both must be [N, N], of the same examples"
        )
    a, b = (ranks - ranks.mean() for ranks in (_ranks(_pairs(rdm_a)), _ranks(_pairs(rdm_b))))
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return float(((a @ b) / scale).clamp(-1, 1)) if scale else 0.0


def class_separation(rdm: Tensor, labels: Tensor) -> float:
    """Return how far a layer's representation is sorted by class, as one number.

    Math: ANOSIM's R = (r_between - r_within) / (P / 2), where all P = N (N - 1) / 2 pairs of
    examples are ranked by their dissimilarity (ties get their average rank), and r_between and
    r_within are the mean ranks of pairs of two classes and of one. It depends on the order of
    dissimilarities only, so layers of any width can be compared.

    Args:
        rdm: [N, N].
        labels: [N] classes.

    Returns:
        1 if every two examples of one class are more alike than any two of different classes, about
        0 if class plays no part; -1 is the least possible.

    Raises:
        ConfigError: sizes differ, or there is no pair of one class, or none of two.

    Example:
        >>> import synthgrad as sg, torch
        >>> near = torch.tensor([[0.0, 0.1, 0.9], [0.1, 0.0, 0.5], [0.9, 0.5, 0.0]])
        >>> sg.diagnostics.class_separation(near, torch.tensor([0, 0, 1]))
        1.0

    Source: Clarke 1993, Non-parametric multivariate analyses of changes in community structure.
    """
    pairs = _pairs(rdm)
    if labels.shape != rdm.shape[:1]:
        raise ConfigError(
            f"labels of shape {tuple(labels.shape)} do not fit an RDM of shape {tuple(rdm.shape)}"
        )
    within = _pairs((labels.unsqueeze(0) == labels.unsqueeze(1)).to(pairs)).bool()
    if within.all() or not within.any():
        raise ConfigError("labels must have two examples of one class, and two of different ones")
    ranks = _ranks(pairs)
    return float((ranks[~within].mean() - ranks[within].mean()) / (len(pairs) / 2))


def _dissimilarity(activations: Tensor) -> Tensor:
    """Return 1 - correlation of the rows; a constant row's correlation counts as 0."""
    constant = activations.amax(1) == activations.amin(1)
    centered = activations - activations.mean(1, keepdim=True)
    # Compared exactly: the centered row of a constant one is rounding noise, not zero.
    centered = torch.where(constant.unsqueeze(1), 0, centered)
    unit = centered / torch.where(constant, 1, torch.linalg.vector_norm(centered, dim=1))[:, None]
    correlation = unit @ unit.T
    correlation = ((correlation + correlation.T) / 2).clamp(-1, 1)
    return (1 - correlation).fill_diagonal_(0)


def _pairs(matrix: Tensor) -> Tensor:
    """Return the entries above the diagonal."""
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 3:
        raise ConfigError(
            f"an RDM is [N, N] of 3 examples or more; this one has shape {tuple(matrix.shape)}"
        )
    rows, columns = torch.triu_indices(*matrix.shape, offset=1, device=matrix.device)
    return matrix[rows, columns]


def _ranks(values: Tensor) -> Tensor:
    """Return ranks from 1, float64; what is equal gets the average of its ranks."""
    _, group, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[group]
