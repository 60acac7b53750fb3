"""The error signals that this paper compares, by the names and labels of its arms."""

from typing import Literal

import synthgrad as sg

SignalName = Literal["no-signal", "dni", "cdni"]
SIGNAL_LABELS: dict[SignalName, str] = {"no-signal": "no bprop", "dni": "DNI", "cdni": "cDNI"}

Synthesizer = Literal["auto", "mlp", "mirror"]


def make_signal(
    name: SignalName,
    num_classes: int,
    *,
    dni_synthesizer: Synthesizer = "auto",
    cdni_synthesizer: Synthesizer = "auto",
) -> sg.ErrorSignal:
    """Return a signal.

    Args:
        name: which one.
        num_classes: of the labels that cDNI is conditioned on.
        dni_synthesizer: of DNI without labels.
        cdni_synthesizer: of DNI with labels.
    """
    match name:
        case "no-signal":
            return sg.NoSignal()
        case "dni":
            return sg.SyntheticGradient(synthesizer=dni_synthesizer)
        case "cdni":
            labels = sg.OneHot(num_classes)
            return sg.SyntheticGradient(synthesizer=cdni_synthesizer, condition=labels)
