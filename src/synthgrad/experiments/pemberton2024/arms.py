"""The ways to train that both experiments compare: one core, one horizon, another signal.

In the public code of the paper (neuralml/bp_lambda) n-step synthetic gradients bootstrap from what
the core was given, so that their targets are discounted by the signal's scale, 0.1 on sequential
MNIST, while those of BP(lambda) are discounted by gamma, 0.9. The arm "n-step" is the former;
"bp-0" differs from "bp-1" in lambda alone.
"""

from dataclasses import dataclass

from torch import nn

import synthgrad as sg

FULL, TRUNCATED, N_STEP = "full-bptt", "bptt", "n-step"
NUM_CLASSES = 10
_WHOLE = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train.

    Args:
        name: of its records.
        label: for people.
        trace_decay: lambda; None for no signal at all.
        discounted: the target is discounted by the experiment's gamma, and not by the signal's
            scale.
        whole: the chunk is the whole sequence.
        sees_label: the synthesizer sees the label beside the state.
    """

    name: str
    label: str
    trace_decay: float | None = None
    discounted: bool = True
    whole: bool = False
    sees_label: bool = False

    def build(
        self, core: nn.LSTM, *, horizon: int, scale: float, gamma: float
    ) -> sg.recurrent.TruncatedBPTT:
        """Put the arm's signal at the cuts.

        Args:
            core: to train.
            horizon: steps of a chunk, where the arm has cuts.
            scale: factor on what the core gets of the signal.
            gamma: discount in its target.
        """
        signal: sg.SyntheticGradient | sg.NoSignal = sg.NoSignal()
        if self.trace_decay is not None:
            signal = sg.SyntheticGradient(
                synthesizer="linear",
                scale=scale,
                trace_decay=self.trace_decay,
                condition=sg.OneHot(NUM_CLASSES) if self.sees_label else None,
            )
        return sg.recurrent.TruncatedBPTT(
            core,
            horizon=_WHOLE if self.whole else horizon,
            signal=signal,
            gamma=gamma if self.discounted else None,
        )


def bp(trace_decay: float, *, sees_label: bool = False) -> str:
    """Return the name of BP(lambda)."""
    return f"bp-{trace_decay:g}{'-labels' * sees_label}"


TRACE_DECAYS = (0.0, 0.5, 0.9, 1.0)
ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(name=FULL, label="BPTT, whole sequence", whole=True),
        Arm(name=TRUNCATED, label="BPTT, truncated"),
        Arm(
            name=N_STEP,
            label="n-step synthetic gradient",
            trace_decay=0.0,
            discounted=False,
        ),
        *(Arm(name=bp(d), label=f"BP({d:g})", trace_decay=d) for d in TRACE_DECAYS),
        *(
            Arm(
                name=bp(d, sees_label=True),
                label=f"BP({d:g}), sees the label",
                trace_decay=d,
                sees_label=True,
            )
            for d in (0.0, 1.0)
        ),
    )
}
WITHOUT_LABELS = tuple(name for name, arm in ARMS.items() if not arm.sees_label)
