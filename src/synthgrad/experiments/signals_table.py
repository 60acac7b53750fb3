"""The unifying table of Czarnecki et al. 2017, completed: what each error signal is and needs.

What a signal needs and opens is asked of the signal itself; only the formulas are written here.
"""

from functools import partial

from torch.nn import functional as F

import synthgrad as sg
from synthgrad.bench.scoring.table import Table
from synthgrad.signals import ErrorSignal, Lock, Need

_LABELS = sg.OneHot(10)
_LOSS = partial(F.cross_entropy, reduction="none")

_ROWS: tuple[tuple[str, ErrorSignal, str], ...] = (
    ("Backprop", sg.Backprop(), "dL/dh, exact"),
    ("SyntheticGradient (DNI)", sg.SyntheticGradient(), "M(h), fitted to dL/dh"),
    (
        "SyntheticGradient (cDNI)",
        sg.SyntheticGradient(condition=_LABELS),
        "M(h, y), fitted to dL/dh",
    ),
    ("Critic", sg.Critic(loss=_LOSS, condition=_LABELS), "dV(h, y)/dh, V fitted to the loss"),
    ("LocalLoss", sg.LocalLoss(num_classes=10), "gradient of a classifier's loss on h"),
    ("PredSim", sg.PredSim(num_classes=10), "the same, and of a similarity loss"),
    ("FeedbackAlignment", sg.FeedbackAlignment(), "dL/dh with fixed random B for each W"),
    ("SignSymmetric", sg.SignSymmetric(), "dL/dh with sign(W) for each W"),
    ("DirectFeedbackAlignment", sg.DirectFeedbackAlignment(), "e A, e = dL/d(output), A random"),
    ("Kickback", sg.Kickback(), "e, as ones, through the next stage only"),
    ("NoSignal", sg.NoSignal(), "nothing: only the stages above train"),
)


def signals_table() -> Table:
    """Return one row a signal: what it hands down, from what, and which locks that opens."""
    return Table(
        title="Error signals: what an interface hands down in place of dL/dh",
        columns=("Signal", "Hands down", "Sees", "Learns from", "Waits for", "Opens"),
        rows=tuple(
            (
                name,
                formula,
                ", ".join(_sees(signal)) or "-",
                _learns_from(signal),
                "nothing" if signal.fits_loss else signal.needs.value,
                ", ".join(lock.value for lock in Lock if lock in signal.opens) or "-",
            )
            for name, signal, formula in _ROWS
        ),
        num_text_columns=6,
    )


def _sees(signal: ErrorSignal) -> list[str]:
    predicts = signal.fits_target or signal.fits_loss or signal.is_local
    error = signal.needs in (Need.OUTPUT_ERROR, Need.STAGE_ABOVE)
    return ["h"] * predicts + ["y"] * bool(signal.conditioned_on) + ["e"] * error


def _learns_from(signal: ErrorSignal) -> str:
    if signal.fits_target:
        return "the gradient from above"
    if signal.fits_loss:
        return "the loss"
    return "the labels" if signal.is_local else "-"
