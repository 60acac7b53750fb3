"""Every error signal as a method to compare: the arms of the tables that set them side by side."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch.nn import functional as F

import synthgrad as sg
from synthgrad.experiments.grid import Method, Signal
from synthgrad.experiments.networks import Kind
from synthgrad.synthesizers import Builder

SignalName = Literal["no-signal", "dni", "cdni"]
SIGNAL_LABELS: dict[SignalName, str] = {"no-signal": "no bprop", "dni": "DNI", "cdni": "cDNI"}
ONE_CONVOLUTION = partial(sg.synthesizers.conv, hidden=())
"""The smallest synthesizer for feature maps, as a linear one is for features."""


def smallest(kind: Kind) -> str | Builder:
    """Return the smallest synthesizer for a kind of network."""
    return "linear" if kind == "fcn" else ONE_CONVOLUTION


def cdni(synthesizer: str | Builder, num_classes: int) -> sg.ErrorSignal:
    """Return a synthetic gradient conditioned on the labels."""
    return sg.SyntheticGradient(synthesizer=synthesizer, condition=sg.OneHot(num_classes))


def papers_signals(
    *, dni: str | Builder = "auto", with_labels: str | Builder = "auto"
) -> dict[SignalName, Signal]:
    """Return what Jaderberg et al. 2017 hand down in place of a gradient.

    Args:
        dni: synthesizer of DNI.
        with_labels: synthesizer of cDNI.
    """
    return {
        "no-signal": sg.NoSignal(),
        "dni": sg.SyntheticGradient(synthesizer=dni),
        "cdni": partial(cdni, with_labels),
    }


def critic(num_classes: int) -> sg.ErrorSignal:
    """Return a critic of the cross-entropy that sees the labels."""
    return sg.Critic(
        loss=partial(F.cross_entropy, reduction="none"), condition=sg.OneHot(num_classes)
    )


def local_loss(head: str, num_classes: int) -> sg.ErrorSignal:
    """Return decoupled greedy learning with a head."""
    return sg.LocalLoss(num_classes=num_classes, head=head)


def predsim(num_classes: int) -> sg.ErrorSignal:
    """Return the prediction and similarity losses."""
    return sg.PredSim(num_classes=num_classes)


def methods(kind: Kind, names: Sequence[str]) -> list[Method]:
    """Return the methods of these names.

    Args:
        kind: of the network, which decides synthesizers (the smallest) and heads.
        names: "backprop", "dni", ...
    """
    head = "mlp" if kind == "fcn" else "conv"
    made = (
        Method(name="backprop", label="backprop", signal=None),
        Method(name="no-signal", label="no signal", signal=sg.NoSignal()),
        Method(name="dni", label="DNI", signal=sg.SyntheticGradient(synthesizer=smallest(kind))),
        Method(name="cdni", label="cDNI", signal=partial(cdni, smallest(kind))),
        Method(name="fa", label="FA", signal=sg.FeedbackAlignment()),
        Method(name="sign-symmetric", label="sign-symmetric FA", signal=sg.SignSymmetric()),
        Method(name="dfa", label="DFA", signal=sg.DirectFeedbackAlignment()),
        Method(name="kickback", label="Kickback", signal=sg.Kickback()),
        Method(name="critic", label="critic", signal=critic),
        Method(name="local", label="local loss (linear)", signal=partial(local_loss, "linear")),
        Method(name="dgl", label=f"DGL ({head} head)", signal=partial(local_loss, head)),
        Method(name="predsim", label="predsim", signal=predsim),
    )
    by_name = {method.name: method for method in made}
    return [by_name[name] for name in names]
