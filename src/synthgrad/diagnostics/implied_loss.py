"""Which loss does a synthesizer believe in? Its gradient, integrated, beside the true loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from synthgrad.decoupled import DecoupledModel
from synthgrad.errors import ConditionError, ConfigError
from synthgrad.interface import Interface
from synthgrad.signals import Units
from synthgrad.trees import float_tensors, replace_float_tensors
from synthgrad.validate import call, restored

Directions = tuple[Tensor, Tensor] | Literal["gradients", "gradient", "random"]


@dataclass(frozen=True, kw_only=True)
class ImpliedLoss:
    """A loss and the loss that a synthesizer implies, on a plane through an activation.

    All are float64 on the CPU. Grids are indexed [a, b]: the first axis goes along u.

    Attributes:
        a: coordinates [n] along the first direction u.
        b: coordinates [n] along the second direction v.
        true: L(h + a u + b v) [n, n].
        implied: the true loss at h plus the synthetic gradient's integral from h [n, n].
        field: the synthetic gradient's inner products with u and with v [2, n, n].
        curl: d<G, v>/da - d<G, u>/db [n, n]: zero everywhere if G is the gradient of a loss.
    """

    a: Tensor
    b: Tensor
    true: Tensor
    implied: Tensor
    field: Tensor
    curl: Tensor

    @property
    def asymmetry(self) -> float:
        """How far the synthetic gradient is from being any loss's gradient, in [0, 1].

        Math: |(J - J') / 2| / |J| over the whole grid, with J the field's Jacobian in the plane. 0:
        the implied loss does not depend on the way of integration; 1: nothing but rotation.
        """
        along_a, along_b = _derivatives(self.field, self.a, self.b)
        total = (along_a.square().sum() + along_b.square().sum()).sqrt()
        return float((self.curl.square().sum() / 2).sqrt() / total) if total else 0.0


def implied_loss(
    net: DecoupledModel,
    interface_name: str,
    inputs: Any,
    loss: Callable[[Any], Tensor],
    *,
    condition: Tensor | None = None,
    directions: Directions = "gradient",
    radius: float = 1.0,
    num_points: int = 21,
    num_nodes: int = 4,
    seed: int = 0,
) -> ImpliedLoss:
    """Compare the true loss around an activation with the one that the synthesizer implies.

    Use it to see where a synthesizer is right: close to the activations that it was fitted on, and
    how soon it goes wrong beyond. It costs n^2 forward passes of the model and (1 + num_nodes) n^2
    of the synthesizer. The net is left as it was; each pass starts from the same buffers and random
    state, so dropout masks are the same everywhere.

    Math: with h the activation of the whole batch at the interface and u, v two directions in its
    space, true(a, b) = L(h + a u + b v), computed by the stages above, and implied(a, b) = L(h) +
    int_0^1 <G(h + t d), d> dt with d = a u + b v, along straight lines by Gauss-Legendre
    quadrature. G is the synthetic gradient in units of the loss: the prediction, without the
    signal's `scale` and `mix`. It need not be any loss's gradient, and other ways would then give
    another surface: see `curl` and `asymmetry`, taken from central differences on the grid.

    Args:
        net: a decoupled model, in the mode (train or eval) in which it is to be examined.
        interface_name: where; its signal must have a synthesizer.
        inputs: a tuple of arguments, a dict of keyword arguments, or one tensor.
        loss: from the model's output to a scalar, reduced as the net was told (`reduction`).
        condition: labels [batch], where the signal is conditioned on them.
        directions: u and v of h's shape, used as they are; or "gradient": the true gradient (random
            where it is zero) and a random one; or "gradients": the true gradient and what the
            synthetic one adds to it, so that both lie in the plane (random where one is zero, or
            along the other); or "random": two random ones. Those that are not given are orthogonal
            and each as long as h (1 where h is zero).
        radius: the largest coordinate: a and b go from -radius to radius.
        num_points: n, coordinates along each direction.
        num_nodes: evaluations on each line; exact for a G that is a polynomial along it, up to
            degree 2 num_nodes - 1.
        seed: of the random directions.

    Returns:
        Grids and coordinates.

    Raises:
        ConditionError: the signal is conditioned and no condition is given.
        ConfigError: an option cannot work, or the interface has no synthesizer, or several tensors.

    Equals the true loss, on the whole plane, where the loss is a quadratic in h and M a linear
    synthesizer that has its gradient.

    Source: Czarnecki et al. 2017, the figure of loss surfaces (recalled); that a linear synthesizer
    implies a quadratic loss is theirs too.

    Example:
        >>> import synthgrad as sg, torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        >>> x = torch.randn(6, 4)
        >>> net = sg.decouple(model, at=["0"], example_inputs=x)
        >>> found = sg.diagnostics.implied_loss(net, "0", x, lambda out: out.square().mean())
        >>> bool((found.implied == found.implied[10, 10]).all())  # an untrained one implies no loss
        True
    """
    if num_points < 3 or num_nodes < 1 or not radius > 0:
        raise ConfigError(
            f"num_points={num_points} must be 3 or more, num_nodes={num_nodes} 1 or more, and "
            f"radius={radius} above 0"
        )
    surface = _Surface(net, _find(net, interface_name), inputs, loss, condition)
    h, value, gradient = surface.center()
    synthetic = surface.synthetic_at(h) if directions == "gradients" else torch.zeros_like(h)
    u, v = _directions(directions, h, (gradient, synthetic), seed)
    on_cpu: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    grid = torch.linspace(-radius, radius, num_points, **on_cpu)
    true, implied = (torch.empty(num_points, num_points, **on_cpu) for _ in range(2))
    field = torch.empty(2, num_points, num_points, **on_cpu)
    nodes = _gauss_legendre(num_nodes)
    for i, a in enumerate(grid.tolist()):
        for j, b in enumerate(grid.tolist()):
            step = a * u + b * v
            true[i, j] = surface.loss_at(h + step)
            steps = [
                weight * _inner(surface.synthetic_at(h + t * step), step) for t, weight in nodes
            ]
            implied[i, j] = value + sum(steps)
            synthetic = surface.synthetic_at(h + step)
            field[0, i, j], field[1, i, j] = _inner(synthetic, u), _inner(synthetic, v)
    along_a, along_b = _derivatives(field, grid, grid)
    return ImpliedLoss(
        a=grid,
        b=grid.clone(),
        true=true,
        implied=implied,
        field=field,
        curl=along_a[1] - along_b[0],
    )


class _Surface:
    """The loss and the synthetic gradient as functions of the activation at one interface."""

    def __init__(
        self,
        net: DecoupledModel,
        interface: Interface,
        inputs: Any,
        loss: Callable[[Any], Tensor],
        condition: Tensor | None,
    ) -> None:
        self.net = net
        self.interface = interface
        self.inputs = inputs
        self.loss = loss
        self.condition = condition

    def center(self) -> tuple[Tensor, float, Tensor]:
        """Return the activation, the loss there, and the loss's gradient."""
        seen = list[Tensor]()

        def keep(h: Tensor) -> Tensor:
            seen.append(h.detach().requires_grad_())
            return seen[0].clone()  # the next operation may work in place

        with restored(self.net), torch.enable_grad():
            value = self._run(keep)
            (gradient,) = torch.autograd.grad(value, seen[:1], materialize_grads=True)
        return seen[0].detach(), value.item(), gradient

    def loss_at(self, h: Tensor) -> float:
        """Return the loss with this activation in place of the model's own."""
        with restored(self.net), torch.no_grad():
            return float(self._run(lambda _: h.clone()))

    def synthetic_at(self, h: Tensor) -> Tensor:
        """Return the synthetic gradient at an activation, in units of the loss."""
        signal = self.interface.signal
        code = None
        if signal.conditioned_on is not None:
            if self.condition is None:
                raise ConditionError(
                    f"interface {self.interface.name!r} is conditioned on "
                    f"{signal.conditioned_on}: pass condition=y."
                )
            code = signal.conditioned_on.encode(self.condition, h.dtype).to(h.device)
        units = Units.of(h.shape[0], mean=self.interface.mean)
        with restored(self.interface), torch.no_grad():
            return signal.predict(self.interface.synthesizers[0], h, code) * units.factor

    def _run(self, replace: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the loss of a forward pass in which the activation is replaced."""

        def hook(module: Any, args: Any, output: Any) -> Any:
            return replace_float_tensors(output, map(replace, float_tensors(output)))

        module = self.net.model.get_submodule(self.interface.name)
        handle = module.register_forward_hook(hook)
        try:
            return self.loss(call(self.net.model, self.inputs))
        finally:
            handle.remove()


def _find(net: DecoupledModel, name: str) -> Interface:
    interfaces = {i.name: i for i in net.ordered_interfaces()}
    if name not in interfaces:
        raise ConfigError(f"there is no interface {name!r}; the names are {', '.join(interfaces)}")
    interface = interfaces[name]
    if not interface.signal.fits_target or len(interface.synthesizers) != 1:
        raise ConfigError(
            f"interface {name!r} has {len(interface.synthesizers)} modules for "
            f"{interface.signal}; a surface needs one synthesizer that predicts a gradient"
        )
    return interface


def _directions(
    wanted: Directions, h: Tensor, gradients: tuple[Tensor, Tensor], seed: int
) -> tuple[Tensor, Tensor]:
    if not isinstance(wanted, str):
        if any(d.shape != h.shape for d in wanted):
            raise ConfigError(
                f"directions of shapes {[tuple(d.shape) for d in wanted]} must have the "
                f"activation's, {tuple(h.shape)}"
            )
        u, v = wanted
        return u.to(h), v.to(h)
    if h.numel() < 2:
        raise ConfigError("an activation of one element has no plane around it")
    generator = torch.Generator("cpu").manual_seed(seed)
    drawn = torch.randn(2, h.numel(), generator=generator, dtype=torch.float64, device="cpu")
    true, synthetic = (gradient.double().flatten().cpu() for gradient in gradients)
    u = drawn[0] if wanted == "random" or not true.any() else true
    u = u / u.norm()
    v = synthetic - (synthetic @ u) * u
    if v.norm() <= 1e-6 * synthetic.norm():  # zero, or along the true one but for rounding
        v = drawn[1] - (drawn[1] @ u) * u
    length = h.double().norm().item() or 1.0
    u, v = ((length / d.norm()) * d for d in (u, v))
    return u.reshape(h.shape).to(h), v.reshape(h.shape).to(h)


def _gauss_legendre(num_nodes: int) -> list[tuple[float, float]]:
    """Return nodes in [0, 1] and their weights."""
    from numpy.polynomial.legendre import leggauss  # importing synthgrad loads torch alone

    nodes, weights = leggauss(num_nodes)
    return [(float(x + 1) / 2, float(w) / 2) for x, w in zip(nodes, weights, strict=True)]


def _inner(x: Tensor, y: Tensor) -> float:
    return float(torch.dot(x.double().flatten(), y.double().flatten()))


def _derivatives(field: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives along both axes of the grid, exact for a linear field."""
    along_a, along_b = torch.gradient(field, spacing=(a, b), dim=(1, 2), edge_order=2)
    return along_a, along_b
