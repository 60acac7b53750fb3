"""`decouple(model, at=...)`: put interfaces into a model from outside."""

import itertools
from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from synthgrad.decoupled import DecoupledModel
from synthgrad.errors import ConfigError, InterfaceError, UnsupportedModelError
from synthgrad.feedback import FeedbackLayer, feedback_layers
from synthgrad.interface import Hook, Interface, Step
from synthgrad.signals import ErrorSignal, Need, Place, SyntheticGradient
from synthgrad.signals.transposes import TransposeSignal
from synthgrad.synthetic_input import SyntheticInput, network_input
from synthgrad.updates import Probability, check_probability
from synthgrad.validate import At, Cut, Validation, validate

Signals = ErrorSignal | Mapping[str, ErrorSignal]
SyntheticInputs = SyntheticInput | Mapping[str, SyntheticInput]


def decouple(
    model: nn.Module,
    at: At,
    *,
    example_inputs: Any,
    signal: Signals | None = None,
    synthetic_input: SyntheticInputs | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    release: Literal["backward", "forward"] = "backward",
    update_probability: Probability = 1.0,
    seed: int = 0,
    accumulate: int = 1,
    report_every: int = 0,
) -> DecoupledModel:
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
        synthetic_input: in training, run the stage above an interface on a prediction of its input
            from the network's input; one for all interfaces, or a dict by name (the others hand up
            the true activation). The model must then take one floating-point tensor.
        reduction: how your loss reduces over the batch; synthesizers predict per-example
            gradients and the interface divides by the batch size for "mean".
        release: "backward" (the default): one backward of the loss runs every stage. "forward":
            each stage runs its backward during the forward pass, as soon as its signal exists, so
            that peak activation memory is that of the largest stage; call `zero_grad` before the
            forward pass then, not between it and the backward pass.
        update_probability: the probability with which a stage is updated in a step, one for all or
            one a stage (bottom first). A stage that is not updated costs no backward.
        seed: of those draws; equal on all ranks.
        accumulate: number of forward passes that share one draw (gradient accumulation). Where you
            divide each of their losses by k, say so in each pass, as `net(x, condition=y,
            loss_scale=1/k)`: what is predicted, and losses of the stages' own, must be divided too.
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
    if _is_decoupled(model):
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
    built = _build_all(signals, found)
    predicted = _build_synthetic_inputs(synthetic_input, found.cuts, signals, example_inputs)
    step = Step()
    feedback = dict[str, FeedbackLayer]()
    if isinstance(signals[0], TransposeSignal):
        names = [cut.name for cut in found.cuts]
        feedback = feedback_layers(model, names, signals[0], example_inputs, step)
    called = [[model.get_submodule(name) for name in names] for names in found.stages]
    interfaces = [
        Interface(
            cut.name,
            index,
            one,
            modules,
            step,
            mean=reduction == "mean",
            clone=cut.clone,
            release=release == "forward",
            synthetic_inputs=predicted.get(cut.name, ()),
            below=called[index],
        )
        for index, (cut, one, modules) in enumerate(zip(found.cuts, signals, built, strict=True))
    ]
    return DecoupledModel(
        model,
        interfaces,
        step,
        probabilities,
        feedback,
        top=called[-1],
        seed=seed,
        accumulate=accumulate,
        report_every=report_every,
    )


def _is_decoupled(model: nn.Module) -> bool:
    """Whether the model, or a part of it, has interfaces: in it, or hooked to it."""
    hooks = [hook for m in model.modules() for hook in m._forward_hooks.values()]
    owners = [getattr(hook, "__self__", None) for hook in hooks]
    return any(isinstance(m, Interface | Hook) for m in [*model.modules(), *owners])


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
    alike = [s for s in signals if isinstance(s, TransposeSignal)]
    if alike and any(s != signals[0] for s in signals):
        raise ConfigError(
            f"{alike[0]} replaces the way down through every stage above, so all interfaces of a "
            "model must have the same signal; these have several."
        )
    waits = [s for s in signals if s.needs_stage_above]
    if waits and min(probabilities) < 1:
        raise ConfigError(
            f"{waits[0]} needs {waits[0].needs.value}, which a stage that is not updated does "
            "not give: use update_probability=1, or a signal that needs nothing of the stage above "
            "(mix=0, sg.DirectFeedbackAlignment())."
        )
    for lower, upper in itertools.pairwise(signals):
        if lower.needs_stage_above and not upper.trains_below:
            raise ConfigError(
                f"{lower} needs {lower.needs.value}, which does not train because "
                f"the interface on top of it has {upper}: put {upper} at the lower one too."
            )
    late = [s for s in signals if s.needs_stage_above or s.needs_output_error or s.passes_trace]
    if late and release == "forward":
        raise ConfigError(
            f"{late[0]} needs what does not exist yet when release='forward' runs a stage's "
            f"backward ({late[0].needs.value}, or the trace of the stage above): use "
            "release='backward', or a signal that needs nothing (mix=0, trace_decay=0)."
        )


def _build_all(signals: list[ErrorSignal], found: Validation) -> list[list[nn.Module]]:
    """Make the synthesizers of each interface, or tell every activation that does not suit."""
    built, problems = list[list[nn.Module]](), list[str]()
    output = found.outputs[0] if len(found.outputs) == 1 else None
    for index, (signal, cut) in enumerate(zip(signals, found.cuts, strict=True)):
        modules = list[nn.Module]()
        for tensor, example in enumerate(cut.examples):
            try:
                module = signal.build_at(example, Place(index=index, tensor=tensor, output=output))
            except ConfigError as error:
                problems.append(f"at interface {cut.name!r}: {error}")
            else:
                modules += [] if module is None else [module]
        built.append(modules)
    if problems:
        raise ConfigError("\n".join(problems))
    return built


def _build_synthetic_inputs(
    given: SyntheticInputs | None,
    cuts: tuple[Cut, ...],
    signals: list[ErrorSignal],
    example_inputs: Any,
) -> dict[str, list[nn.Module]]:
    """Make the synthetic inputs by the name of their interface, or tell what does not suit."""
    if given is None:
        return {}
    wanted = given if isinstance(given, Mapping) else {cut.name: given for cut in cuts}
    if unknown := sorted(set(wanted) - {cut.name for cut in cuts}):
        raise ConfigError(
            f"`synthetic_input` has entries for {unknown}, where there is no interface; they are "
            f"{[cut.name for cut in cuts]}."
        )
    try:
        x = network_input(example_inputs)
    except InterfaceError as error:
        raise ConfigError(str(error)) from error
    built = dict[str, list[nn.Module]]()
    for cut, signal in zip(cuts, signals, strict=True):
        if cut.name not in wanted:
            continue
        if signal.needs is Need.GRADIENT_FROM_ABOVE:
            raise ConfigError(
                f"at interface {cut.name!r}: {signal} needs the gradient from above, which with a "
                "synthetic input is that of another point than the stage's output, and comes too "
                "late for it to be updated alone: use a signal that needs nothing (mix=0)."
            )
        try:
            built[cut.name] = [wanted[cut.name].build(x, h) for h in cut.examples]
        except ConfigError as error:
            raise ConfigError(f"at interface {cut.name!r}: {error}") from error
    return built
