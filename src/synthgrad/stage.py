"""A network as a chain of stages with signals between them: what the engines run.

`decouple` leaves a model in one piece and lets autograd find the stages; an engine needs them
apart, because it decides itself when and where each one runs. The maths is the same: a stage
carries the very `Interface` that a decoupled model has.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from synthgrad.decoupled import DecoupledModel
from synthgrad.errors import ConfigError, EngineError, UnsupportedModelError
from synthgrad.interface import Interface, Step
from synthgrad.signals import ErrorSignal, SyntheticGradient
from synthgrad.signals.transposes import TransposeSignal
from synthgrad.trees import float_tensors
from synthgrad.validate import call, restored


class Stage(nn.Module):
    """The part of a network between two neighboring interfaces, with the one on top of it.

    Attributes:
        module: from the activation below (any nesting of tensors) to the activation above.
        interface: on top of this stage; None on the last one, whose signal is the loss's gradient.
        works_in_place: whether the module changes its input, so that it must be given a copy.
    """

    def __init__(
        self, module: nn.Module, interface: Interface | None, *, works_in_place: bool = False
    ) -> None:
        super().__init__()
        self.module = module
        self.interface = interface
        self.works_in_place = works_in_place

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the stage's own part of the forward pass."""
        return self.module(*args, **kwargs)

    def stage_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the stage's module."""
        return list(self.module.parameters())

    def synthesizer_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the synthesizers on top of the stage."""
        return [] if self.interface is None else list(self.interface.parameters())


class Chain(nn.Module):
    """Stages in a line, bottom first. Made by one of the `from_` constructors.

    The stages hold the user's own modules, not copies: after training, the model that was given is
    the trained model, under its own parameter names.

    Attributes:
        stages: bottom first.
        step: what the interfaces share about the batch under way.
        mean: whether the loss is a mean over examples (else a sum).
    """

    def __init__(self, stages: Sequence[Stage], step: Step, *, mean: bool) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.step = step
        self.mean = mean
        _refuse_shared_parameters(stages)
        _refuse_signals(self.signals())

    @classmethod
    def from_sequential(
        cls,
        model: nn.Sequential,
        *,
        example_inputs: Any,
        signal: ErrorSignal | None = None,
        stages: int | None = None,
        cuts: Sequence[int] | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> "Chain":
        """Cut an `nn.Sequential` into stages of neighboring children.

        Args:
            model: whose children run one after the other.
            example_inputs: of two examples or more, for the shapes.
            signal: what every interface hands down; by default an unconditioned
                `SyntheticGradient()`.
            stages: number of stages, as equal in number of children as can be. By default every
                child is a stage.
            cuts: instead, the indices of the children at which a new stage begins.
            reduction: how the loss reduces over the batch.

        Raises:
            ConfigError: the number of stages or a cut does not fit the number of children.

        Example:
            >>> import synthgrad as sg, torch
            >>> from torch import nn
            >>> model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(4)])
            >>> chain = sg.Chain.from_sequential(model, stages=2, example_inputs=torch.zeros(2, 8))
            >>> [len(stage.module) for stage in chain.stages]
            [2, 2]
        """
        count = len(model)
        if stages is not None and cuts is not None:
            raise ConfigError("give `stages` (a number) or `cuts` (places), not both.")
        if cuts is None:
            number = count if stages is None else stages
            if not 1 <= number <= count:
                raise ConfigError(f"{count} children cannot make stages={number} stages.")
            cuts = [count * k // number for k in range(1, number)]
        bounds = [0, *cuts, count]
        if any(a >= b for a, b in itertools.pairwise(bounds)):
            raise ConfigError(
                f"cuts={list(cuts)} must rise strictly and lie between 1 and {count - 1}, the "
                "indices of the children at which a stage can begin."
            )
        parts = [model[a:b] for a, b in itertools.pairwise(bounds)]
        return cls.from_modules(
            parts, example_inputs=example_inputs, signal=signal, reduction=reduction
        )

    @classmethod
    def from_modules(
        cls,
        modules: Sequence[nn.Module],
        *,
        example_inputs: Any,
        signal: ErrorSignal | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> "Chain":
        """Make one stage of each module; each is called with what the one before it returned.

        Args:
            modules: bottom first.
            example_inputs: of the first module; two examples or more.
            signal: what every interface hands down.
            reduction: how the loss reduces over the batch.

        Raises:
            ConfigError: there is no module, or an activation does not suit the signal.
            UnsupportedModelError: two stages share a parameter.
        """
        if not modules:
            raise ConfigError("a chain needs at least one module.")
        signal = signal or SyntheticGradient()
        step = Step()
        examples, in_place = _try(modules, example_inputs)
        stages = list[Stage]()
        for index, module in enumerate(modules):
            interface = None
            if index < len(modules) - 1:
                interface = Interface(
                    str(index),
                    index,
                    signal,
                    _build(signal, index, examples[index]),
                    step,
                    mean=reduction == "mean",
                    clone=False,
                    release=False,
                )
            stages.append(Stage(module, interface, works_in_place=in_place[index]))
        return cls(stages, step, mean=reduction == "mean")

    @classmethod
    def from_decoupled(cls, net: DecoupledModel) -> "Chain":
        """Make a chain of a decoupled `nn.Sequential`, with the interfaces that it has.

        Model and synthesizers are shared with `net`; take its hooks out with `net.recouple()`
        before training by an engine.

        Raises:
            UnsupportedModelError: the model is not an `nn.Sequential` cut between its children, or
                has synthetic inputs, which the engines do not run.
        """
        if net.synthetic_inputs:
            raise UnsupportedModelError(
                f"synthetic inputs (at {', '.join(net.synthetic_inputs)}) work in the ordinary "
                "loop over sg.decouple only: decouple without synthetic_input for an engine."
            )
        model = net.model
        names = [name for name, _ in model.named_children()]
        interfaces: list[Interface] = list(net.ordered_interfaces())
        if not isinstance(model, nn.Sequential) or any(i.name not in names for i in interfaces):
            raise UnsupportedModelError(
                "a chain can be made of a decoupled model that is an nn.Sequential with interfaces "
                f"after its own children {names}; these are {[i.name for i in interfaces]} of a "
                f"{type(model).__name__}. Use Chain.from_modules with the stages as modules."
            )
        bounds = [0, *(names.index(i.name) + 1 for i in interfaces), len(names)]
        parts = [model[a:b] for a, b in itertools.pairwise(bounds)]
        copies = [False, *(i.clone for i in interfaces)]
        stages = [
            Stage(part, interface, works_in_place=copy)
            for part, interface, copy in zip(parts, [*interfaces, None], copies, strict=True)
        ]
        lowest = interfaces[0]
        return cls(stages, lowest.step, mean=lowest.mean)

    def forward(self, *inputs: Any) -> Any:
        """Run all stages one after the other, with no interface between them."""
        first, *rest = self
        h = first(*inputs)
        for stage in rest:
            h = stage(h)
        return h

    def __iter__(self) -> Iterator[Stage]:
        """Iterate over the stages, bottom first."""
        for stage in self.stages:
            assert isinstance(stage, Stage)
            yield stage

    def __len__(self) -> int:
        """Return the number of stages."""
        return len(self.stages)

    def check_state(self, num_stages: int) -> None:
        """Refuse an engine's state that is of a chain with another number of stages.

        Raises:
            EngineError: it is.
        """
        if num_stages != len(self):
            raise EngineError(
                f"the state is of {num_stages} stages and this chain has {len(self)}: cut the "
                "model at the same places."
            )

    def signals(self) -> list[ErrorSignal]:
        """Return the signal of each interface, bottom first."""
        return [s.interface.signal for s in self if s.interface is not None]


def _try(
    modules: Sequence[nn.Module], example_inputs: Any
) -> tuple[list[list[Tensor]], list[bool]]:
    """Return, a stage, what it hands up for the examples, and whether it changes its input."""
    examples, in_place = list[list[Tensor]](), list[bool]()
    h = example_inputs
    with restored(nn.ModuleList(modules)), torch.no_grad():
        for index, module in enumerate(modules):
            before = [(t, t._version) for t in float_tensors(h)] if index else []
            h = module(h) if index else call(module, h)
            in_place.append(any(t._version != version for t, version in before))
            examples.append([t.detach() for t in float_tensors(h)])
    return examples, in_place


def _build(signal: ErrorSignal, index: int, examples: Sequence[Tensor]) -> list[nn.Module]:
    try:
        built = [signal.build(example) for example in examples]
    except ConfigError as error:
        raise ConfigError(f"on top of stage {index}: {error}") from error
    return [module for module in built if module is not None]


def _refuse_shared_parameters(stages: Sequence[Stage]) -> None:
    seen = dict[Tensor, int]()
    for index, stage in enumerate(stages):
        for name, parameter in stage.module.named_parameters():
            if seen.setdefault(parameter, index) != index:
                raise UnsupportedModelError(
                    f"parameter {name!r} of stage {index} is shared with stage {seen[parameter]}: "
                    "stages that run on their own cannot share weights. Put both uses into one "
                    "stage, or train with sg.decouple, where sharing works."
                )


def _refuse_signals(signals: Sequence[ErrorSignal]) -> None:
    for signal in signals:
        if signal.needs_output_error or isinstance(signal, TransposeSignal):
            raise ConfigError(
                f"{signal} cannot work in a chain of stages: an engine runs each stage apart, and "
                "knows neither the output error below the last one nor another way down through a "
                "layer. Train with sg.decouple(model, at=..., signal=...) and an ordinary loop."
            )
