"""What is known of the training step under way; data alone, shared by all interfaces of a model."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge

from synthgrad.interface.output_error import KickedStage, OutputError
from synthgrad.signals import Units


class Trace:
    """What a target gets beside the gradient from above; see `ErrorSignal.missed`."""

    def __init__(self) -> None:
        self._value: Tensor | None = None

    def add(self, extra: Tensor | None) -> None:
        """Take some more of it."""
        self._value = self.added_to(extra)

    def added_to(self, target: Tensor | None) -> Tensor | None:
        """Return a target with it; None where there is neither."""
        if target is None or self._value is None:
            return self._value if target is None else target
        return target + self._value


@dataclass(frozen=True)
class Entry:
    """Where a tensor entered the stage above an interface, and the trace of its target there."""

    edge: GradientEdge
    trace: Trace


@dataclass(frozen=True)
class Verdict:
    """What a critic predicted in one step, until the losses that it is fitted to are known.

    Attributes:
        interface: index of the interface, from the bottom.
        tensor: which of the tensors in the output there.
        values: predicted losses [batch], with their graph.
        units: of this batch.
    """

    interface: int
    tensor: int
    values: Tensor
    units: Units


@dataclass
class Step:
    """What is known of the training step under way; shared by all interfaces of one model.

    Attributes:
        active: whether a training pass is under way.
        condition: as it was passed to the model's call.
        loss_scale: what the loss is going to be multiplied by.
        updated: a stage, bottom first: whether this step updates it.
        anchor: a scalar that leads autograd to what the loss alone does not reach; None without.
        error: the output error, once backward has begun.
        kicked: the stage under way above a Kickback interface.
        probed: activations by interface name, for a diagnostic that asks for them.
        measuring: whether predictions are measured in this step.
        position: number of interfaces crossed so far.
        entries: where tensors entered the stage under way, for traces.
        codes: encoded conditions.
        network_input: what synthetic inputs are predicted from.
        verdicts: of all critics so far.
    """

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
    entries: list[Entry] = field(default_factory=list[Entry])
    codes: dict[Any, Tensor] = field(default_factory=dict[Any, Tensor])
    network_input: Tensor | None = None
    verdicts: list[Verdict] = field(default_factory=list[Verdict])

    def updates(self, stage: int) -> bool:
        """Return whether the step updates a stage, counted from the bottom; no before any step."""
        return stage < len(self.updated) and self.updated[stage]

    def clear(self) -> None:
        """Forget the tensors of this step."""
        self.active = False
        self.condition = self.anchor = self.network_input = self.kicked = None
        self.entries = []
        self.error = OutputError()
        self.codes.clear()
        self.verdicts.clear()
