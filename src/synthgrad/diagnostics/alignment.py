"""How well do error signals point where the true gradient points? One probe batch tells."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from synthgrad import metrics
from synthgrad.decoupled import DecoupledModel
from synthgrad.errors import ConditionError
from synthgrad.interface import Interface
from synthgrad.signals import Need, Units
from synthgrad.trees import float_tensors, replace_float_tensors
from synthgrad.validate import call, restored


def alignment(
    net: DecoupledModel,
    inputs: Any,
    loss: Callable[[Any], Tensor],
    *,
    condition: Tensor | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Compare what each interface hands down with the true gradient, as backprop computes it.

    A pure synthetic gradient is judged by its prediction, whether it is used yet or not (`scale`
    and `fit_first` are left out). Of any other signal it is what the stage below is given in a
    training pass that updates every stage: the gradient of a local loss, the output error fed
    back, a mixture, or the gradient from above where an interface passes it on.

    With synthetic inputs a prediction is compared at the true activation, with the true gradient
    there. Any other signal is what comes down in the training pass, in which the stages above ran
    on synthetic inputs: it is compared with the true gradient of the pass on true activations, so
    that what the synthetic inputs miss counts as the signal's error.

    `net.report()` compares with the *target*, which is bootstrapped in a chain of synthesizers and
    can look good while both are wrong. This runs backprop through the whole model instead. The
    net is left as it was: no gradient is accumulated, buffers and the random state are restored.

    Args:
        net: a decoupled model, in the mode (train or eval) in which it is to be examined.
        inputs: a tuple of arguments, a dict of keyword arguments, or one tensor.
        loss: from the model's output to a scalar, reduced as the net was told (`reduction`).
        condition: labels [batch], where a signal is conditioned on them.

    Returns:
        By interface name: `cosine`, `relative_error` (1 for a signal of zero) and
        `norm_ratio` (signal over true gradient), 0-dim tensors over all of the interface's
        tensors. Interfaces whose signal does not train the stage below are left out.

    Raises:
        ConditionError: a signal is conditioned and no condition is given.

    Example:
        >>> import synthgrad as sg, torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> x, y = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 1, 0])
        >>> net = sg.decouple(model, at=["1"], example_inputs=x)
        >>> found = sg.diagnostics.alignment(net, x, lambda out: nn.CrossEntropyLoss()(out, y))
        >>> float(found["1"]["relative_error"])  # an untrained synthesizer predicts zero
        1.0
    """
    interfaces = {i.name: i for i in net.ordered_interfaces() if i.signal.trains_below}
    if not interfaces:
        return {}
    crossed, true = _true(net, inputs, loss, interfaces)
    handed = dict[str, list[Tensor]]()
    if not all(_predicts(i) for i in interfaces.values()):
        handed = _handed_down(net, inputs, loss, condition)
    with restored(net), torch.no_grad():
        for name, interface in interfaces.items():
            if _predicts(interface):
                handed[name] = _predicted(interface, crossed[name], condition)
    return {name: compare(_flat(handed[name]), _flat(true[name])) for name in interfaces}


def _predicts(interface: Interface) -> bool:
    """Whether the signal is nothing but a prediction."""
    return interface.signal.fits_target and interface.signal.needs is Need.NOTHING


def _true(
    net: DecoupledModel,
    inputs: Any,
    loss: Callable[[Any], Tensor],
    interfaces: Mapping[str, Interface],
) -> tuple[dict[str, list[Tensor]], dict[str, list[Tensor]]]:
    """Run backprop; return by interface the activations and the gradients there."""
    crossed = dict[str, list[Tensor]]()
    modules = dict(net.model.named_modules())

    def keep(name: str) -> Callable[..., Any]:
        def hook(module: Any, args: Any, output: Any) -> Any:
            # Above frozen stages an activation is a leaf; it has a true gradient all the same.
            leaves = [
                h if h.requires_grad else h.detach().requires_grad_() for h in float_tensors(output)
            ]
            crossed[name] = leaves
            up = [h.clone() for h in leaves] if interfaces[name].clone else leaves
            return replace_float_tensors(output, up)

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in interfaces]
    try:
        with restored(net), torch.enable_grad():
            gradients = _gradients(loss(call(net.model, inputs)), crossed)
    finally:
        for handle in handles:
            handle.remove()
    return crossed, gradients


def _handed_down(
    net: DecoupledModel, inputs: Any, loss: Callable[[Any], Tensor], condition: Tensor | None
) -> dict[str, list[Tensor]]:
    """Run a training pass; return what comes down to the activations at each interface."""
    with restored(net), torch.enable_grad(), net.probing() as crossed:
        output = call(partial(net, condition=condition), inputs)
        return _gradients(loss(output), crossed)


def _gradients(value: Tensor, crossed: Mapping[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    every = [h for tensors in crossed.values() for h in tensors]
    found = iter(torch.autograd.grad(value, every, allow_unused=True, materialize_grads=True))
    return {name: [next(found) for _ in tensors] for name, tensors in crossed.items()}


def _predicted(
    interface: Interface, activations: list[Tensor], condition: Tensor | None
) -> list[Tensor]:
    """Return the predictions, in the units of the loss."""
    encoder = interface.signal.conditioned_on
    if encoder is not None and condition is None:
        raise ConditionError(
            f"interface {interface.name!r} is conditioned on {encoder}: pass condition=y."
        )
    predicted = list[Tensor]()
    for module, h in zip(interface.synthesizers, activations, strict=True):
        code = None
        if encoder is not None and condition is not None:
            code = encoder.encode(condition, h.dtype).to(h.device)
        prediction = interface.signal.predict(module, h.detach(), code)
        predicted.append(prediction * Units.of(h.shape[0], mean=interface.mean).factor)
    return predicted


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


def compare(synthetic: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Return cosine, relative error and norm ratio of a signal against the true gradient."""
    tiny = torch.finfo(torch.float32).tiny
    return {
        "cosine": metrics.cosine(synthetic, true),
        "relative_error": metrics.relative_error(synthetic, true),
        "norm_ratio": metrics.norm(synthetic) / metrics.norm(true).clamp_min(tiny),
    }
