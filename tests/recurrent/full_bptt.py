"""Full BPTT over whole sequences, and a synthesizer that knows its gradients."""

import torch
from torch import nn

from synthgrad.recurrent.cores import calling
from synthgrad.recurrent.layout import Layout
from synthgrad.trees import float_tensors, replace_float_tensors


class OwnCell(nn.Module):
    """A cell whose state is nested, with a part of another shape."""

    def __init__(self, features, units):
        super().__init__()
        self.units = units
        self.to_fast = nn.Linear(features + units, units)
        self.to_slow = nn.Linear(units, 2)

    def forward(self, x, state):
        fast = torch.tanh(self.to_fast(torch.cat([x, state["fast"]], 1)))
        slow = 0.9 * state["parts"][0] + torch.sigmoid(self.to_slow(fast))[:, None, :]
        return fast * slow.mean((1, 2))[:, None], {"fast": fast, "parts": (slow,)}

    def initial_state(self, batch_size):
        like = self.to_slow.weight
        return {
            "fast": like.new_zeros(batch_size, self.units),
            "parts": (like.new_ones(batch_size, 1, 2),),
        }


def make_core(kind):
    """Return a core of 3 features and 5 units in float64, and its initial state if it needs one."""
    made = {
        "lstm": lambda: nn.LSTM(3, 5),
        "stacked lstm": lambda: nn.LSTM(3, 5, num_layers=2),
        "projected lstm": lambda: nn.LSTM(3, 7, proj_size=5),
        "batch first": lambda: nn.LSTM(3, 5, batch_first=True),
        "gru": lambda: nn.GRU(3, 5),
        "rnn": lambda: nn.RNN(3, 5),
        "lstm cell": lambda: nn.LSTMCell(3, 5),
        "gru cell": lambda: nn.GRUCell(3, 5),
        "rnn cell": lambda: nn.RNNCell(3, 5),
        "own cell": lambda: OwnCell(3, 5),
    }[kind]()
    core = made.double()
    return core, (core.initial_state if kind == "own cell" else None)


CORES = [
    "lstm",
    "stacked lstm",
    "projected lstm",
    "batch first",
    "gru",
    "rnn",
    "lstm cell",
    "gru cell",
    "rnn cell",
    "own cell",
]


def full_bptt(core, initial_state, inputs, loss_of, horizon, lengths=None):
    """Return the gradients of the whole sequence's loss, and those at each boundary.

    Args:
        inputs: [time, batch, ...], or batch first for such a core.
        loss_of: (outputs of some steps, slice of steps) -> loss of these steps.

    Returns:
        (parameter gradients, boundaries: flat states [batch, size], their gradients)
    """
    how = calling(core, initial_state)
    time_axis = how.time_axis
    num_steps, batch_size = inputs.shape[time_axis], inputs.shape[1 - time_axis]
    state = how.initial(core, batch_size)
    total, states = 0.0, []
    for start in range(0, num_steps, horizon):
        stop = min(start + horizon, num_steps)
        outputs, state = how.run(core, inputs.narrow(time_axis, start, stop - start), state)
        total = total + loss_of(outputs, slice(start, stop))
        # A cell's output is a tensor of its state: what goes on is told apart from it.
        state = replace_float_tensors(state, [t.view_as(t) for t in float_tensors(state)])
        states.append(float_tensors(state))
    layout = Layout.of(state, how.batch_axis)
    every = [t for tensors in states[:-1] for t in tensors]
    found = torch.autograd.grad(total, [*core.parameters(), *every], allow_unused=True)
    num = len(list(core.parameters()))
    parameters, rest = (
        found[:num],
        [torch.zeros_like(t) if g is None else g for g, t in zip(found[num:], every, strict=True)],
    )
    per = len(layout.shapes)
    flats = [layout.flat([t.detach() for t in tensors]) for tensors in states[:-1]]
    gradients = [layout.flat(rest[i * per : (i + 1) * per]) for i in range(len(flats))]
    return parameters, flats, gradients


class Oracle(nn.Module):
    """Knows the gradient at every state it was told of, in per-example units."""

    def __init__(self, flats, gradients, factor):
        super().__init__()
        self.known = torch.cat(flats)
        self.answers = torch.cat(gradients) / factor
        # So that there is something to fit.
        self.bias = nn.Parameter(torch.zeros((), dtype=self.known.dtype))

    def forward(self, h, code):
        del code
        # The quick way, by a product of matrices, is off by 1e-8.
        exactly = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(h, self.known, compute_mode=exactly)
        nearest = distances.min(1)
        answer = self.answers[nearest.indices]
        far = nearest.values > 1e-9  # after a sequence has ended nothing comes back
        return answer.masked_fill(far[:, None], 0.0) + self.bias
