"""The interface: identity in forward; in backward the true gradient stops and a signal goes on.

One autograd Function does it. Its backward keeps what arrives from above as the *target*, hands
the synthesizer its regression gradient, and returns the error signal to the stage below, so a
user's loop (forward, backward, step) stays as it is and one backward runs every stage.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from synthgrad import metrics
from synthgrad.errors import ConditionError, InterfaceError
from synthgrad.output_error import KickedStage, OutputError
from synthgrad.signals import ErrorSignal, Need, Units
from synthgrad.signals.contract import squared_distance
from synthgrad.synthetic_input import Exchange
from synthgrad.trees import Tree, float_tensors, replace_float_tensors


@dataclass
class Step:
    """What is known of the training step under way; shared by all interfaces of one model."""

    active: bool = False
    condition: Tensor | None = None
    loss_scale: float | Tensor = 1.0
    updated: tuple[bool, ...] = ()
    anchor: Tensor | None = None
    error: OutputError = field(default_factory=OutputError)
    kicked: KickedStage | None = None
    probed: dict[str, list[Tensor]] | None = None
    measuring: bool = False
    position: int = 0
    entries: list["Entry"] = field(default_factory=list["Entry"])
    codes: dict[Any, Tensor] = field(default_factory=dict[Any, Tensor])
    network_input: Tensor | None = None
    verdicts: list["Verdict"] = field(default_factory=list["Verdict"])

    def clear(self) -> None:
        """Forget the tensors of this step."""
        self.active = False
        self.condition = self.anchor = self.network_input = self.kicked = None
        self.entries = []
        self.error = OutputError()
        self.codes.clear()
        self.verdicts.clear()


class Interface(nn.Module):
    """The place between two stages: activations go up through it, an error signal goes down.

    It is made by `decouple`, which registers `cross` as a forward hook of the module below. A
    bound method rather than a closure, so that `deepcopy` carries it over to the copy.

    Args:
        name: dotted name of the module after which it stands.
        index: its place from the bottom; stage `index` is below it, stage `index + 1` above.
        signal: what it hands down.
        synthesizers: what the signal's `build` made, one a floating-point tensor in the module's
            output; the heads of a local signal; empty if the signal has neither.
        step: shared by the interfaces of one model.
        mean: whether the loss is a mean over examples (else a sum).
        clone: hand up a copy, because the next operation works in place.
        release: run the stage below's backward during forward.
        synthetic_inputs: the models that predict what goes up from the network's input, one a
            floating-point tensor; empty where the true activation goes up.
    """

    def __init__(
        self,
        name: str,
        index: int,
        signal: ErrorSignal,
        synthesizers: Iterable[nn.Module],
        step: Step,
        *,
        mean: bool,
        clone: bool,
        release: bool,
        synthetic_inputs: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.name = name
        self.index = index
        self.signal = signal
        self.synthesizers = nn.ModuleList(synthesizers)
        self.synthetic_inputs = nn.ModuleList(synthetic_inputs)
        self.step = step
        self.mean = mean
        self.clone = clone
        self.release = release
        self.num_fits = 0
        num_tensors = max(len(self.synthesizers), len(self.synthetic_inputs))
        self.measures: list[dict[str, Tensor]] = [{} for _ in range(num_tensors)]

    @property
    def is_local(self) -> bool:
        """Whether all that trains the stage below is at hand here, so that nothing comes down."""
        return self.signal.is_local or self.signal.fits_loss

    @property
    def hangs_on_anchor(self) -> bool:
        """Whether something that is its own is reached by way of the anchor: a loss, a signal."""
        own = self.is_local or self.signal.needs_output_error or len(self.synthetic_inputs) > 0
        return own and not self.release

    def get_extra_state(self) -> Tensor:
        """Return the number of fits, which decides when `fit_first` is over."""
        return torch.tensor(self.num_fits)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of fits."""
        self.num_fits = int(state)

    @torch._disable_dynamo  # imports Dynamo at the first call, as making an optimizer does
    def cross(self, module: nn.Module, args: Any, output: Tree) -> Tree:
        """Take a stage's output up through the interface; a forward hook."""
        step = self.step
        if not step.active:
            return output
        if step.position != self.index:
            raise InterfaceError(
                f"interface {self.name!r} was crossed as number {step.position} in this forward "
                f"pass; with the example inputs it was number {self.index}. The path must not "
                "depend on the data: cut where every pass crosses each interface once, in order."
            )
        step.position += 1
        below, above = step.updated[self.index], step.updated[self.index + 1]
        if below and step.probed is not None:
            output = self._probe(output, step.probed)
        if step.kicked is not None:
            step.kicked.outputs = float_tensors(output)
            step.kicked = None
        if (below and not torch.is_grad_enabled()) or inside_checkpoint():
            raise InterfaceError(_CHECKPOINTED.format(name=self.name))
        came = output
        if self.signal.fits_target and (below or above):
            with torch.enable_grad():
                output = self._substitute(output, below=below, above=above)
        elif self.is_local:
            with torch.enable_grad():
                output = self._train_below(output) if below else self._detached(output)
        elif self.signal.needs_output_error and not self._hands_down_the_error_itself():
            with torch.enable_grad():
                output = self._await_error(output) if below else self._detached(output)
        if len(self.synthetic_inputs):
            with torch.set_grad_enabled(above):
                output = self._exchange(came, output, fits=above)
        # A stage that is not updated runs without a graph, and so costs no backward.
        torch.set_grad_enabled(above)
        return output

    def local_loss(self, output: Tree) -> Tensor:
        """Return the stage's own loss, with its graph; for local signals and critics only.

        A critic's stands in for its signal, which is its gradient; `critics_losses` gives what
        the critic itself is fitted by when the model's output is there.

        Raises:
            InterfaceError: the labels are missing or wrong, or do not suit the head.
        """
        losses = list[Tensor]()
        leaves = self._leaves(output, self.synthesizers)
        for k, (module, h) in enumerate(zip(self.synthesizers, leaves, strict=True)):
            units = Units.of(h.shape[0], mean=self.mean, loss_scale=self.step.loss_scale)
            try:
                code = self.code(h)
                if self.signal.fits_loss:
                    values, gradient = self.signal.judge(module, h, code)
                    self.step.verdicts.append(Verdict(self, k, values, units))
                    signal = self.signal.emit(gradient, None, units, self.num_fits)
                    assert signal is not None
                    losses.append((h * signal.to(h.dtype)).sum())
                else:
                    assert code is not None
                    losses.append(self.signal.local_loss(module(h), code, units))
            except InterfaceError as error:
                raise type(error)(f"at interface {self.name!r}: {error}") from error
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def _train_below(self, output: Tree) -> Tree:
        """Leave the local loss where backward reaches it: at the anchor, not at what goes up.

        What goes up needs no gradient then, so the stage above does not compute one.
        """
        self.learn(self.local_loss(output))
        return self._detached(output)

    def learn(self, loss: Tensor) -> None:
        """Run a loss's backward with that of the model, or now where the stage is released."""
        if not loss.requires_grad:  # such as a frozen stage under a head without parameters
            return
        if self.release:
            with torch.autocast(loss.device.type, enabled=False):
                loss.backward()
        else:
            start = partial(torch.ones_like, loss.detach())
            self.step.anchor = _Attach.apply(self.step.anchor, loss, start, self.name)

    def _exchange(self, came: Tree, output: Tree, *, fits: bool) -> Tree:
        """Hand up what the synthetic inputs predict, and fit them to what came from below."""
        x = self.step.network_input
        assert x is not None
        passed = list[Tensor]()
        leaves, crossed = self._leaves(came, self.synthetic_inputs), float_tensors(output)
        for k, (module, h, up) in enumerate(
            zip(self.synthetic_inputs, leaves, crossed, strict=True)
        ):
            guess: Tensor = module(x.detach())
            if guess.shape != h.shape:
                raise InterfaceError(
                    f"the synthetic input at interface {self.name!r} has shape "
                    f"{tuple(guess.shape)} where the activation has {tuple(h.shape)}; it was built "
                    "for the shapes of the example inputs."
                )
            if fits:
                units = Units.of(h.shape[0], mean=self.mean, loss_scale=self.step.loss_scale)
                self.learn(squared_distance(guess, h.to(guess.device), units))
                if self.step.measuring:
                    found = measure(guess.to(h.device), h, Units.of(h.shape[0], mean=False))
                    for name in ("regression_loss", "relative_error"):
                        self.measures[k][f"input_{name}"] = found[name]
            passed.append(Exchange.apply(up, guess.detach().to(h), self.clone))
        return replace_float_tensors(output, passed)

    def _hands_down_the_error_itself(self) -> bool:
        """Whether it is Kickback at the top: the stage above ends in the output itself."""
        top = self.index == len(self.step.updated) - 2
        return top and self.signal.needs is Need.STAGE_ABOVE

    def _await_error(self, output: Tree) -> Tree:
        """Leave the stage below where backward reaches it when the output error is there.

        For direct feedback what goes up needs no gradient, so the stage above computes none.
        """
        leaves, error = float_tensors(output), self.step.error
        if self.signal.needs is Need.STAGE_ABOVE:
            passed = [h.detach().requires_grad_() for h in leaves]
            stage = KickedStage(self.signal, passed)
            self.step.kicked = stage
            error.when_there(stage.take)
            starts = [partial(_kicked_back, stage, k) for k in range(len(leaves))]
            output = replace_float_tensors(
                output, [h.clone() for h in passed] if self.clone else passed
            )
        else:
            starts = [
                partial(_fed_back, self.signal, module, error, h.shape, h.dtype)
                for module, h in zip(
                    self.synthesizers, self._leaves(output, self.synthesizers), strict=True
                )
            ]
            output = self._detached(output)
        for h, start in zip(leaves, starts, strict=True):
            if h.requires_grad:
                self.step.anchor = _Attach.apply(self.step.anchor, h, start, self.name)
        return output

    def _probe(self, output: Tree, probed: dict[str, list[Tensor]]) -> Tree:
        """Keep the activations, for a diagnostic that asks autograd what comes down to them."""
        # Above frozen stages an activation is a leaf; it is handed a signal all the same.
        leaves = [
            h if h.requires_grad else h.detach().requires_grad_() for h in float_tensors(output)
        ]
        probed[self.name] = leaves
        return replace_float_tensors(output, [h.clone() for h in leaves] if self.clone else leaves)

    def _detached(self, output: Tree) -> Tree:
        up = [h.detach() for h in float_tensors(output)]
        return replace_float_tensors(output, [h.clone() for h in up] if self.clone else up)

    def _leaves(self, output: Tree, modules: nn.ModuleList) -> list[Tensor]:
        leaves = float_tensors(output)
        if len(leaves) != len(modules):
            raise InterfaceError(
                f"the output at interface {self.name!r} holds {len(leaves)} floating-point "
                f"tensors; with the example inputs it held {len(modules)}."
            )
        return leaves

    def _substitute(self, output: Tree, *, below: bool, above: bool) -> Tree:
        leaves = self._leaves(output, self.synthesizers)
        crossings = [Crossing(self, k, h, fits=above) for k, h in enumerate(leaves)]
        entries = list[Entry]()
        predictions = [
            c.predict(m, h) for c, m, h in zip(crossings, self.synthesizers, leaves, strict=True)
        ]
        anchor = self.step.anchor
        if self.release:
            if below:
                _release(leaves, crossings, predictions)
            leaves = [h.detach() for h in leaves]
            anchor = None  # what stands below has run its backward, and must not be reached again
        passed = list[Tensor]()
        for crossing, h, prediction in zip(crossings, leaves, predictions, strict=True):
            anchor, up = _Substitute.apply(anchor, h, prediction, crossing)
            passed.append(up)
            if above and up.requires_grad:
                # An edge and not the tensor, which the next operation may change in place.
                entries.append(Entry(get_gradient_edge(up), crossing))
        self.step.entries = entries
        if not self.release:
            self.step.anchor = anchor
        return replace_float_tensors(output, passed)

    def code(self, h: Tensor) -> Tensor | None:
        """Return the encoded condition for an activation, encoded once a step for all interfaces.

        Raises:
            ConditionError: it is missing, or does not suit the activation's batch or the encoder.
        """
        encoder = self.signal.conditioned_on
        if encoder is None:
            return None
        labels = self.step.condition
        if labels is None:
            raise ConditionError(
                f"the signal is conditioned on {encoder}, and the forward pass was given no "
                "condition: call net(x, condition=y)."
            )
        if labels.shape[:1] != h.shape[:1]:
            raise ConditionError(
                f"the condition has shape {tuple(labels.shape)} and the activation "
                f"{tuple(h.shape)}: both need the batch as first axis."
            )
        key = (encoder, h.dtype, h.device)
        if key not in self.step.codes:
            self.step.codes[key] = encoder.encode(labels, h.dtype).to(h.device)
        return self.step.codes[key]


class Crossing:
    """One tensor that went up through an interface in one step, and what will come down.

    Args:
        interface: which one.
        index: which of the tensors in the output there.
        h: the activation [batch, ...].
        fits: whether a target will come, so that the prediction needs its graph.
    """

    def __init__(self, interface: Interface, index: int, h: Tensor, *, fits: bool) -> None:
        step = interface.step
        self.interface = interface
        self.index = index
        self.fits = fits
        self.dtype = h.dtype
        self.traced = interface.signal.passes_trace and fits and h.grad_fn is not None
        self.entries = step.entries if self.traced else []
        self.exit = get_gradient_edge(h) if self.entries else None
        self.trace: Tensor | None = None
        self.num_fits = interface.num_fits
        self.units = Units.of(
            h.shape[0] if h.dim() else 1, mean=interface.mean, loss_scale=step.loss_scale
        )
        self.measuring = step.measuring
        self.spent = False

    def predict(self, module: nn.Module, h: Tensor) -> Tensor:
        """Evaluate the synthesizer once; without a graph if no target will come."""
        name = self.interface.name
        try:
            with torch.set_grad_enabled(self.fits):
                code = self.interface.code(h)
                prediction = self.interface.signal.predict(module, h.detach(), code)
        except ConditionError as error:
            raise ConditionError(f"at interface {name!r}: {error}") from error
        if prediction.shape != h.shape:
            raise InterfaceError(
                f"the synthesizer at interface {name!r} predicts shape {tuple(prediction.shape)} "
                f"for an activation of shape {tuple(h.shape)}; a gradient has the shape of its "
                "activation."
            )
        return prediction

    def emit(self, prediction: Tensor, target: Tensor | None) -> Tensor | None:
        """Return what goes down, in the units of the loss and the dtype of the activation."""
        signal = self.interface.signal.emit(prediction, target, self.units, self.num_fits)
        return None if signal is None else signal.to(self.dtype)

    def pass_trace(self, signal: Tensor, target: Tensor | None) -> None:
        """Add what the signal misses of its target to the targets below, through the stage between.

        The stage's own parameters do not see it, so it is a second pass, to the stage's inputs.
        """
        if self.exit is None:
            return
        missed = self.missed(signal, target)
        edges = [entry.edge for entry in self.entries]
        found = torch.autograd.grad(
            [self.exit], edges, [missed], retain_graph=True, allow_unused=True
        )
        for entry, extra in zip(self.entries, found, strict=True):
            entry.crossing.trace = _sum(entry.crossing.trace, extra)

    def missed(self, signal: Tensor, target: Tensor | None) -> Tensor:
        """Return what the targets below get beside the signal."""
        # No target: the stage above does not use this tensor, and its gradient is zero.
        target = torch.zeros_like(signal) if target is None else target
        return self.interface.signal.missed(signal, target)

    def fit(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the regression gradient at the prediction, and note how good it was."""
        if self.index == 0:
            self.interface.num_fits += 1
        if self.measuring:
            self.interface.measures[self.index].update(measure(prediction, target, self.units))
        return self.interface.signal.fit_gradient(prediction, target, self.units)


@dataclass(frozen=True)
class Entry:
    """Where a tensor entered the stage above an interface, and the crossing that let it in."""

    edge: GradientEdge
    crossing: Crossing


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return second if first is None else first if second is None else first + second


@dataclass(frozen=True)
class Verdict:
    """What a critic predicted in one step, until the losses that it is fitted to are known.

    Attributes:
        interface: where.
        index: which of the tensors in the output there.
        values: predicted losses [batch], with their graph.
        units: of this batch.
    """

    interface: Interface
    index: int
    values: Tensor
    units: Units

    def fit(self, losses: Tensor) -> Tensor:
        """Return the regression loss of the critic, and note how good it was."""
        interface = self.interface
        if losses.shape != self.values.shape:
            raise InterfaceError(
                f"the critic at interface {interface.name!r} predicts the losses of "
                f"{len(self.values)} examples, and its loss returned {len(losses)}: give one an "
                "example."
            )
        if self.index == 0:
            interface.num_fits += 1
        if interface.step.measuring:
            units = Units.of(len(losses), mean=False)
            interface.measures[self.index].update(measure(self.values, losses, units))
        return squared_distance(self.values, losses.to(self.values.device), self.units)


def critics_losses(step: Step, output: Tree) -> Iterator[tuple[Interface, Tensor]]:
    """Give the regression loss of every critic of this step, now that the output is there.

    Args:
        step: with the critics' verdicts in it.
        output: of the model; nothing flows back into it.

    Yields:
        The interface, and the loss with its graph.

    Raises:
        InterfaceError: a critic's loss does not give one number an example.
    """
    known = dict[ErrorSignal, Tensor]()
    for verdict in step.verdicts:
        signal = verdict.interface.signal
        if signal not in known:
            known[signal] = signal.losses(output, step.condition)
        yield verdict.interface, verdict.fit(known[signal])


def _release(leaves: list[Tensor], crossings: list[Crossing], predictions: list[Tensor]) -> None:
    """Run the backward of the stage below now; its graph is freed by that."""
    ready = [
        (h, crossing.emit(prediction.detach(), None))
        for h, crossing, prediction in zip(leaves, crossings, predictions, strict=True)
        if h.requires_grad
    ]
    if ready:
        # The user's autocast is meant for the forward pass around it.
        with torch.autocast(ready[0][0].device.type, enabled=False):
            torch.autograd.backward([h for h, _ in ready], [signal for _, signal in ready])


class _Substitute(torch.autograd.Function):
    """(anchor, h, prediction) -> (anchor, h); backward substitutes the signal for the gradient.

    The anchor is a scalar that leads autograd from interface to interface even where the stage
    between them was not updated and so has no graph. None where every stage has one.
    """

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor | None, h: Tensor, prediction: Tensor, crossing: Crossing
    ) -> tuple[Tensor | None, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(prediction)
        ctx.crossing = crossing
        up = h.clone() if crossing.interface.clone else h.view_as(h)
        return (None if anchor is None else anchor.view_as(anchor)), up

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        crossing: Crossing = ctx.crossing
        if crossing.spent or torch.is_grad_enabled():
            raise InterfaceError(_TWICE.format(name=crossing.interface.name))
        crossing.spent = True
        (prediction,) = ctx.saved_tensors
        down_anchor, target = gradients
        target = _sum(target, crossing.trace)
        _, needs_signal, needs_fit, _ = ctx.needs_input_grad
        signal = crossing.emit(prediction, target) if needs_signal else None
        if signal is not None:
            crossing.pass_trace(signal, target)
        fit = crossing.fit(prediction, target) if needs_fit and target is not None else None
        return down_anchor, signal, fit, None


def _fed_back(
    signal: ErrorSignal,
    module: nn.Module,
    error: OutputError,
    shape: torch.Size,
    dtype: torch.dtype,
) -> Tensor:
    return signal.project_error(module, error.value, shape).to(dtype)


def _kicked_back(stage: KickedStage, index: int) -> Tensor:
    return stage.gradients[index]


class _Attach(torch.autograd.Function):
    """(anchor, tensor) -> anchor; backward starts at the tensor, whatever comes from above.

    The tensor is a stage's own loss, or its activation; `start` gives the gradient there.
    """

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, tensor: Tensor, start: Callable[[], Tensor], name: str
    ) -> Tensor:
        ctx.start = start
        ctx.spent = False
        ctx.name = name
        return anchor.view_as(anchor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        if ctx.spent or torch.is_grad_enabled():
            raise InterfaceError(_TWICE.format(name=ctx.name))
        ctx.spent = True
        return gradients[0], ctx.start(), None, None


class _Lead(torch.autograd.Function):
    """(anchor, *outputs) -> outputs; its backward reaches the anchor, whatever comes from above.

    It also is where the output error appears, before any stage's backward.
    """

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, error: OutputError, *outputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(anchor)
        ctx.error = error
        return tuple(h.clone() for h in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (anchor,) = ctx.saved_tensors
        if gradients[0] is not None:
            ctx.error.arrive(gradients[0])
        return torch.zeros_like(anchor), None, *gradients


def lead_to(anchor: Tensor, error: OutputError, output: Tree) -> Tree:
    """Return a model's output such that a loss on it leads autograd to the anchor.

    Args:
        anchor: what is reached.
        error: is told the gradient of the output's first floating-point tensor.
        output: of the model.

    Raises:
        InterfaceError: the output holds no floating-point tensor.
    """
    tensors = float_tensors(output)
    if not tensors:
        raise InterfaceError(
            f"the model returned {type(output).__name__} without a floating-point tensor in it "
            "(tuples, lists and dicts are searched), through which backward could reach the stages."
        )
    # Where the top stage is updated, outputs that need no gradient stay as they are.
    some = any(t.requires_grad for t in tensors)
    led = _Lead.apply(anchor, error, *tensors)
    return replace_float_tensors(
        output,
        [
            new if old.requires_grad or not some else old
            for old, new in zip(tensors, led, strict=True)
        ],
    )


def measure(prediction: Tensor, target: Tensor, units: Units) -> dict[str, Tensor]:
    """Return how well a prediction met its target: 0-dim tensors, in per-example units."""
    with torch.no_grad():
        wide = torch.promote_types(prediction.dtype, torch.float32)
        predicted, true = prediction.detach().to(wide), target.detach().to(wide) / units.factor
        return {
            "regression_loss": (predicted - true).square().sum() / max(units.batch_size, 1),
            "cosine": metrics.cosine(predicted, true),
            "relative_error": metrics.relative_error(predicted, true),
            "prediction_norm": metrics.norm(predicted),
            "target_norm": metrics.norm(true),
        }


def inside_checkpoint() -> bool:
    """Whether this code runs inside an activation checkpoint, of either kind."""
    # The reentrant kind is an autograd Function, and inside of one forward-mode AD is off.
    if not torch._C._is_fwd_grad_enabled():
        return True
    # The other kind packs saved tensors by a hook of its own.
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)  # pyright: ignore[reportAttributeAccessIssue]
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"


_CHECKPOINTED = (
    "interface {name!r} lies inside an activation checkpoint (or torch.no_grad), which would run "
    "it twice. Checkpoint inside a stage instead: wrap the layers within {name!r}, not the call of "
    "{name!r} itself, or set the interface after the module that calls checkpoint()."
)
_TWICE = (
    "backward ran a second time, or with create_graph=True, through interface {name!r}: its signal "
    "would count twice, and it has no second derivative. Add the losses up and call backward once, "
    "without create_graph."
)
