"""The one contract of every error signal: predict, emit, fit.

A signal is a frozen description with pure functions; its state (the synthesizer's weights) lives
in the module that `build` makes and that the caller keeps. So one signal object serves every
interface, and every engine runs the same maths.

Two kinds do not fit that mold and say so: a local signal is the gradient of its `local_loss`, and
one that is made of the output error is emitted in backward, by `project_error`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from synthgrad.signals.units import Units
from synthgrad.synthesizers import Condition
from synthgrad.trees import Tree


class Need(Enum):
    """What a signal must be given besides the activation before it can emit or learn."""

    NOTHING = "nothing"
    OUTPUT_ERROR = "the output error"
    STAGE_ABOVE = "the output error through the stage above"
    GRADIENT_FROM_ABOVE = "the gradient from the stage above"
    PER_EXAMPLE_LOSS = "the loss of each example, to learn; nothing to emit"


class Lock(Enum):
    """A reason for which a stage has to wait (Jaderberg et al. 2017, section 1)."""

    FORWARD = "forward"
    UPDATE = "update"
    BACKWARD = "backward"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in a network a signal is asked to work.

    Attributes:
        index: of the interface, from the bottom.
        tensor: which of the floating-point tensors in the output there.
        output: what the network returns for the example inputs [batch, ...]; None where it is not
            one floating-point tensor.
    """

    index: int
    tensor: int
    output: Tensor | None


@dataclass(frozen=True, kw_only=True)
class ErrorSignal(ABC):
    """What an interface hands to the stage below in place of the true gradient dL/dh."""

    @property
    @abstractmethod
    def needs(self) -> Need:
        """What the signal waits for before it can *emit*."""

    @property
    @abstractmethod
    def opens(self) -> frozenset[Lock]:
        """The locks that the stage below no longer has."""

    @property
    def fits_target(self) -> bool:
        """Whether a prediction is made and fitted to the gradient from above."""
        return False

    @property
    def is_local(self) -> bool:
        """Whether the stage below is trained by a loss of its own, `local_loss`."""
        return False

    @property
    def needs_output_error(self) -> bool:
        """Whether it is made of the output error, in backward, by `project_error`."""
        return self.needs in (Need.OUTPUT_ERROR, Need.STAGE_ABOVE)

    @property
    def needs_stage_above(self) -> bool:
        """Whether the stage above must be updated in the same step, so that it has a graph."""
        return self.needs in (Need.STAGE_ABOVE, Need.GRADIENT_FROM_ABOVE)

    @property
    def fits_loss(self) -> bool:
        """Whether the loss of each example is predicted, and fitted when the output is there."""
        return False

    @property
    def trains_below(self) -> bool:
        """Whether the stage below is trained at all."""
        return True

    @property
    def passes_trace(self) -> bool:
        """Whether targets further down get some of what the signal misses of its own target."""
        return False

    @property
    def observes_target(self) -> bool:
        """Whether `observe` is called with every target, beside the fit."""
        return False

    @property
    def conditioned_on(self) -> Condition | None:
        """How the condition is encoded for `predict`; None if it takes none."""
        return None

    def is_ready(self, num_fits: int) -> bool:
        """Return whether the signal is used yet, after so many fits."""
        del num_fits
        return True

    def build(self, example: Tensor) -> nn.Module | None:
        """Make the module that predicts, for activations like `example` [batch, ...].

        Returns:
            A module `forward(h, code) -> prediction`, or None for a signal that predicts nothing.

        Raises:
            ConfigError: the activation's shape does not suit the synthesizer.
        """
        del example
        return None

    def build_at(self, example: Tensor, place: Place) -> nn.Module | None:
        """Make the module for one place; `build`, unless the place matters to the signal.

        Raises:
            ConfigError: the activation's shape or the place does not suit the signal.
        """
        del place
        return self.build(example)

    def predict(self, module: nn.Module, h: Tensor, code: Tensor | None) -> Tensor:
        """Evaluate the prediction once, with its graph, from a detached activation.

        Args:
            module: what `build` made.
            h: activation [batch, ...], detached.
            code: the encoded condition [batch, C], or None.

        Returns:
            Per-example gradients of h's shape.
        """
        return module(h, code)

    @abstractmethod
    def emit(
        self, prediction: Tensor | None, target: Tensor | None, units: Units, num_fits: int
    ) -> Tensor | None:
        """Return what the stage below is given, in the units of the loss; None for nothing.

        Args:
            prediction: what `predict` returned.
            target: the gradient from the stage above, if it is there. Only signals that need it
                (`needs`) may look at it.
            units: of this batch.
            num_fits: how many targets the synthesizer had been fitted to before this batch.
        """

    def fit_gradient(self, prediction: Tensor, target: Tensor, units: Units) -> Tensor:
        """Return d(regression loss)/d(prediction), times the loss scale.

        Math: the regression loss is the squared distance per example, averaged over the batch,
        (1/B) sum_b |M(h_b, c_b) - B g_b|^2 for a mean-reduced loss (Jaderberg et al. 2017,
        section 2.1: the L2 loss, here in per-example units).

        Args:
            prediction: [batch, ...] per-example gradients.
            target: the gradient from the stage above, in the units of the loss, same shape.
            units: of this batch.
        """
        wide = torch.promote_types(prediction.dtype, torch.float32)
        step = 2 / max(units.batch_size, 1)
        error = prediction.to(wide) * (step * units.loss_scale)
        return error.sub_(target.to(wide), alpha=step / units.weight).to(prediction.dtype)

    def missed(self, signal: Tensor, target: Tensor) -> Tensor:
        """Return what is added to the signal for the targets further down; see `passes_trace`.

        Args:
            signal: what `emit` returned.
            target: the gradient from the stage above, of the same shape and units.

        Raises:
            NotImplementedError: the signal passes no trace.
        """
        raise NotImplementedError(f"{self} passes no trace")

    def observe(self, module: nn.Module, target: Tensor, units: Units) -> None:
        """Take note of a target in the module's buffers, if the signal `observes_target`.

        Args:
            module: what `build` made.
            target: the gradient from the stage above, in the units of the loss.
            units: of this batch.

        Raises:
            NotImplementedError: the signal observes no target.
        """
        raise NotImplementedError(f"{self} observes no target")

    def local_loss(self, scores: Tensor, code: Tensor, units: Units) -> Tensor:
        """Return the loss of the stage below, in the units of the network's loss.

        Args:
            scores: what the module that `build` made returned for the activation.
            code: the encoded condition.
            units: of this batch's labels: where an example has several, a mean is over all.

        Raises:
            NotImplementedError: the signal is not local.
        """
        raise NotImplementedError(f"{self} has no loss of its own")

    def project_error(self, module: nn.Module | None, error: Tensor, shape: torch.Size) -> Tensor:
        """Return the output error as a gradient at an activation, in the units of the loss.

        Args:
            module: what `build_at` made.
            error: dL/d(output) [batch, ...].
            shape: of the activation [batch, ...]: the one at the interface, or, for
                `Need.STAGE_ABOVE`, the one that the stage above hands up.

        Raises:
            NotImplementedError: the signal does not use the output error.
            InterfaceError: the error does not suit the activation.
        """
        raise NotImplementedError(f"{self} does not use the output error")

    def judge(self, module: nn.Module, h: Tensor, code: Tensor | None) -> tuple[Tensor, Tensor]:
        """Predict the loss of each example once, and what `predict` would return with it.

        Args:
            module: what `build` made.
            h: activation [batch, ...].
            code: the encoded condition [batch, C], or None.

        Returns:
            Losses [batch], with the graph that fits `module`, and their gradients of h's shape.

        Raises:
            NotImplementedError: the signal predicts no loss.
        """
        raise NotImplementedError(f"{self} predicts no loss")

    def losses(self, output: Tree, condition: Tensor | None) -> Tensor:
        """Return the loss of each example [batch], which what `judge` predicts is fitted to.

        Args:
            output: of the model.
            condition: as it was passed to the model's call.

        Raises:
            NotImplementedError: the signal predicts no loss.
        """
        raise NotImplementedError(f"{self} predicts no loss")
