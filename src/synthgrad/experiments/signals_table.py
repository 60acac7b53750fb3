"""The unifying table of Czarnecki et al. 2017, completed: what each error signal is and needs.

What a signal needs and opens is asked of the signal itself; only the formulas are written here.
"""

import synthgrad as sg
from synthgrad.bench.scoring.table import Table
from synthgrad.signals import ErrorSignal, Lock

_ROWS: tuple[tuple[str, ErrorSignal, str], ...] = (
    ("Backprop", sg.Backprop(), "dL/dh, exact"),
    ("SyntheticGradient (DNI)", sg.SyntheticGradient(), "M(h), fitted to dL/dh"),
    (
        "SyntheticGradient (cDNI)",
        sg.SyntheticGradient(condition=sg.OneHot(10)),
        "M(h, y), fitted to dL/dh",
    ),
    ("LocalLoss", sg.LocalLoss(num_classes=10), "dL_aux(head(h), y)/dh"),
    ("NoSignal", sg.NoSignal(), "nothing: only the stages above train"),
)


def signals_table() -> Table:
    """Return one row a signal: what it hands down, from what, and which locks that opens."""
    return Table(
        title="Error signals: what an interface hands down in place of dL/dh",
        columns=("Signal", "Hands down", "Sees", "Learns", "Waits for", "Opens"),
        rows=tuple(
            (
                name,
                formula,
                "h, y" if signal.conditioned_on else "h" if _predicts(signal) else "-",
                "yes" if _predicts(signal) else "no",
                signal.needs.value,
                ", ".join(lock.value for lock in Lock if lock in signal.opens) or "-",
            )
            for name, signal, formula in _ROWS
        ),
        num_text_columns=6,
    )


def _predicts(signal: ErrorSignal) -> bool:
    return signal.fits_target or signal.is_local
