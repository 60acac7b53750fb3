"""The two networks of the two-clock task, and how they are trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import synthgrad as sg
from synthgrad.recurrent import ClockCarry, MultiClock, TruncatedBPTT


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of the networks.

    Attributes:
        period: T, the steps between two messages.
        units: of each layer.
        message: numbers in a message.
        synthesizer_hidden: units of the synthesizer's hidden layer.
    """

    period: int
    units: int
    message: int
    synthesizer_hidden: int


@dataclass(frozen=True, eq=False)
class Answer:
    """Counts that fell due, as a network sees them.

    Attributes:
        logits: [answers, batch, counts].
        counts: the true ones [answers, batch].
    """

    logits: Tensor
    counts: Tensor

    @property
    def loss(self) -> Tensor:
        """Cross-entropy: a mean over the batch, a sum over the answers."""
        each = F.cross_entropy(self.logits.flatten(0, 1), self.counts.flatten(), reduction="sum")
        return each / self.counts.shape[1]

    @property
    def wrong(self) -> Tensor:
        """Whether each answer is wrong [answers, batch]."""
        return self.logits.argmax(2) != self.counts


class TwoNetworks(nn.Module):
    """Two layers and an LSTM that count odd digits, and an LSTM above them that counts threes.

    Args:
        sizes: of everything.
        arm: "coupled", "dni" or "no-gradient".
        scale: of the synthetic gradient.

    Attributes:
        num_steps: that one call takes.
    """

    def __init__(self, sizes: Sizes, *, arm: str, scale: float) -> None:
        super().__init__()
        units, self.period = sizes.units, sizes.period
        self.encoder = nn.Sequential(
            nn.Linear(784, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU()
        )
        counts = (sizes.period + 1, sizes.period**2 + 1)
        self.heads = nn.ModuleList(nn.Linear(units, number) for number in counts)
        networks = [
            TruncatedBPTT(nn.LSTM(features, units), horizon=sizes.period, signal=sg.NoSignal())
            for features in (units, sizes.message)
        ]
        message = nn.Linear(units, sizes.message)
        # The last, so that the arms begin with the same weights.
        synthesizer = partial(sg.synthesizers.mlp, hidden=(sizes.synthesizer_hidden,))
        signals = {
            "coupled": None,
            "dni": sg.SyntheticGradient(synthesizer=synthesizer, scale=scale),
            "no-gradient": sg.NoSignal(),
        }
        self.clocks = MultiClock(
            networks,
            periods=(1, sizes.period),
            messages=[message],
            signal=signals[arm],
            coupled=arm == "coupled",
        )
        self.num_steps = self.clocks.num_steps

    def forward(
        self, images: Tensor, num_odd: Tensor, num_threes: Tensor | None, carry: ClockCarry | None
    ) -> tuple[Mapping[str, Answer], ClockCarry]:
        """Go on by `num_steps` steps.

        Args:
            images: [steps, batch, 1, 28, 28].
            num_odd: that fall due in these steps [answers, batch].
            num_threes: the same, or None.
            carry: of the call before.

        Returns:
            The answers of "a", and of "b" where they fell due, and the carry.
        """
        outputs, after = self.clocks(self.encoder(images.flatten(2)), carry)
        answers = {
            name: Answer(head(out[self.period - 1 :: self.period]), counts)
            for name, head, out, counts in zip(
                "ab", self.heads, outputs, (num_odd, num_threes), strict=True
            )
            if out is not None and counts is not None
        }
        return answers, after

    def learn(self, answers: Mapping[str, Answer], optimizer: torch.optim.Optimizer) -> Tensor:
        """Update all networks that have an answer, and return the loss of one answer of A's."""
        losses = [answer.loss for answer in answers.values()]
        torch.stack(losses).sum().backward()
        optimizer.step()  # B's parameters have no gradient while its window goes on
        optimizer.zero_grad()
        return losses[0].detach() / len(answers["a"].counts)
