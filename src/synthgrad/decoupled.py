"""A model with interfaces: how one training pass goes through them, and how they come out again."""

import itertools
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from synthgrad.errors import InterfaceError
from synthgrad.feedback import FeedbackLayer
from synthgrad.interface import (
    Hook,
    Interface,
    Step,
    check_reach,
    critics_losses,
    inside_checkpoint,
    lead_to,
)
from synthgrad.synthetic_input import network_input
from synthgrad.trees import float_tensors
from synthgrad.updates import draw_updates


def _key(name: str) -> str:
    """The key of an interface in the `nn.ModuleDict`, which forbids dots and its own attributes."""
    key = name.replace(".", "/")
    return f"{key}/" if hasattr(nn.ModuleDict, key) else key


class DecoupledModel(nn.Module):
    """A model with interfaces; made by `decouple`.

    Attributes:
        model: the user's model, unedited.
        interfaces: by name (with "/" for "."), in the order in which a forward pass crosses them.
        feedback: by name, what stands in for the transposed weights of layers; empty but for
            signals that replace them.
    """

    def __init__(
        self,
        model: nn.Module,
        interfaces: list[Interface],
        step: Step,
        probabilities: tuple[float, ...],
        feedback: Mapping[str, FeedbackLayer],
        *,
        top: Iterable[nn.Module],
        seed: int,
        accumulate: int,
        report_every: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.interfaces = nn.ModuleDict({_key(i.name): i for i in interfaces})
        self.feedback = nn.ModuleDict({_key(name): layer for name, layer in feedback.items()})
        self.seed = seed
        self.accumulate = accumulate
        self.report_every = report_every
        self.num_forwards = 0
        self._step = step
        self._top = tuple(top)
        self._probabilities = probabilities
        self._released = any(i.release for i in interfaces)
        self._anchored = any(i.hangs_on_anchor for i in interfaces)
        self._trained = (*(i.signal.trains_below for i in interfaces), True)
        self.interfaces.train(model.training)
        self.feedback.train(model.training)
        self.training = model.training
        modules = dict(model.named_modules())
        self._handles = [modules[i.name].register_forward_hook(Hook(i).cross) for i in interfaces]
        for name, layer in feedback.items():
            self._handles += layer.hook(modules[name])

    def forward(
        self,
        *args: Any,
        condition: Tensor | None = None,
        loss_scale: float | Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the model; in training mode with gradients enabled, through its interfaces.

        Args:
            *args: of the model.
            condition: labels [batch] for conditioned signals; not seen by the model itself.
            loss_scale: what the loss is going to be multiplied by: `scaler.get_scale()`, 1/k where
                each of k accumulated losses is divided by k, or the product of both.
            **kwargs: of the model.

        Returns:
            The model's output.

        Raises:
            ConditionError: a signal is conditioned and the condition is missing or wrong.
            InterfaceError: an interface cannot work in this pass; the message says why.
        """
        if not (self.training and torch.is_grad_enabled()) or not self._handles:
            return self.model(*args, **kwargs)
        # Dynamo cannot enter `_begin`, so it leaves this frame alone and compiles the stages'.
        try:
            self._begin(condition, loss_scale, (args, kwargs))
            with torch.set_grad_enabled(self._step.updated[0]):
                output = self.model(*args, **kwargs)
            return self._end(output)
        finally:
            self._forget()

    @property
    def synthesizers(self) -> dict[str, nn.ModuleList]:
        """The synthesizers by the name of their interface; one a floating-point tensor."""
        return {i.name: i.synthesizers for i in self.ordered_interfaces()}

    @property
    def synthetic_inputs(self) -> dict[str, nn.ModuleList]:
        """The synthetic inputs by the name of their interface; one a floating-point tensor."""
        found = {i.name: i.synthetic_inputs for i in self.ordered_interfaces()}
        return {name: modules for name, modules in found.items() if len(modules)}

    @property
    def num_stages(self) -> int:
        """One more than interfaces."""
        return len(self.interfaces) + 1

    @property
    def updated(self) -> tuple[bool, ...]:
        """A stage, bottom first: whether the latest training pass updates it (empty before one)."""
        return self._step.updated

    def stage_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters of the user's model, for an optimizer group."""
        return self.model.parameters()

    def synthesizer_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters of synthesizers and synthetic inputs, for an optimizer."""
        return self.interfaces.parameters()

    def report(self) -> dict[str, dict[str, Tensor]]:
        """Return, by interface, how well its synthesizer met the latest measured target.

        Taken every `report_every` steps, during backward. Values are 0-dim tensors on the model's
        device (nothing waits for them until you read one): `regression_loss`, `cosine`,
        `relative_error`, `prediction_norm`, `target_norm`, in per-example units, against the
        target (bootstrapped where the stage above used a synthetic gradient; for a critic the
        losses of the examples). A synthetic input adds `input_regression_loss` and
        `input_relative_error`. An interface whose output holds several tensors has an entry for
        each, "name[k]".
        """
        taken = dict[str, dict[str, Tensor]]()
        for interface in self.ordered_interfaces():
            single = len(interface.measures) == 1
            for k, measures in enumerate(interface.measures):
                if measures:
                    taken[interface.name if single else f"{interface.name}[{k}]"] = dict(measures)
        return taken

    def recouple(self) -> nn.Module:
        """Take every interface out and return the model, with no hook left in it.

        The decoupled model then passes calls straight on. Calling it again changes nothing.
        """
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        return self.model

    def get_extra_state(self) -> Tensor:
        """Return the number of training passes so far, which decides the next draw."""
        return torch.tensor(self.num_forwards)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of training passes."""
        self.num_forwards = int(state)

    def ordered_interfaces(self) -> Iterator[Interface]:
        """Iterate over the interfaces from the bottom up."""
        for interface in self.interfaces.values():
            assert isinstance(interface, Interface)
            yield interface

    @contextmanager
    def probing(self) -> Generator[dict[str, list[Tensor]]]:
        """Take passes that update every stage in one backward, and count for nothing.

        For diagnostics: within, a call of the net goes through its interfaces even in eval mode,
        and notes the activations that crossed each one whose stage below is trained. What comes
        down to them is the signal.

        Yields:
            By interface name, the activations of the latest pass.
        """
        interfaces = list(self.ordered_interfaces())
        own = ("training", "num_forwards", "report_every", "_probabilities", "_anchored")
        before: list[tuple[Any, str, Any]] = [
            *((i, name, getattr(i, name)) for i in interfaces for name in ("release", "num_fits")),
            *((self, name, getattr(self, name)) for name in own),
            *((self._step, name, getattr(self._step, name)) for name in ("updated", "probed")),
        ]
        for interface in interfaces:
            interface.release = False  # a backward during forward would reach the parameters
        self.training = self._anchored = True
        self.report_every = 0
        self._probabilities = (1.0,) * self.num_stages
        self._step.probed = probed = dict[str, list[Tensor]]()
        try:
            yield probed
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)

    @torch._disable_dynamo
    def _begin(
        self, condition: Tensor | None, loss_scale: float | Tensor | None, given: Any
    ) -> None:
        self._refuse_wrappers(loss_scale)
        step = self._step
        number, first = divmod(self.num_forwards, self.accumulate)
        drawn = draw_updates(self._probabilities, seed=self.seed, step=number)
        updated = tuple(d and t for d, t in zip(drawn, self._trained, strict=True))
        step.updated = updated
        step.measuring = first == 0 and self.report_every > 0 and number % self.report_every == 0
        step.condition = condition
        step.loss_scale = 1.0 if loss_scale is None else loss_scale
        if any(len(i.synthetic_inputs) for i in self.ordered_interfaces()):
            step.network_input = network_input(given)
        # Without a graph above it, an updated stage is reached by way of the anchor; so are losses
        # of an interface's own, and stages whose signal is made of the output error.
        alone = any(b and not a for b, a in itertools.pairwise(updated)) or not updated[-1]
        step.anchor = self._new_anchor() if alone or self._anchored else None
        step.position = 0
        step.active = True

    @torch._disable_dynamo
    def _forget(self) -> None:
        self._step.clear()
        for layer in self.feedback.values():
            assert isinstance(layer, FeedbackLayer)
            layer.forget()

    @torch._disable_dynamo
    def _end(self, output: Any) -> Any:
        step, interfaces = self._step, list(self.ordered_interfaces())
        if step.position != len(interfaces):
            missed = interfaces[step.position].name
            raise InterfaceError(
                f"this forward pass did not cross interface {missed!r}. The path must not depend "
                "on the data: cut where every pass crosses each interface once, in order."
            )
        if step.updated[-1]:
            check_reach("the last stage", self._top, output)
        made_of_error = [i.signal for i in interfaces if i.signal.needs_output_error]
        if made_of_error and (count := len(float_tensors(output))) > 1:
            raise InterfaceError(
                f"the model returned {count} floating-point tensors, and {made_of_error[0]} is "
                "made of the output error: with the example inputs there was one. Return one in "
                "training, or use a signal that needs no output error."
            )
        for interface, loss in critics_losses(interfaces, step, output):
            interface.learn(loss)
        self.num_forwards += 1
        return output if step.anchor is None else lead_to(step.anchor, step.error, output)

    def _new_anchor(self) -> Tensor:
        device = next((p.device for p in self.parameters()), None)
        return torch.zeros((), device=device, requires_grad=True)

    def _refuse_wrappers(self, loss_scale: float | Tensor | None) -> None:
        if getattr(self, "_is_replica", False):
            raise InterfaceError(
                "nn.DataParallel copies modules without their interfaces' state; use "
                "torch.nn.parallel.DistributedDataParallel."
            )
        if torch._C._are_functorch_transforms_active():
            raise InterfaceError(
                "a transform of torch.func (grad, vmap, jvp) cannot pass an interface, whose "
                "backward is not the derivative of its forward: transform `net.model` instead, or "
                "call backward(). torch.func.functional_call on its own works."
            )
        if inside_checkpoint() or torch._C._current_graph_task_id() != -1:
            raise InterfaceError(
                "the whole decoupled model was called inside an activation checkpoint, which would "
                "run its interfaces twice; checkpoint the layers inside a stage instead."
            )
        if self._released and loss_scale is not None:
            raise InterfaceError(
                "release='forward' cannot take a loss scale: its backward runs before the scaler "
                "knows whether the step overflows. Use release='backward', or bf16."
            )
        ddp = DistributedDataParallel._get_active_ddp_module()
        if ddp is None or not any(m is self for m in ddp.modules()):
            return
        if self._released:
            raise InterfaceError(
                "release='forward' runs backward inside forward, which "
                "DistributedDataParallel's reducer cannot follow: use release='backward'."
            )
        partial = min(self._probabilities) < 1 or not all(self._trained)
        if partial and (ddp.static_graph or not ddp.find_unused_parameters):
            raise InterfaceError(
                "some stages are not updated in every step, and DistributedDataParallel would wait "
                "for their gradients: wrap the model with find_unused_parameters=True (and without "
                "static_graph)."
            )
