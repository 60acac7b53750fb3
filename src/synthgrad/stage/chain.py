"""A network as a chain of stages with signals between them: what the engines run.

`decouple` leaves a model in one piece and lets autograd find the stages; an engine needs them
apart, because it decides itself when and where each one runs. The maths is the same: a stage
carries the very `Interface` that a decoupled model has.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from synthgrad.decoupled import DecoupledModel
from synthgrad.errors import ConfigError, EngineError, UnsupportedModelError
from synthgrad.interface import Interface, Step
from synthgrad.signals import ErrorSignal, SyntheticGradient
from synthgrad.stage.cutting import bounds_of_stages
from synthgrad.stage.limits import refuse_shared_parameters, refuse_signals
from synthgrad.stage.making import make_stages
from synthgrad.stage.partition import partition
from synthgrad.stage.pipe import stages_of_pipe
from synthgrad.stage.stage import Stage
from synthgrad.stage.timing import seconds_of_each, seconds_of_signal

if TYPE_CHECKING:
    from torch.distributed.pipelining import Pipe


class Chain(nn.Module):
    """Stages in a line, bottom first. Made by `balanced` or one of the `from_` constructors.

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
        refuse_shared_parameters(stages)
        refuse_signals(self.signals())

    @classmethod
    def from_sequential(
        cls,
        model: nn.Sequential | Sequence[nn.Module],
        *,
        example_inputs: Any,
        signal: ErrorSignal | None = None,
        stages: int | None = None,
        cuts: Sequence[int] | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> "Chain":
        """Cut an `nn.Sequential`, or a list of modules, into stages of neighboring children.

        Args:
            model: whose children run one after the other; or the children.
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
        model = model if isinstance(model, nn.Sequential) else nn.Sequential(*model)
        bounds = bounds_of_stages(len(model), stages=stages, cuts=cuts)
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
        step, mean = Step(), reduction == "mean"
        stages = make_stages(modules, step, example_inputs=example_inputs, signal=signal, mean=mean)
        return cls(stages, step, mean=mean)

    @classmethod
    def balanced(
        cls,
        model: nn.Sequential | Sequence[nn.Module],
        *,
        num_stages: int,
        example_inputs: Any,
        signal: ErrorSignal | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> "Chain":
        """Cut an `nn.Sequential`, or a list of modules, so that the slowest stage is fastest.

        When to use it: for engines that run a stage a process or a device, where the slowest one
        sets the pace. Each child's forward and backward is timed here, now and on its own device,
        and so is what the signal would take on top of it. Two calls may cut differently where
        children are about equally fast: where all must agree, as on the ranks of a pipeline, one
        calls `balanced_cuts` and all give the result to `from_sequential`. Not for the wavefront,
        which stacks *equal* stages.

        Args:
            model: whose children run one after the other; or the children.
            num_stages: how many stages to make.
            example_inputs: of the batch size that the network will be trained with.
            signal: what every interface hands down.
            reduction: how the loss reduces over the batch.

        Raises:
            ConfigError: there are fewer children than stages.

        Example:
            >>> import synthgrad as sg, torch
            >>> from torch import nn
            >>> model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(4)])
            >>> chain = sg.Chain.balanced(model, num_stages=2, example_inputs=torch.zeros(2, 8))
            >>> len(chain)
            2
        """
        signal = signal or SyntheticGradient()
        cuts = cls.balanced_cuts(
            model, num_stages=num_stages, example_inputs=example_inputs, signal=signal
        )
        return cls.from_sequential(
            model, example_inputs=example_inputs, signal=signal, cuts=cuts, reduction=reduction
        )

    @staticmethod
    def balanced_cuts(
        model: nn.Sequential | Sequence[nn.Module],
        *,
        num_stages: int,
        example_inputs: Any,
        signal: ErrorSignal | None = None,
    ) -> list[int]:
        """Return the `cuts` for `from_sequential` at which `balanced` would cut.

        Args:
            model: whose children run one after the other; or the children.
            num_stages: how many stages to make.
            example_inputs: of the batch size that the network will be trained with.
            signal: what will stand on top of every stage but the last, whose time counts there;
                None for nothing.

        Raises:
            ConfigError: there are fewer children than stages.
        """
        children = list[nn.Module](model)
        bounds_of_stages(len(children), stages=num_stages, cuts=None)
        of_cuts = None if signal is None else seconds_of_signal(children, example_inputs, signal)
        return partition(seconds_of_each(children, example_inputs), num_stages, of_cuts=of_cuts)

    @classmethod
    def from_pipe(
        cls,
        pipe: "Pipe",
        *,
        example_inputs: Any,
        signal: ErrorSignal | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> "Chain":
        """Make a chain of a model that `torch.distributed.pipelining.pipeline` has split.

        The pipe's stages hold the model's own parameters, as graphs that torch has exported. Split
        in training mode: an exported dropout or batch norm stays in the mode that it was in.

        Args:
            pipe: what `pipeline` returned; one value goes up between its stages.
            example_inputs: of the model; two examples or more.
            signal: what every interface hands down.
            reduction: how the loss reduces over the batch.

        Raises:
            UnsupportedModelError: a stage takes more than what the one before it returns, or
                returns more than the next one takes.
        """
        return cls.from_modules(
            stages_of_pipe(pipe), example_inputs=example_inputs, signal=signal, reduction=reduction
        )

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
