"""How well do synthetic gradients point where the true gradient points? One probe batch tells."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from synthgrad import metrics
from synthgrad.decoupled import DecoupledModel
from synthgrad.errors import ConditionError
from synthgrad.signals import Units
from synthgrad.trees import float_tensors, replace_float_tensors
from synthgrad.validate import call, restored


def alignment(
    net: DecoupledModel,
    inputs: Any,
    loss: Callable[[Any], Tensor],
    *,
    condition: Tensor | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Compare each interface's synthetic gradient with the true one, as backprop computes it.

    `net.report()` compares with the *target*, which is bootstrapped in a chain of synthesizers and
    can look good while both are wrong. This runs backprop through the whole model instead. The
    net is left as it was: no gradient is accumulated, buffers and the random state are restored.

    Args:
        net: a decoupled model, in the mode (train or eval) in which it is to be examined.
        inputs: a tuple of arguments, a dict of keyword arguments, or one tensor.
        loss: from the model's output to a scalar, reduced as the net was told (`reduction`).
        condition: labels [batch], where a signal is conditioned on them.

    Returns:
        By interface name: `cosine`, `relative_error` (1 for a prediction of zero) and
        `norm_ratio` (synthetic over true), 0-dim tensors over all of the interface's tensors.
        Interfaces whose signal predicts nothing are left out.

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
    crossed = dict[str, list[Tensor]]()
    interfaces = {i.name: i for i in net.ordered_interfaces() if i.signal.fits_target}
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
            value = loss(call(net.model, inputs))
            every = [h for tensors in crossed.values() for h in tensors]
            true = iter(list[Tensor | None](torch.autograd.grad(value, every, allow_unused=True)))
            found = dict[str, dict[str, Tensor]]()
            for name, interface in interfaces.items():
                encoder = interface.signal.conditioned_on
                synthetic, real = list[Tensor](), list[Tensor]()
                for module, h in zip(interface.synthesizers, crossed[name], strict=True):
                    code = None
                    if encoder is not None:
                        if condition is None:
                            raise ConditionError(
                                f"interface {name!r} is conditioned on {encoder}: pass condition=y."
                            )
                        code = encoder.encode(condition, h.dtype)
                    units = Units.of(h.shape[0], mean=interface.mean)
                    with torch.no_grad():
                        prediction = interface.signal.predict(module, h.detach(), code)
                    gradient = next(true)
                    synthetic.append((prediction * units.factor).flatten())
                    real.append((torch.zeros_like(h) if gradient is None else gradient).flatten())
                found[name] = compare(torch.cat(synthetic), torch.cat(real))
    finally:
        for handle in handles:
            handle.remove()
    return found


def compare(synthetic: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Return cosine, relative error and norm ratio of a synthetic against a true gradient."""
    tiny = torch.finfo(torch.float32).tiny
    return {
        "cosine": metrics.cosine(synthetic, true),
        "relative_error": metrics.relative_error(synthetic, true),
        "norm_ratio": metrics.norm(synthetic) / metrics.norm(true).clamp_min(tiny),
    }
