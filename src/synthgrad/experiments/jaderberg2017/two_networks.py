"""The two networks of the two-clock task, and how they are trained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
        pixels: of a digit.
        units: of each layer.
        message: numbers in a message.
        synthesizer_hidden: units of the synthesizer's hidden layer.
    """

    period: int
    pixels: int
    units: int
    message: int
    synthesizer_hidden: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Digits:
    """Some steps of a stream, and the counts that fall due in them.

    Attributes:
        images: [steps, batch, channels, height, width].
        num_odd: of each T steps [answers, batch].
        num_threes: of each T * T steps [answers, batch]; None where none falls due.
        threes_told: those of each T steps, which a message is about [messages, batch].
    """

    images: Tensor
    num_odd: Tensor
    num_threes: Tensor | None
    threes_told: Tensor


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
        arm: "coupled", "dni", "cdni" (the synthesizer sees how many threes a message is about) or
            "no-gradient".
        scale: of the synthetic gradient.

    Attributes:
        num_steps: that one call takes.
    """

    def __init__(self, sizes: Sizes, *, arm: str, scale: float) -> None:
        super().__init__()
        units, self.period = sizes.units, sizes.period
        self.encoder = nn.Sequential(
            nn.Linear(sizes.pixels, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU()
        )
        counts = (sizes.period + 1, sizes.period**2 + 1)
        self.heads = nn.ModuleList(nn.Linear(units, number) for number in counts)
        networks = [
            TruncatedBPTT(nn.LSTM(features, units), horizon=sizes.period, signal=sg.NoSignal())
            for features in (units, sizes.message)
        ]
        message = nn.Linear(units, sizes.message)
        # The synthesizer is made last, so that all arms begin with the same weights.
        synthesizer = partial(sg.synthesizers.mlp, hidden=(sizes.synthesizer_hidden,))
        signal = sg.SyntheticGradient(synthesizer=synthesizer, scale=scale)
        signals = {
            "coupled": None,
            "dni": signal,
            "cdni": replace(signal, condition=sg.OneHot(sizes.period + 1)),
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
        self, digits: Digits, carry: ClockCarry | None
    ) -> tuple[Mapping[str, Answer], ClockCarry]:
        """Go on by `num_steps` steps.

        Args:
            digits: of these steps.
            carry: of the call before.

        Returns:
            The answers of "a", and of "b" where they fell due, and the carry.
        """
        outputs, after = self.clocks(
            self.encoder(digits.images.flatten(2)), carry, condition=digits.threes_told
        )
        answers = {
            name: Answer(head(out[self.period - 1 :: self.period]), counts)
            for name, head, out, counts in zip(
                "ab", self.heads, outputs, (digits.num_odd, digits.num_threes), strict=True
            )
            if out is not None and counts is not None
        }
        return answers, after

    def own_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the two networks."""
        others = set(self.synthesizer_parameters())
        return [p for p in self.parameters() if p not in others]

    def synthesizer_parameters(self) -> list[nn.Parameter]:
        """Return those of the synthesizer; none where there is none."""
        return list(self.clocks.synthesizer_parameters())

    def learn(self, answers: Mapping[str, Answer], optimizer: torch.optim.Optimizer) -> Tensor:
        """Update all networks that have an answer, and return the loss of one answer of A's."""
        losses = [answer.loss for answer in answers.values()]
        torch.stack(losses).sum().backward()
        optimizer.step()  # B's parameters have no gradient while its window goes on
        optimizer.zero_grad()
        return losses[0].detach() / len(answers["a"].counts)
