"""The pipeline on a stacked LSTM, one layer a rank: synthetic gradients in depth and in time.

A batch is a chunk of `horizon` characters of parallel streams. Each layer carries its state from
chunk to chunk (`sg.recurrent.TruncatedBPTT`): with cDNI the cut in time has a synthesizer of its
own beside the one at the cut in depth, so that neither direction waits. The other methods have
plain truncated BPTT in time.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import synthgrad as sg
from synthgrad.data import CharStream
from synthgrad.data.tinyshakespeare import load_tinyshakespeare
from synthgrad.errors import ConfigError
from synthgrad.experiments.pipeline.config import LineConfig
from synthgrad.experiments.pipeline.findings import Targets, finder
from synthgrad.experiments.pipeline.measuring import DELAYED, SLOW, THROUGHPUT, timing_tasks
from synthgrad.experiments.pipeline.methods import Name
from synthgrad.experiments.pipeline.workload import ADAM, Batch, Workload
from synthgrad.experiments.study import Study


class Layer(nn.Module):
    """An LSTM over chunks, whose rows are characters: row b * horizon + t is step t of stream b.

    So an example of the interface above it is a character, and a part of a batch is whole streams.
    Its state is carried in the module, from a part of one chunk to that of the next.

    Args:
        num_inputs: features of a character.
        units: of the LSTM.
        horizon: steps of a chunk.
        signal: at the cut in time.

    Attributes:
        num_parts: in which a chunk's streams come, one forward each, always in the same order.
    """

    def __init__(self, num_inputs: int, units: int, horizon: int, signal: sg.ErrorSignal) -> None:
        super().__init__()
        core = nn.LSTM(num_inputs, units, batch_first=True)
        self.rnn = sg.recurrent.TruncatedBPTT(core, horizon=horizon, signal=signal)
        self.horizon = horizon
        self.num_parts = 1
        self.carries = deque[sg.recurrent.Carry]()

    def forward(self, rows: Tensor) -> Tensor:
        """Map [streams * horizon, inputs] to [streams * horizon, units]."""
        steps = rows.unflatten(0, (-1, self.horizon))
        carries = self.training and torch.is_grad_enabled()  # not where only shapes are asked for
        before = None
        if carries and len(self.carries) == self.num_parts:
            before = self.carries.popleft()
            if before.state[0].shape[1] != len(steps):  # another number of streams begins anew
                self.carries.clear()
                before = None
        outputs, after = self.rnn(steps, before)
        if carries:
            self.carries.append(after)
        return outputs.flatten(0, 1)


class OneHotRows(nn.Module):
    """Characters as an LSTM takes them.

    Args:
        num_classes: characters in the vocabulary.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, characters: Tensor) -> Tensor:
        """Map [rows] to [rows, classes]."""
        return F.one_hot(characters, self.num_classes).float()


@dataclass(frozen=True, kw_only=True)
class Characters(Workload):
    """Layers of LSTM on streams of tinyshakespeare, with a linear layer on top.

    Args:
        layers: LSTMs.
        units: of each.
        horizon: steps of a chunk.
    """

    layers: int
    units: int
    horizon: int

    @property
    def is_recurrent(self) -> bool:
        """It is."""
        return True

    @property
    def title(self) -> str:
        """Return its layers and the chunk's length."""
        return f"{self.layers} LSTMs of {self.units} units, chunks of {self.horizon} characters"

    def network(self, signal_in_time: bool = True) -> nn.Sequential:
        """Make the layers; the encoding goes with the first, the linear layer with the last."""
        signal = sg.SyntheticGradient() if signal_in_time else sg.NoSignal()
        widths = [self.num_classes, *[self.units] * (self.layers - 1)]
        layers = [nn.Sequential(Layer(width, self.units, self.horizon, signal)) for width in widths]
        layers[0].insert(0, OneHotRows(self.num_classes))
        layers[-1].append(nn.Linear(self.units, self.num_classes))
        return nn.Sequential(*layers)

    def come_in_parts(self, network: nn.Module, number: int) -> None:
        """Have each part of a chunk carry a state of its own."""
        for module in network.modules():
            if isinstance(module, Layer):
                module.num_parts = number

    def begin_anew(self, network: nn.Module) -> None:
        """Let every layer begin from the initial state."""
        for module in network.modules():
            if isinstance(module, Layer):
                module.carries.clear()

    def batches(self) -> Iterator[Batch]:
        """Return chunk after chunk, characters as rows."""
        text = load_tinyshakespeare()
        streams = CharStream(
            text.tokens, batch_size=self.batch_size // self.horizon, horizon=self.horizon
        )
        for characters, following in streams:
            yield characters.t().flatten(), following.t().flatten()


_METHODS: tuple[Name, ...] = (
    "backprop",
    "backprop-2",
    "ddp",
    "gpipe",
    "1f1b-2",
    "1f1b-4",
    "ddg",
    "stashing",
    "dgl",
    "cdni",
    "cdni-free",
    "dni",
)


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(LineConfig):
    """What can be chosen.

    Args:
        layers: LSTMs, one a rank.
        units: Of each.
        horizon: Steps of a chunk; `batch_size` is the characters in a chunk of all streams.
    """

    layers: int = 2
    units: int = 256
    horizon: int = 16
    batch_size: int = 16 * 32
    methods: tuple[Name, ...] = _METHODS
    delayed: tuple[Name, ...] = ("1f1b-4", "cdni")

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        super().__post_init__()
        if self.layers != self.ranks:
            raise ConfigError(f"layers={self.layers} must be ranks={self.ranks}: one layer a rank")
        if self.batch_size % (8 * self.horizon) or self.units < 1:
            raise ConfigError(
                f"batch_size={self.batch_size} must be 8, 16, ... streams of "
                f"horizon={self.horizon} characters, and units={self.units} 1 or more"
            )
        if "zero-bubble" in self.methods:
            raise ConfigError("zero-bubble wants two stages a rank, where each has one layer")

    def workload(self, seed: int) -> Characters:
        """Return the network that is timed."""
        return Characters(
            seed=seed,
            batch_size=self.batch_size,
            num_classes=len(load_tinyshakespeare().vocabulary),
            learning_rate=self.learning_rate,
            optimizer=ADAM,
            layers=self.layers,
            units=self.units,
            horizon=self.horizon,
        )


PRESETS = {
    "smoke": RecurrentConfig(
        methods=("backprop", "ddp", "1f1b-2", "cdni"),
        delayed=("1f1b-2", "cdni"),
        rounds=2,
        steps=2,
        delay_ms=2.0,
        delayed_rounds=2,
        slow_rounds=2,
        repeats=2,
        batch_size=32,
        horizon=4,
        units=8,
    ),
    "quick": RecurrentConfig(rounds=20, delayed_rounds=10, slow_rounds=10),
    "full": RecurrentConfig(rounds=100, delayed_rounds=30, slow_rounds=30),
    "paper": RecurrentConfig(rounds=400, delayed_rounds=200, slow_rounds=200),
}

EXPERIMENT = Study(
    name="pipeline/recurrent",
    title="The pipeline engine on a stacked LSTM",
    description=(
        "A character model with one LSTM a rank: synthetic gradients at the cut in depth and at "
        "the cut in time, against truncated BPTT in one process, DDP and torch's schedules."
    ),
    presets=PRESETS,
    arms=(THROUGHPUT, DELAYED, SLOW),
    tasks=timing_tasks,
    findings=finder(Targets()),
)
