"""Jacobians of chunks of torch's own cores, by their equations and not by backward passes.

One step's Jacobian is a few diagonal matrices times the recurrent weights, so a chunk takes one
batched matrix product a step.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Step = Callable[[Tensor, Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor]]
"""(input part of the gates, weights, bias, flat state) -> (Jacobian, flat state)."""


@torch.no_grad()
def known_jacobian(core: nn.Module, inputs: Tensor, before: Sequence[Tensor]) -> Tensor | None:
    """Return d(state after a chunk)/d(state before it), or None for a core that is not known.

    Known are nn.RNN, nn.LSTM and nn.GRU with one layer and without a projection, and nn.RNNCell,
    nn.LSTMCell and nn.GRUCell, all without forward hooks. The chunk is run once more for it,
    without a graph.

    Math, with f, i, g, o the gates of an LSTM and W their recurrent weights:
    dc'/dc = diag(f), dc'/dh = diag(c f(1-f)) W_f + diag(g i(1-i)) W_i + diag(i(1-g^2)) W_g,
    dh'/d. = diag(o(1-tanh^2 c')) dc'/d. + diag(tanh c' o(1-o)) W_o for h; for the GRU and the plain
    RNN alike, from their own equations.

    Args:
        core: of the chunk.
        inputs: of the chunk, time first: [time, batch, features].
        before: the tensors of the state that the chunk began with.

    Returns:
        [batch, size, size], or None.
    """
    step = _step_of(core)
    if step is None:
        return None
    weights, hidden_weights, bias, hidden_bias = _parameters(core)
    state = torch.cat([t.reshape(-1, t.shape[-1]) for t in before], dim=1)
    total: Tensor | None = None
    for gates in F.linear(inputs, weights, bias):
        here, state = step(gates, hidden_weights, hidden_bias, state)
        total = here if total is None else torch.bmm(here, total)
    assert total is not None
    return total


def _step_of(core: nn.Module) -> Step | None:
    if isinstance(core, nn.RNNBase) and (core.num_layers > 1 or core.proj_size):
        return None
    if core._forward_hooks or core._forward_pre_hooks:  # which may change what it computes
        return None
    # The very types: a subclass may have equations of its own.
    if type(core) in (nn.LSTM, nn.LSTMCell):
        return _lstm
    if type(core) in (nn.GRU, nn.GRUCell):
        return _gru
    if type(core) in (nn.RNN, nn.RNNCell):
        return _tanh if core.nonlinearity == "tanh" else _relu
    return None


def _parameters(core: nn.Module) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    end = "_l0" if isinstance(core, nn.RNNBase) else ""
    weights, hidden_weights = getattr(core, f"weight_ih{end}"), getattr(core, f"weight_hh{end}")
    # Without biases a cell has None there, and layers have nothing.
    bias, hidden_bias = (getattr(core, f"bias_{of}{end}", None) for of in ("ih", "hh"))
    return weights, hidden_weights, bias, hidden_bias


def _lstm(x: Tensor, weights: Tensor, bias: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    h, c = state.chunk(2, dim=1)
    to_i, to_f, to_g, to_o = (x + F.linear(h, weights, bias)).chunk(4, dim=1)
    i, f, g, o = to_i.sigmoid(), to_f.sigmoid(), to_g.tanh(), to_o.sigmoid()
    c_after = f * c + i * g
    squashed = c_after.tanh()
    w_i, w_f, w_g, w_o = weights.chunk(4)
    c_by_h = (
        (c * f * (1 - f))[:, :, None] * w_f
        + (g * i * (1 - i))[:, :, None] * w_i
        + (i * (1 - g.square()))[:, :, None] * w_g
    )
    by_c_after = o * (1 - squashed.square())
    h_by_h = by_c_after[:, :, None] * c_by_h + (squashed * o * (1 - o))[:, :, None] * w_o
    of_h = torch.cat([h_by_h, torch.diag_embed(by_c_after * f)], dim=2)
    of_c = torch.cat([c_by_h, torch.diag_embed(f)], dim=2)
    return torch.cat([of_h, of_c], dim=1), torch.cat([o * squashed, c_after], dim=1)


def _gru(x: Tensor, weights: Tensor, bias: Tensor | None, h: Tensor) -> tuple[Tensor, Tensor]:
    x_r, x_z, x_n = x.chunk(3, dim=1)
    h_r, h_z, h_n = F.linear(h, weights, bias).chunk(3, dim=1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = (x_n + r * h_n).tanh()
    w_r, w_z, w_n = weights.chunk(3)
    n_by_h = r[:, :, None] * w_n + (h_n * r * (1 - r))[:, :, None] * w_r
    by_h = ((1 - z) * (1 - n.square()))[:, :, None] * n_by_h
    by_h = by_h + ((h - n) * z * (1 - z))[:, :, None] * w_z + torch.diag_embed(z)
    return by_h, (1 - z) * n + z * h


def _tanh(x: Tensor, weights: Tensor, bias: Tensor | None, h: Tensor) -> tuple[Tensor, Tensor]:
    after = (x + F.linear(h, weights, bias)).tanh()
    return (1 - after.square())[:, :, None] * weights, after


def _relu(x: Tensor, weights: Tensor, bias: Tensor | None, h: Tensor) -> tuple[Tensor, Tensor]:
    after = (x + F.linear(h, weights, bias)).relu()
    return (after > 0).to(after)[:, :, None] * weights, after
