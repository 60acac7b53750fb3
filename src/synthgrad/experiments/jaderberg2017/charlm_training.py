"""Training a character model by one method, with looks at held-out text on the way."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import synthgrad as sg
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import CharStream, CharText
from synthgrad.errors import ConfigError, DivergedError
from synthgrad.experiments.training import adam

_JUDGED_STREAMS = 20
_JUDGED_STEPS = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """What is read, and what is held out; of one vocabulary."""

    train: CharText
    validation: CharText


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a chunk is learned from: arguments of `sg.recurrent.TruncatedBPTT`."""

    horizon: int
    signal: sg.ErrorSignal
    gamma: float | None = None
    auxiliary: sg.recurrent.Auxiliary | None = None
    num_ahead: int = 0
    """Characters after the chunk that the synthesizer is told."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is the same for all methods.

    Args:
        units: of the LSTM.
        batch_size: streams that are read at once.
        num_characters: that every arm reads; beyond the text's length it begins again.
        num_looks: evaluations on the way, at equal distances; the last ends the run.
        num_judged: characters at the most that an evaluation reads.
        learning_rate: of Adam, for everything but synthesizers.
        synthesizer_rate: of Adam, for synthesizers.
        decay_from: share of the run after which both rates go down, linearly, to zero at its end;
            1 for not at all. Without it what a text has last, and not the arm, decides the last
            hundredths of a bit.
        device: cpu, cuda, cuda:1, ...

    Raises:
        ConfigError: a value cannot work.
    """

    units: int = 128
    batch_size: int = 32
    num_characters: int = 5_000_000
    num_looks: int = 20
    num_judged: int = 100_000
    learning_rate: float = 5e-3
    synthesizer_rate: float = 3e-3
    decay_from: float = 0.5
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        if not 0 <= self.decay_from <= 1:
            raise ConfigError(f"decay_from={self.decay_from} is a share from 0 to 1")
        if min(self.units, self.batch_size, self.num_looks, self.num_judged) < 1:
            raise ConfigError(
                f"units={self.units}, batch_size={self.batch_size}, num_looks={self.num_looks} and "
                f"num_judged={self.num_judged} must be 1 or more"
            )
        if not min(self.learning_rate, self.synthesizer_rate) > 0:
            raise ConfigError(
                f"learning_rate={self.learning_rate} and synthesizer_rate={self.synthesizer_rate} "
                "must be above 0"
            )

    def rate(self, share: float) -> float:
        """Return the factor on the learning rates after a share of the run."""
        rest = 1 - self.decay_from
        return min(1.0, (1 - share) / rest) if rest else 1.0


class CharModel(nn.Module):
    """An LSTM on one-hot characters, and a linear layer to the next one's logits.

    Args:
        method: how the LSTM learns.
        vocabulary_size: number of characters.
        units: of the LSTM.
    """

    def __init__(self, method: Method, vocabulary_size: int, units: int) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        core, self.head = nn.LSTM(vocabulary_size, units), nn.Linear(units, vocabulary_size)
        # After the core and the head, so that both begin with the same weights in every arm.
        self.rnn = sg.recurrent.TruncatedBPTT(
            core,
            horizon=method.horizon,
            signal=method.signal,
            gamma=method.gamma,
            auxiliary=method.auxiliary,
        )

    def inputs(self, characters: Tensor) -> Tensor:
        """Return characters [time, batch] as an LSTM takes them."""
        return F.one_hot(characters, self.vocabulary_size).to(self.head.weight)

    def ahead(self, characters: Tensor, number: int) -> Tensor | None:
        """Return the first characters of the chunk that comes next as one row of features each."""
        if not number:
            return None
        return self.inputs(characters[:number]).transpose(0, 1).flatten(1)

    @torch.no_grad()
    def bits(self, text: CharText, num_characters: int) -> float:
        """Return the mean bits a character of a text's first characters.

        The chunks are the same for every horizon, and the state goes on from each to the next.
        """
        tokens = text.tokens[: num_characters + 1].to(self.head.weight.device)
        num_streams = min(_JUDGED_STREAMS, len(tokens) - 1)
        steps = min(_JUDGED_STEPS, (len(tokens) - 1) // num_streams)
        stream = CharStream(tokens, batch_size=num_streams, horizon=steps)
        total, state = tokens.new_zeros((), dtype=torch.float64), None
        for _ in range(stream.num_chunks):
            x, y = next(stream)
            outputs, state = self.rnn.core(self.inputs(x), state)
            logits = self.head(outputs)
            total += F.cross_entropy(logits.flatten(0, 1), y.flatten()).double()
        return total.item() / stream.num_chunks / math.log(2)


def train(
    texts: Texts, method: Method, training: Training, seed: int
) -> Iterator[Mapping[str, Any]]:
    """Train a model; yield a "look" after each share of the characters.

    Raises:
        DivergedError: the loss is not finite.
    """
    torch.manual_seed(derive_seed(seed, "weights"))
    model = CharModel(method, len(texts.train.vocabulary), training.units).to(training.device)
    optimizer = adam(
        [*model.head.parameters(), *model.rnn.stage_parameters()],
        model.rnn.synthesizer_parameters(),
        learning_rate=training.learning_rate,
        synthesizer_rate=training.synthesizer_rate,
    )
    tokens = texts.train.tokens.to(training.device)
    stream = CharStream(tokens, batch_size=training.batch_size, horizon=method.horizon)
    chunk_size = training.batch_size * method.horizon
    num_updates = training.num_characters // chunk_size
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda update: training.rate(update / num_updates)
    )
    carry, upcoming = None, next(stream)
    total, updates, updates_before = torch.zeros((), device=training.device), 0, 0
    for look in range(1, training.num_looks + 1):
        # So that all horizons are looked at after the same characters, up to a chunk.
        target = training.num_characters * look // training.num_looks // chunk_size
        while updates < target:
            x, y = upcoming
            # A pass over the text is one long sequence: beyond its last chunk nothing comes back.
            ends = stream.begins
            upcoming = next(stream)
            outputs, carry = model.rnn(
                model.inputs(x),
                carry,
                ends=ends,
                condition=model.ahead(upcoming[0], method.num_ahead),
            )
            if ends:
                carry = model.rnn.restart(carry)
            loss = F.cross_entropy(model.head(outputs).flatten(0, 1), y.flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            total += loss.detach()
            updates += 1
        mean = total.item() / (updates - updates_before)
        if not math.isfinite(mean):
            raise DivergedError(f"the loss is {mean} after {updates} updates")
        yield {
            "event": "look",
            "characters": training.num_characters * look // training.num_looks,
            "updates": updates,
            "training_bits": mean / math.log(2),
            "validation_bits": model.bits(texts.validation, training.num_judged),
        }
        total.zero_()
        updates_before = updates
