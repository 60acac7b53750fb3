"""One run on copy or repeat copy: an LSTM, chunk by chunk, up the papers' curriculum."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

import synthgrad as sg
from synthgrad.bench.seeds import derive_seed, generator
from synthgrad.data.curriculum import Curriculum, TaskName
from synthgrad.data.sequence_tasks import SequenceTask, answer_bits
from synthgrad.errors import ConfigError, DivergedError
from synthgrad.experiments.training import adam


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How every arm is trained.

    Args:
        num_bits: Random bits of a pattern; 8 in the paper.
        num_units: Of the LSTM; 256 in the paper.
        batch_size: Sequences in a batch; 256 in the paper.
        learning_rate: Of Adam, for the LSTM, what reads it, and the auxiliary task's head; 7e-5 in
            the paper.
        synthesizer_learning_rate: Of Adam, for the synthesizer.
        hidden: Widths of the synthesizer's hidden layers; one layer like the LSTM in the paper.
        scale: Of the signal, and the discount of its target; 0.1 in the paper.
        told_scale: The same in "cdni": what is predicted better can be trusted over more chunks.
        auxiliary_weight: Of the auxiliary task beside the loss.
        num_ahead: Steps after a chunk whose answers the synthesizer of "cdni" is told.
        max_norm: Gradients of what is not the synthesizer's are clipped to this norm; None for
            no limit.
        window: Batches whose mean error moves the curriculum on: one small batch is easy by chance.
        num_updates: Length of a run in updates, of which each chunk is one. The last sequence is
            finished.
        look_every: Updates from one look to the next.
        device: cpu, cuda, cuda:1, ...

    Raises:
        ConfigError: A value cannot work.
    """

    num_bits: int = 1
    num_units: int = 64
    batch_size: int = 32
    learning_rate: float = 1e-3
    synthesizer_learning_rate: float = 1e-3
    hidden: tuple[int, ...] = ()
    scale: float = 0.5
    told_scale: float = 0.9
    auxiliary_weight: float = 0.1
    num_ahead: int = 12
    max_norm: float | None = None
    window: int = 8
    num_updates: int = 40_000
    look_every: int = 2_000
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        for name in ("num_units", "num_ahead", "window", "num_updates", "look_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be 1 or more")
        if min(self.learning_rate, self.synthesizer_learning_rate) <= 0:
            raise ConfigError(
                f"learning_rate={self.learning_rate} and synthesizer_learning_rate="
                f"{self.synthesizer_learning_rate} must be above 0"
            )
        if self.max_norm is not None and not self.max_norm > 0:
            raise ConfigError(f"max_norm={self.max_norm} must be above 0; for no limit give None")


@dataclass(frozen=True, kw_only=True)
class Method:
    """What an arm has beside the core.

    Attributes:
        label: For people.
        signal: A synthetic gradient at the cut, else truncated BPTT.
        auxiliary: The auxiliary task.
        told: The synthesizer sees the next answers beside the state.
    """

    label: str
    signal: bool = True
    auxiliary: bool = False
    told: bool = False


class Copier:
    """An LSTM, a linear layer that reads it, and what trains both.

    Args:
        setting: As in the config.
        num_inputs: Channels of a step.
        num_outputs: Bits of an answer.
        horizon: T.
        method: What the arm has.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        num_inputs: int,
        num_outputs: int,
        horizon: int,
        method: Method,
    ) -> None:
        """Draw the weights; those of the LSTM and its reader first, so that all arms share them."""
        core = nn.LSTM(num_inputs, setting.num_units)
        head = nn.Linear(setting.num_units, num_outputs)
        self.head = head.to(setting.device)
        self.rnn = sg.recurrent.TruncatedBPTT(
            core.to(setting.device),
            horizon=horizon,
            signal=_signal(setting, method, num_outputs),
            auxiliary=(
                sg.recurrent.Auxiliary(weight=setting.auxiliary_weight)
                if method.auxiliary
                else None
            ),
        )
        self._num_ahead = setting.num_ahead if method.told else 0
        self._trained = [*self.rnn.stage_parameters(), *self.head.parameters()]
        self._max_norm = setting.max_norm
        self._optimizer = adam(
            self._trained,
            self.rnn.synthesizer_parameters(),
            learning_rate=setting.learning_rate,
            synthesizer_rate=setting.synthesizer_learning_rate,
        )

    def train_on(self, batch: SequenceTask) -> tuple[float, int]:
        """Go through one batch of sequences, with an update after each chunk.

        Returns:
            The error of the sequence in bits, each chunk's before its own update, and the number of
            updates.
        """
        carry, errors = None, list[torch.Tensor]()
        for chunk in self.rnn.chunks(batch.inputs):
            ahead = batch.ahead(chunk.steps.stop, self._num_ahead) if self._num_ahead else None
            outputs, carry = self.rnn(chunk.inputs, carry, ends=chunk.ends, condition=ahead)
            bits = answer_bits(
                self.head(outputs),
                batch.targets[chunk.steps],
                batch.mask[chunk.steps],
                num_counted=1,
            )
            # Summed over the steps, so that longer sequences have no smaller gradients: Adam would
            # not mind, but a synthesizer's error would grow beside its targets.
            bits.backward()
            if self._max_norm is not None:
                nn.utils.clip_grad_norm_(self._trained, self._max_norm)
            self._optimizer.step()
            self._optimizer.zero_grad()
            errors.append(bits.detach())
        return torch.stack(errors).sum().item() / batch.num_counted, len(errors)


def _signal(setting: Setting, method: Method, num_outputs: int) -> sg.ErrorSignal:
    if not method.signal:
        return sg.NoSignal()
    # Without a hidden layer it is the linear one.
    synthesizer = partial(sg.synthesizers.mlp, hidden=setting.hidden)
    if not method.told:
        return sg.SyntheticGradient(synthesizer=synthesizer, scale=setting.scale)
    answers = sg.Features(setting.num_ahead * (num_outputs + 1))
    return sg.SyntheticGradient(
        synthesizer=synthesizer, scale=setting.told_scale, condition=answers
    )


def train(
    setting: Setting,
    task: TaskName,
    *,
    horizon: int,
    method: Method,
    seed: int,
) -> Iterator[Mapping[str, Any]]:
    """Train up the curriculum.

    Yields:
        "longer" whenever a sequence was mastered, and "look" every so many updates and at the end:
        the updates so far, the longest sequence modelled, N and R of the sequences now trained on,
        and the mean error in bits of the batches since the last of either.

    Raises:
        DivergedError: The error is no number any more.
    """
    curriculum = Curriculum(task)
    patterns = generator(seed, "patterns")

    def sample() -> SequenceTask:
        batch = curriculum.sample(setting.batch_size, setting.num_bits, patterns)
        return batch.to(setting.device)

    batch = sample()
    torch.manual_seed(derive_seed(seed, "weights"))
    copier = Copier(
        setting,
        num_inputs=batch.inputs.shape[-1],
        num_outputs=batch.targets.shape[-1],
        horizon=horizon,
        method=method,
    )
    num_updates, next_look = 0, setting.look_every
    newest, since = deque[float](maxlen=setting.window), list[float]()
    while num_updates < setting.num_updates:
        bits, more = copier.train_on(batch)
        num_updates += more
        if not math.isfinite(bits):
            raise DivergedError(f"the error is {bits} bits after {num_updates} updates")
        newest.append(bits)
        since.append(bits)
        grown = len(newest) == setting.window and curriculum.observe(sum(newest) / len(newest))
        ends = num_updates >= setting.num_updates
        if grown or ends or num_updates >= next_look:
            yield {
                "event": "longer" if grown else "look",
                "updates": num_updates,
                "modelled": curriculum.modelled,
                "length": curriculum.length,
                "repeats": curriculum.repeats,
                "bits": sum(since) / len(since),
            }
            since.clear()
            next_look = (num_updates // setting.look_every + 1) * setting.look_every
        if grown:
            newest.clear()
        batch = sample()
