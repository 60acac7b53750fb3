"""The loss critic: a small network predicts the loss, and its gradient is the error signal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.choices import choose
from synthgrad.errors import ConditionError, ConfigError, InterfaceError
from synthgrad.signals.contract import ErrorSignal, Lock, Need
from synthgrad.signals.kept_graph import kept_graph
from synthgrad.signals.units import Units
from synthgrad.synthesizers import CRITICS, Builder, Condition
from synthgrad.trees import Tree, float_tensors, replace_float_tensors

PerExampleLoss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, kw_only=True)
class Critic(ErrorSignal):
    """Hand down the gradient dV/dh of a predicted loss V(h, c), and fit V to the loss.

    When to use it: instead of `SyntheticGradient` where targets should not be bootstrapped. Every
    critic is fitted to the loss at the output itself, however many interfaces lie between, and
    needs nothing from the stage above, so no stage computes the gradient of its input. When not:
    where a gradient can be had. One number an example teaches less than a gradient does, and a V
    that is close to the loss can have a gradient that is not.

    Math: the stage below is updated with d_b = scale * dV(h_b, c_b)/dh_b * u, where u turns
    per-example gradients into the loss's units (1/B for a mean). V is fitted by least squares,
    (1/B) sum_b (V(h_b, c_b) - L_b)^2, with L_b the loss of example b at the model's output. One
    evaluation of V serves both.

    Neither d nor the fit sees what the network's loss is multiplied or divided by: pass that as
    `net(x, condition=y, loss_scale=...)`, for k accumulated chunks whose losses are divided by k
    `loss_scale=1/k`.

    A critic is fitted in the steps in which the stage below it is updated.

    Args:
        loss: from (model's output, condition) to the loss of each example [batch], such as
            `functools.partial(F.cross_entropy, reduction="none")`. It must be the one whose mean
            (or sum) you train with.
        condition: what V sees beside h. With `OneHot(num_classes)` it sees the labels, without
            which it can only predict the mean loss at h. Pass them as `net(x, condition=y)`, for
            `loss` also where V does not see them.
        critic: "auto" (convolutional for feature maps, else an MLP), "mlp", "conv", "quadratic",
            or a callable (shape_of_one_example, condition_size) -> nn.Module from (h, code) to
            losses [batch], which lets no gradient flow between examples (no batch norm). Use
            `functools.partial(sg.synthesizers.mlp_critic, hidden=(64,))` for other sizes.
        scale: factor on the emitted gradient (not on the target).

    Raises:
        ConfigError: there is no loss, scale is not positive, or no critic has that name.

    Equals backprop when V is the loss as a function of h, for example a fitted quadratic critic
    below linear stages and a squared error; equals no signal when V is constant, as it is at first.

    Source: Czarnecki et al. 2017, section 5. Per-example losses and their units, standardized
    activations and an output a class (`synthesizers.mlp_critic`) are ours.

    Example:
        >>> from functools import partial
        >>> import synthgrad as sg
        >>> from torch.nn import functional as F
        >>> loss = partial(F.cross_entropy, reduction="none")
        >>> sg.Critic(loss=loss, condition=sg.OneHot(10)).critic
        'auto'
    """

    loss: PerExampleLoss | None = None
    condition: Condition | None = None
    critic: str | Builder = "auto"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not callable(self.loss):
            raise ConfigError(
                f"Critic(loss={self.loss!r}) has nothing to be fitted to: pass a callable (output, "
                "condition) -> [batch], the loss of each example, such as "
                "functools.partial(F.cross_entropy, reduction='none')."
            )
        self._builder()
        if not self.scale > 0:
            raise ConfigError(
                f"scale={self.scale} must be positive; for no signal at all use sg.NoSignal()."
            )

    @property
    def needs(self) -> Need:
        """The loss of each example, to learn; it emits without waiting for it."""
        return Need.PER_EXAMPLE_LOSS

    @property
    def opens(self) -> frozenset[Lock]:
        """Update and backward lock: the stage below waits for nothing, only V's fit does."""
        return frozenset({Lock.UPDATE, Lock.BACKWARD})

    @property
    def fits_loss(self) -> bool:
        """Yes."""
        return True

    @property
    def conditioned_on(self) -> Condition | None:
        """The `condition` argument."""
        return self.condition

    def build(self, example: Tensor) -> nn.Module:
        """Make the critic for activations like `example`, on its device, in its dtype."""
        module = self._builder()(example.shape[1:], self.condition.size if self.condition else 0)
        return module.to(device=example.device, dtype=example.dtype)

    def predict(self, module: nn.Module, h: Tensor, code: Tensor | None) -> Tensor:
        """Return dV/dh, per example, without a graph."""
        return self.judge(module, h, code)[1]

    def judge(self, module: nn.Module, h: Tensor, code: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return V(h, c) [batch] with its graph, and dV/dh.

        Raises:
            InterfaceError: the critic gives something else than one number an example.
        """
        leaf = h.detach().requires_grad_()
        with torch.enable_grad():
            # A view, because hooks on modules (such as those that count operations) take no leaf.
            values: Tensor = module(leaf.view_as(leaf), code)
        if values.shape != h.shape[:1]:
            raise InterfaceError(
                f"the critic returned shape {tuple(values.shape)} for an activation of shape "
                f"{tuple(h.shape)}; it must give one loss an example, shape ({len(h)},)."
            )
        # The user's autocast is meant for the forward pass around it.
        off = torch.autocast(h.device.type, enabled=False)
        with torch.enable_grad(), off, kept_graph(type(self).__name__):
            (gradient,) = torch.autograd.grad(values.sum(), leaf, retain_graph=True)
        return values, gradient

    def emit(
        self, prediction: Tensor | None, target: Tensor | None, units: Units, num_fits: int
    ) -> Tensor | None:
        """Return the critic's gradient in the units of the loss."""
        assert prediction is not None
        return prediction * (units.factor * self.scale)

    def losses(self, output: Tree, condition: Tensor | None) -> Tensor:
        """Return the loss of each example [batch].

        Raises:
            ConditionError: `loss` fails, and there is no condition.
            InterfaceError: it gives something else than one number an example.
        """
        assert self.loss is not None
        detached = replace_float_tensors(output, [t.detach() for t in float_tensors(output)])
        try:
            with torch.no_grad():
                losses = self.loss(detached, condition)
        except Exception as error:
            if condition is None:
                raise ConditionError(
                    f"a critic's loss failed with {type(error).__name__}: {error}. The forward "
                    "pass was given no condition: if the loss needs labels, call "
                    "net(x, condition=y)."
                ) from error
            raise
        if losses.dim() != 1:
            raise InterfaceError(
                f"a critic's loss returned shape {tuple(losses.shape)}; it must give the loss of "
                "each example, shape [batch]: reduce over all axes but the first (cross_entropy "
                "takes reduction='none')."
            )
        return losses

    def _builder(self) -> Builder:
        return choose("critic", self.critic, CRITICS, "shape, condition_size")
