"""How every engine evaluates: the whole chain in eval mode, nothing training meanwhile."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a pass over a data set gave.

    Attributes:
        loss: mean over the examples.
        accuracy: in percent; None where the labels are no class indices.
        num_examples: how many were seen.
    """

    loss: float
    accuracy: float | None
    num_examples: int


@contextmanager
def eval_mode(model: nn.Module) -> Generator[None]:
    """Put a model into eval mode; modules that were in training mode are put back into it."""
    modes = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Any, Tensor]],
    loss: Callable[[Any, Tensor], Tensor],
    *,
    mean: bool,
) -> Evaluation:
    """Return loss and accuracy over batches of (inputs, labels), in eval mode, without gradients.

    Modules that were in training mode are put back into it.

    Args:
        model: from inputs to outputs [batch, classes].
        batches: pairs of inputs and labels.
        loss: of outputs and labels.
        mean: whether that loss is a mean over the batch (else a sum).
    """
    total, correct, count, classes = 0.0, 0, 0, True
    with eval_mode(model), torch.no_grad():
        for inputs, labels in batches:
            outputs = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
            size = len(labels)
            total += float(loss(outputs, labels)) * (size if mean else 1)
            count += size
            classes = classes and not labels.is_floating_point() and labels.dim() == 1
            if classes:
                correct += int((outputs.argmax(-1) == labels).sum())
    return Evaluation(
        loss=total / count if count else float("nan"),
        accuracy=100 * correct / count if classes and count else None,
        num_examples=count,
    )
