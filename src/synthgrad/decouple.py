"""`decouple(model, at=...)`: put interfaces into a model from outside, and take them out again."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from synthgrad.errors import ConfigError, InterfaceError, UnsupportedModelError
from synthgrad.interface import Anchor, Interface, Step, float_tensors, replace_float_tensors
from synthgrad.signals import ErrorSignal, Need, SyntheticGradient
from synthgrad.updates import Probability, check_probability, draw_updates
from synthgrad.validate import At, Cut, validate

Signals = ErrorSignal | Mapping[str, ErrorSignal]


def decouple(
    model: nn.Module,
    at: At,
    *,
    example_inputs: Any,
    signal: Signals | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    release: Literal["backward", "forward"] = "backward",
    update_probability: Probability = 1.0,
    seed: int = 0,
    accumulate: int = 1,
    report_every: int = 0,
) -> "DecoupledModel":
    """Return a model whose stages are trained with an error signal instead of backprop.

    The model itself is not edited: its `state_dict` keys and its eval output stay what they are,
    and an ordinary training loop stays as it is. Put `net.parameters()` (or the two groups
    `net.stage_parameters()` and `net.synthesizer_parameters()`) into an optimizer, and pass labels
    as `net(x, condition=y)` where the signal is conditioned on them.

    When not to use it: if the model fits your device and nothing has to run asynchronously,
    backprop costs fewer operations (a training step of the 4-layer MNIST network costs about 1.5
    times as much with three linear synthesizers).

    Args:
        model: any module. It stays usable on its own; called directly it is plain backprop.
        at: where to cut: dotted names of modules after which an interface is set, "every" (after
            each direct child of the outermost `nn.Sequential` or `ModuleList` but the last), or a
            callable (name, module) -> bool.
        example_inputs: a tuple of arguments, a dict of keyword arguments or a tensor, of two
            examples or more: they show the shapes, and any problem with the cut.
        signal: one for all interfaces, or a dict from name to signal; by default an unconditioned
            `SyntheticGradient()`.
        reduction: how your loss reduces over the batch; synthesizers predict per-example
            gradients and the interface divides by the batch size for "mean".
        release: "backward" (the default): one backward of the loss runs every stage. "forward":
            each stage runs its backward during the forward pass, as soon as its signal exists, so
            that peak activation memory is that of the largest stage; call `zero_grad` before the
            forward pass then, not between it and the backward pass.
        update_probability: the probability with which a stage is updated in a step, one for all or
            one a stage (bottom first). A stage that is not updated costs no backward.
        seed: of those draws; equal on all ranks.
        accumulate: number of forward passes that share one draw (gradient accumulation).
        report_every: measure the synthesizers every so many steps for `net.report()`; 0 is never.

    Returns:
        A `DecoupledModel`; `recouple()` gives the model back.

    Raises:
        UnsupportedModelError: the model cannot be cut there; the message lists every problem.
        ConfigError: an option, or the combination of two, cannot work.

    Equals backprop with `sg.Backprop()` or `mix=1`.

    Example:
        >>> import synthgrad as sg, torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> x, y = torch.randn(4, 8), torch.tensor([0, 1, 2, 0])
        >>> signal = sg.SyntheticGradient(condition=sg.OneHot(3))
        >>> net = sg.decouple(model, at=["1"], signal=signal, example_inputs=x)
        >>> loss = nn.functional.cross_entropy(net(x, condition=y), y)
        >>> loss.backward()

    Source: Jaderberg et al. 2017; the one-backward form is ours.
    """
    if isinstance(model, DecoupledModel) or any(isinstance(m, Interface) for m in model.modules()):
        raise UnsupportedModelError(
            "the model is decoupled already; call recouple() first, then decouple it anew."
        )
    if reduction not in ("mean", "sum"):
        raise ConfigError(f"reduction={reduction!r} must be 'mean' or 'sum', as your loss does it.")
    if release not in ("backward", "forward"):
        raise ConfigError(f"release={release!r} must be 'backward' or 'forward'.")
    if accumulate < 1 or report_every < 0:
        raise ConfigError(
            f"accumulate={accumulate} must be 1 or more and report_every={report_every} 0 or more."
        )
    found = validate(model, at, example_inputs)
    found.raise_problems()
    signals = _signal_for_each(found.cuts, signal)
    probabilities = check_probability(update_probability, len(found.cuts) + 1)
    _check_together(signals, probabilities, release)
    step = Step()
    interfaces = [
        Interface(
            cut.name,
            index,
            one,
            _build(one, cut),
            step,
            mean=reduction == "mean",
            clone=cut.clone,
            release=release == "forward",
        )
        for index, (cut, one) in enumerate(zip(found.cuts, signals, strict=True))
    ]
    return DecoupledModel(
        model, interfaces, step, probabilities, seed=seed, accumulate=accumulate,
        report_every=report_every,
    )


def _signal_for_each(cuts: tuple[Cut, ...], signal: Signals | None) -> list[ErrorSignal]:
    if not isinstance(signal, Mapping):
        return [signal or SyntheticGradient()] * len(cuts)
    names = {cut.name for cut in cuts}
    if names != set(signal):
        raise ConfigError(
            f"`signal` has entries for {sorted(signal)} and the interfaces are {sorted(names)}: "
            "give one a name, or a single signal for all."
        )
    return [signal[cut.name] for cut in cuts]


def _check_together(
    signals: list[ErrorSignal], probabilities: tuple[float, ...], release: str
) -> None:
    waits = [s for s in signals if s.needs is Need.GRADIENT_FROM_ABOVE]
    if waits and min(probabilities) < 1:
        raise ConfigError(
            f"{waits[0]} needs the gradient from above, which a stage that is not updated does not "
            "give: use update_probability=1, or a signal that needs nothing (mix=0)."
        )
    if waits and release == "forward":
        raise ConfigError(
            f"{waits[0]} needs the gradient from above, which does not exist yet when "
            "release='forward' runs a stage's backward: use release='backward', or mix=0."
        )


def _build(signal: ErrorSignal, cut: Cut) -> list[nn.Module]:
    modules = list[nn.Module]()
    for example in cut.examples if signal.fits_target else ():
        try:
            module = signal.build(example)
        except ConfigError as error:
            raise ConfigError(f"at interface {cut.name!r}: {error}") from error
        assert module is not None
        modules.append(module)
    return modules


class DecoupledModel(nn.Module):
    """A model with interfaces; made by `decouple`.

    Attributes:
        model: the user's model, unedited.
        interfaces: by name (with "/" for "."), in the order in which a forward pass crosses them.
    """

    def __init__(
        self,
        model: nn.Module,
        interfaces: list[Interface],
        step: Step,
        probabilities: tuple[float, ...],
        *,
        seed: int,
        accumulate: int,
        report_every: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.interfaces = nn.ModuleDict({i.name.replace(".", "/"): i for i in interfaces})
        self.seed = seed
        self.accumulate = accumulate
        self.report_every = report_every
        self.num_forwards = 0
        self._step = step
        self._probabilities = probabilities
        self._released = any(i.release for i in interfaces)
        self._trained = (*(i.signal.trains_below for i in interfaces), True)
        modules = dict(model.named_modules())
        self._handles = [
            modules[i.name].register_forward_hook(i.cross) for i in interfaces
        ]

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
            loss_scale: what the loss is going to be multiplied by (`scaler.get_scale()`).
            **kwargs: of the model.

        Returns:
            The model's output.

        Raises:
            ConditionError: a signal is conditioned and the condition is missing or wrong.
            InterfaceError: an interface cannot work in this pass; the message says why.
        """
        if not (self.training and torch.is_grad_enabled()) or not self._handles:
            return self.model(*args, **kwargs)
        self._refuse_wrappers(loss_scale)
        step = self._step
        drawn = draw_updates(
            self._probabilities, seed=self.seed, step=self.num_forwards // self.accumulate
        )
        step.updated = tuple(d and t for d, t in zip(drawn, self._trained, strict=True))
        step.measuring = self.report_every > 0 and self.num_forwards % self.report_every == 0
        step.condition = condition
        step.loss_scale = 1.0 if loss_scale is None else loss_scale
        anchored = not all(step.updated) and not self._released
        step.anchor = self._new_anchor() if anchored else None
        step.position = 0
        step.active = True
        try:
            with torch.set_grad_enabled(step.updated[0]):
                output = self.model(*args, **kwargs)
            if step.position != len(self.interfaces):
                missed = list(self.ordered_interfaces())[step.position].name
                raise InterfaceError(
                    f"this forward pass did not cross interface {missed!r}; the path must not "
                    "depend on the data."
                )
            self.num_forwards += 1
            return self._anchor(output, step.anchor)
        finally:
            step.active = False
            step.condition = step.anchor = None
            step.codes.clear()

    @property
    def synthesizers(self) -> dict[str, nn.ModuleList]:
        """The synthesizers by the name of their interface; one a floating-point tensor."""
        return {i.name: i.synthesizers for i in self.ordered_interfaces()}

    @property
    def num_stages(self) -> int:
        """One more than interfaces."""
        return len(self.interfaces) + 1

    @property
    def updated(self) -> tuple[bool, ...]:
        """A stage, bottom first: whether the latest training pass updates it."""
        return self._step.updated

    def stage_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters of the user's model, for an optimizer group."""
        return self.model.parameters()

    def synthesizer_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters of the synthesizers, for an optimizer group."""
        return self.interfaces.parameters()

    def report(self) -> dict[str, dict[str, Tensor]]:
        """Return, by interface, how well its synthesizer met the latest measured target.

        Taken every `report_every` steps, during backward. Values are 0-dim tensors on the model's
        device (nothing waits for them until you read one): `regression_loss`, `cosine`,
        `relative_error`, `prediction_norm`, `target_norm`, in per-example units, against the
        target (bootstrapped where the stage above used a synthetic gradient). An interface whose
        output holds several tensors has an entry for each, "name[k]".
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

    def _new_anchor(self) -> Tensor:
        device = next((p.device for p in self.parameters()), None)
        return torch.zeros((), device=device, requires_grad=True)

    def _anchor(self, output: Any, anchor: Tensor | None) -> Any:
        """Lead a loss on the output to the interfaces, past stages that have no graph."""
        if anchor is None or not anchor.requires_grad:
            return output
        tensors = float_tensors(output)
        return replace_float_tensors(output, Anchor.apply(anchor, *tensors)) if tensors else output

    def _refuse_wrappers(self, loss_scale: float | Tensor | None) -> None:
        if getattr(self, "_is_replica", False):
            raise InterfaceError(
                "nn.DataParallel copies modules without their interfaces' state; use "
                "torch.nn.parallel.DistributedDataParallel."
            )
        if self._released and loss_scale is not None:
            raise InterfaceError(
                "release='forward' cannot take a loss scale: its backward runs before the scaler "
                "knows whether the step overflows. Use release='backward', or bf16."
            )
        ddp = DistributedDataParallel._get_active_ddp_module()
        if ddp is None:
            return
        if self._released:
            raise InterfaceError(
                "release='forward' runs backward inside forward, which "
                "DistributedDataParallel's reducer cannot follow: use release='backward'."
            )
        partial = min(self._probabilities) < 1 or not all(self._trained)
        if partial and not ddp.find_unused_parameters:
            raise InterfaceError(
                "some stages are not updated in every step, and DistributedDataParallel would wait "
                "for their gradients: wrap the model with find_unused_parameters=True."
            )
