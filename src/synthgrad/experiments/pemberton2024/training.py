"""One update of any arm: through a whole sequence in chunks, then one step of the optimizers."""

import torch
from torch import Tensor, nn

from synthgrad.experiments.pemberton2024.held import Loss
from synthgrad.experiments.training import adam
from synthgrad.recurrent import TruncatedBPTT


class SequenceLearner:
    """A core with a signal at its cuts, a linear head, and Adam for both.

    The weights are held within a sequence, and the gradients of its chunks are summed: all arms
    have as many updates, and with a trace decay of 1 the synthesizer is fitted to discounted
    gradients of BPTT over the whole sequence.

    Args:
        rnn: the core and its signal.
        num_outputs: of the head.
        learning_rate: of core and head.
        synthesizer_rate: of the synthesizer.

    Source: the public code of Pemberton & Costa 2024 (neuralml/bp_lambda), with its
    `opt_each_trunc: False`.
    """

    def __init__(
        self,
        rnn: TruncatedBPTT,
        num_outputs: int,
        *,
        learning_rate: float,
        synthesizer_rate: float,
    ) -> None:
        assert isinstance(rnn.core, nn.LSTM)
        self.rnn = rnn
        self.core = rnn.core
        self.head = nn.Linear(rnn.core.hidden_size, num_outputs).to(next(rnn.core.parameters()))
        self.optimizer = adam(
            [*rnn.stage_parameters(), *self.head.parameters()],
            rnn.synthesizer_parameters(),
            learning_rate=learning_rate,
            synthesizer_rate=synthesizer_rate,
        )

    def update(self, inputs: Tensor, loss: Loss, labels: Tensor | None = None) -> Tensor:
        """Train on one batch of whole sequences; return their loss.

        Args:
            inputs: [time, batch, features].
            loss: of the outputs of a chunk.
            labels: [batch], for a synthesizer that sees them.
        """
        carry, losses = None, list[Tensor]()
        for chunk in self.rnn.chunks(inputs):
            outputs, carry = self.rnn(chunk.inputs, carry, ends=chunk.ends, condition=labels)
            value = loss(outputs, chunk.steps)
            value.backward()
            losses.append(value.detach())
        self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.stack(losses).sum()

    @torch.no_grad()
    def run(self, inputs: Tensor) -> Tensor:
        """Return the core's outputs over whole sequences."""
        return self.core(inputs)[0]
