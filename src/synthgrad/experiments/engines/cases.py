"""What is measured, in a word: a network, its batch, and how it is cut.

`32x64@128:cdni/4,local/1` is 32 equal layers of 64 units at batch 128, trained by stages of four
layers with cDNI, and by stages of one with a local loss. `fcn-4x256@256:cdni/1` is the network of
the papers with four layers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

import synthgrad as sg
from synthgrad.errors import ConfigError
from synthgrad.experiments.networks import even, fcn
from synthgrad.signals import ErrorSignal

SignalName = Literal["cdni", "local"]
SIGNALS: tuple[SignalName, ...] = get_args(SignalName)
SIGNAL_LABELS: dict[SignalName, str] = {"cdni": "cDNI", "local": "local loss"}

_CASE = re.compile(r"(fcn-)?(\d+)x(\d+)@(\d+)(?::(.*))?")


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How a network is decoupled.

    Args:
        signal: what comes down.
        length: layers of a stage.
    """

    signal: SignalName
    length: int

    @property
    def name(self) -> str:
        """As it stands in the names of arms: "cdni-4"."""
        return f"{self.signal}-{self.length}"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, its batch, and its cuts.

    Args:
        kind: "even", equal residual layers, or "fcn", the papers' network, whose layers count the
            linear one at the end.
        layers: how many.
        width: units of a layer.
        batch_size: examples in a batch.
        cuts: how it is decoupled; none where backprop alone is wanted.

    Raises:
        ConfigError: a cut does not divide the layers, or leaves one stage.
    """

    kind: Literal["even", "fcn"] = "even"
    layers: int
    width: int
    batch_size: int
    cuts: tuple[Cut, ...] = ()

    def __post_init__(self) -> None:
        """Check that all stages of a cut have the same length."""
        if min(self.layers, self.width, self.batch_size) < 1:
            raise ConfigError(f"{self.name}: layers, units and batch must be 1 or more")
        for cut in self.cuts:
            if cut.length < 1 or self.layers % cut.length or self.layers == cut.length:
                raise ConfigError(
                    f"{self.name}: stages of {cut.length} layers cannot be made of {self.layers}; "
                    "give a number that divides the layers and leaves two stages or more"
                )

    @property
    def name(self) -> str:
        """Of the network and its batch: "32x64-b128"."""
        return (
            f"{'fcn-' if self.kind == 'fcn' else ''}{self.layers}x{self.width}-b{self.batch_size}"
        )

    def num_stages(self, cut: Cut) -> int:
        """Return the number of stages of a cut."""
        return self.layers // cut.length

    def network(self, input_shape: Sequence[int], num_classes: int) -> nn.Sequential:
        """Return the network, its weights drawn from torch's global generator."""
        build = fcn if self.kind == "fcn" else even
        return build(input_shape, num_classes, self.layers, self.width)

    def chain(
        self, network: nn.Sequential, cut: Cut, inputs: torch.Tensor, num_classes: int
    ) -> sg.Chain:
        """Return a network in stages of equal length, stem and output with the outer ones.

        Args:
            network: that of `network`.
            cut: where.
            inputs: two examples or more, for the shapes.
            num_classes: outputs.
        """
        stem = int(self.kind == "even")
        return sg.Chain.from_sequential(
            network,
            cuts=[stem + cut.length * k for k in range(1, self.num_stages(cut))],
            signal=make_signal(cut.signal, num_classes),
            example_inputs=inputs[:2],
        )


def make_signal(name: SignalName, num_classes: int) -> ErrorSignal:
    """Return what the interfaces hand down; both need one matrix product a batch."""
    if name == "local":
        return sg.LocalLoss(num_classes=num_classes)
    return sg.SyntheticGradient(synthesizer="linear", condition=sg.OneHot(num_classes))


def parse_case(text: str) -> Case:
    """Return the case that a text names.

    Raises:
        ConfigError: it names none.

    Example:
        >>> parse_case("32x64@128:cdni/4,local/1").cuts[1]
        Cut(signal='local', length=1)
        >>> parse_case("fcn-4x256@256").name
        'fcn-4x256-b256'
    """
    found = _CASE.fullmatch(text)
    if not found:
        raise ConfigError(
            f"{text!r} is no case: write LAYERSxUNITS@BATCH:SIGNAL/LAYERS,..., such as "
            "32x64@128:cdni/4,local/1, with fcn- in front for the papers' network"
        )
    fcn_, layers, width, batch_size, cuts = found.groups()
    return Case(
        kind="fcn" if fcn_ else "even",
        layers=int(layers),
        width=int(width),
        batch_size=int(batch_size),
        cuts=tuple(_parse_cut(text, cut) for cut in cuts.split(",")) if cuts else (),
    )


def _parse_cut(case: str, text: str) -> Cut:
    signal, _, length = text.partition("/")
    if signal not in SIGNALS or not length.isdecimal():
        raise ConfigError(
            f"{text!r} in {case!r} is no cut: write a signal ({', '.join(SIGNALS)}), a slash and "
            "the layers of a stage, such as cdni/4"
        )
    return Cut(signal=SIGNALS[SIGNALS.index(signal)], length=int(length))
