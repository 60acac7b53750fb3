"""Weights held: how well do signals at the cuts point where BPTT over the whole sequence points?"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from synthgrad.metrics import cosine, norm
from synthgrad.recurrent import TruncatedBPTT

Loss = Callable[[Tensor, slice], Tensor]
"""(outputs [time, batch, units] of some steps, those steps) -> their loss, a batch mean."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What was seen.

    Attributes:
        cosines: of the synthetic gradient with the true one, at each boundary from the first on;
            none where there is no synthesizer or no boundary.
        norm_ratios: its norm over that of the true one.
        core_cosine: of the core's gradient, with the signals at the cuts as in training, with that
            of BPTT over the whole sequence.
    """

    cosines: tuple[float, ...]
    norm_ratios: tuple[float, ...]
    core_cosine: float


def hold(
    rnn: TruncatedBPTT,
    inputs: Tensor,
    loss: Loss,
    *,
    scale: float,
    labels: Tensor | None = None,
) -> Held:
    """Look at one batch of sequences; nothing is trained.

    Args:
        rnn: with an `nn.LSTM` of one layer.
        inputs: whole sequences [time, batch, features].
        loss: of the outputs of a chunk.
        scale: of the signal.
        labels: [batch], where the synthesizer sees them.
    """
    assert isinstance(rnn.core, nn.LSTM)
    core, chunks = rnn.core, list(rnn.chunks(inputs))
    weights = list(core.parameters())
    state: Tensor | None = None
    states, losses = list[Tensor](), list[Tensor]()
    for chunk in chunks:
        outputs, state = _run(core, chunk.inputs, state)
        states.append(state)
        losses.append(loss(outputs, chunk.steps))
    boundaries = states[:-1]
    found = torch.autograd.grad(
        torch.stack(losses).sum(), [*weights, *boundaries], materialize_grads=True
    )
    true, at_boundaries = found[: len(weights)], found[len(weights) :]
    batch_size = inputs.shape[1]
    signals = list[Tensor]()
    if rnn.synthesizer is not None:
        encoder = rnn.signal.conditioned_on
        code = encoder.encode(labels, inputs.dtype) if encoder and labels is not None else None
        with torch.no_grad():
            predict = partial(rnn.signal.predict, rnn.synthesizer)
            signals = [predict(state, code) / batch_size for state in boundaries]
    ours = [torch.zeros_like(w) for w in weights]
    for k, chunk in enumerate(chunks):
        outputs, after = _run(core, chunk.inputs, states[k - 1].detach() if k else None)
        aim = loss(outputs, chunk.steps)
        if k < len(signals):
            aim = aim + scale * (after * signals[k]).sum()
        given = torch.autograd.grad(aim, weights, materialize_grads=True)
        ours = [a + b for a, b in zip(ours, given, strict=True)]
    pairs = list(zip(signals, at_boundaries, strict=True)) if signals else []
    return Held(
        cosines=tuple(cosine(a, b).item() for a, b in pairs),
        norm_ratios=tuple((norm(a) / norm(b).clamp_min(1e-30)).item() for a, b in pairs),
        core_cosine=cosine(_joined(ours), _joined(true)).item(),
    )


def _run(core: nn.LSTM, inputs: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run a chunk from a flat state to one: cut out of it, its gradient is what the cut stops."""
    given = None if state is None else tuple(s[None].contiguous() for s in state.chunk(2, dim=1))
    outputs, (h, c) = core(inputs, given)
    return outputs, torch.cat([h[0], c[0]], dim=1)


def _joined(gradients: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])
