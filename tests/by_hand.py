"""Decoupled training written out plainly: detach, local backward, least-squares fit.

It shares no code with synthgrad, so that the library can be compared with it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten


def train_step(
    parts: Sequence[Callable[[Any], Any]],
    synthesizers: Sequence[Sequence[nn.Module]],
    x: Any,
    y: Tensor,
    *,
    code: Tensor | None = None,
    updated: Sequence[bool] | None = None,
    mean: bool = True,
    mix: float = 0.0,
    scale: float = 1.0,
    trace_decay: float = 0.0,
) -> None:
    """Add the gradients of one decoupled training step to every parameter's `grad`.

    Args:
        parts: the stages, bottom first.
        synthesizers: an interface, bottom first, one for each of the tensors there.
        x: the network's input.
        y: its labels, for a cross-entropy loss.
        code: what the synthesizers see of the labels.
        updated: which stages are updated; all by default.
        mean: whether the loss is a mean over the batch.
        mix: share of the true gradient in the signal.
        scale: of the synthetic gradient.
        trace_decay: share of the target in what goes down as the next target.
    """
    updated = [True] * len(parts) if updated is None else updated
    weight = 1 / len(y) if mean else 1.0
    tops: list[list[Tensor]] = []  # a stage, what it hands up
    entries: list[list[Tensor]] = [[]]  # a stage, what came up to it
    predictions: list[list[Tensor]] = []  # an interface
    for k, part in enumerate(parts):
        with torch.set_grad_enabled(updated[k]):
            output = part(x)
        flat, spec = tree_flatten(output)
        places = [i for i, v in enumerate(flat) if _is_float(v)]
        tops.append([flat[i] for i in places])
        if k < len(parts) - 1:
            modules = synthesizers[k] if updated[k] or updated[k + 1] else []
            predictions.append(
                [m(flat[i].detach(), code) for m, i in zip(modules, places, strict=False)]
            )
            entries.append([flat[i].detach().clone().requires_grad_() for i in places])
            for i, entry in zip(places, entries[-1], strict=True):
                flat[i] = entry.clone()  # the stage above may work in place
            x = tree_unflatten(flat, spec)
    for k in reversed(range(len(parts))):
        if updated[k]:
            if k == len(parts) - 1:
                F.cross_entropy(tops[k][0], y, reduction="mean" if mean else "sum").backward()
            else:
                signals = [p.detach() * weight * scale for p in predictions[k]]
                if mix:
                    true = [e.grad for e in entries[k + 1]]
                    signals = [(1 - mix) * s + mix * g for s, g in zip(signals, true, strict=True)]
                pairs = [(h, s) for h, s in zip(tops[k], signals, strict=True) if h.requires_grad]
                if pairs:
                    torch.autograd.backward(
                        [h for h, _ in pairs], [s for _, s in pairs], retain_graph=trace_decay > 0
                    )
                if trace_decay and updated[k + 1] and any(e.requires_grad for e in entries[k]):
                    true = [0 if e.grad is None else e.grad for e in entries[k + 1]]
                    passed = [
                        (h, (1 - trace_decay) * s + trace_decay * t)
                        for h, s, t in zip(tops[k], signals, true, strict=True)
                        if h.requires_grad
                    ]
                    for entry in entries[k]:
                        entry.grad = None  # only what is passed on counts
                    torch.autograd.backward(
                        [h for h, _ in passed], [c for _, c in passed], inputs=entries[k]
                    )
    for k, above in enumerate(entries[1:]):
        for prediction, entry in zip(predictions[k], above, strict=False):
            if entry.grad is not None and prediction.requires_grad:
                error = prediction - entry.grad / weight
                (error.square().sum() / len(y)).backward()


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
