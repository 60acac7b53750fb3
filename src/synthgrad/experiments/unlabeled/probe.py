"""A frozen network, looked at: activations, true gradients, its own predictions, by interface."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgrad.bench.running.learner import Learner
from synthgrad.data import Split
from synthgrad.interface import Interface
from synthgrad.validate import restored


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """What was seen at one interface.

    Attributes:
        activations: h [examples, features].
        gradients: delta = B dL/dh [examples, features] for a batch of B examples: per example, as
            synthesizers are fitted to it, and by backprop through all that is above.
        predictions: of the network's own synthesizer, of the same shape; None without one.
    """

    activations: Tensor
    gradients: Tensor
    predictions: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """What was seen of a network.

    Attributes:
        places: by the name of the layer below the interface, from the bottom.
        logits: what the top made of it [examples, classes].
        labels: [examples].
    """

    places: dict[str, Place]
    logits: Tensor
    labels: Tensor

    @property
    def loss(self) -> float:
        """The mean cross-entropy."""
        return F.cross_entropy(self.logits, self.labels).item()

    @property
    def accuracy_percent(self) -> float:
        """The share of examples that the top gets right."""
        return 100 * (self.logits.argmax(1) == self.labels).float().mean().item()

    @property
    def calibration_error(self) -> float:
        """The expected calibration error of the top."""
        return calibration_error(self.logits.softmax(1), self.labels)


def probe(learner: Learner, split: Split, index: Tensor, batch_size: int) -> Probe:
    """Look at a network in training mode, as its synthesizers see it; it is left as it was.

    Args:
        learner: whose model is an `nn.Sequential`, with an interface after each child but the last,
            or with none, for backprop.
        split: the examples.
        index: which of them; those that do not fill a last batch are left out.
        batch_size: as in training, since batch norm makes activations depend on it.
    """
    model = learner.model
    assert isinstance(model, nn.Sequential)
    names = [name for name, _ in model.named_children()][:-1]
    own = {i.name: i for i in learner.decoupled.ordered_interfaces()} if learner.decoupled else {}
    seen: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in names}
    tops = list[tuple[Tensor, Tensor]]()
    with restored(model), torch.enable_grad():
        for start in range(0, len(index) - batch_size + 1, batch_size):
            inputs, labels = split.take(index[start : start + batch_size])
            h = inputs
            activations = [h := stage(h) for stage in model]
            logits = activations.pop()
            gradients = torch.autograd.grad(
                F.cross_entropy(logits, labels, reduction="sum"), activations
            )
            tops.append((logits.detach(), labels))
            for name, h, gradient in zip(names, activations, gradients, strict=True):
                found = (h.detach(), gradient)
                if name in own:
                    found = (*found, _predict(own[name], h.detach(), labels))
                seen[name].append(found)
    logits, labels = (torch.cat(parts) for parts in zip(*tops, strict=True))
    return Probe(
        places={name: _place(found) for name, found in seen.items()}, logits=logits, labels=labels
    )


def _place(found: list[tuple[Tensor, ...]]) -> Place:
    h, gradients, *predictions = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Place(
        activations=h,
        gradients=gradients,
        predictions=predictions[0] if predictions else None,
    )


@torch.no_grad()
def _predict(interface: Interface, h: Tensor, labels: Tensor) -> Tensor:
    encoder = interface.signal.conditioned_on
    code = encoder.encode(labels, h.dtype) if encoder else None
    return interface.signal.predict(interface.synthesizers[0], h, code)


def calibration_error(probabilities: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Return the expected calibration error of the most probable class.

    Math: sum over bins of |sum over the bin of (confidence - hit)| / N, with bins of equal width in
    the confidence. It is 0 for a calibrated top, and can be 0 for one that is not: it looks at one
    class, and at the confidence in place of all that h shows.

    Args:
        probabilities: [examples, classes].
        labels: [examples].
        num_bins: how many bins.
    """
    confidence, predicted = probabilities.double().max(1)
    excess = confidence - (predicted == labels).double()
    bins = (confidence * num_bins).long().clamp_max(num_bins - 1)
    sums = torch.zeros(num_bins, dtype=torch.float64, device=labels.device)
    return (sums.index_add(0, bins, excess).abs().sum() / len(labels)).item()
