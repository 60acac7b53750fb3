"""Memory does not grow with the sequence: what autograd saves, and what is carried, is counted."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import synthgrad as sg
from synthgrad.trees import float_tensors

BATCH, HORIZON = 3, 5


def bytes_saved_at_most(rnn, num_chunks, horizon=HORIZON):
    """Train on a stream; return the most bytes saved at one time, and those carried at its end."""
    alive = dict[int, int]()
    most, carry = 0, None

    class Saved:
        """Counts as long as a graph holds it."""

        def __init__(self, tensor):
            self.tensor = tensor
            alive[id(self)] = tensor.nbytes

        def __del__(self):
            alive.pop(id(self))

    torch.manual_seed(0)
    optimizer = torch.optim.SGD(rnn.parameters(), 1e-3)
    with saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        for _ in range(num_chunks):
            outputs, carry = rnn(torch.randn(horizon, BATCH, 4), carry)
            loss = outputs.square().mean()
            most = max(most, sum(alive.values()))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            del outputs, loss
    kept = [*float_tensors(carry.state), *(past.jacobian for past in carry.past)]
    assert not any(tensor.requires_grad for tensor in kept)
    return most, sum(tensor.nbytes for tensor in kept)


@pytest.mark.parametrize(
    "options",
    [
        {"signal": sg.SyntheticGradient(scale=0.1)},
        {"signal": sg.SyntheticGradient(), "gamma": 0.9},
        {"signal": sg.SyntheticGradient(), "auxiliary": sg.recurrent.Auxiliary()},
        {"signal": sg.SyntheticGradient(trace_decay=0.9), "trace_length": 4},
    ],
    ids=["plain", "gamma", "auxiliary", "traces"],
)
@pytest.mark.parametrize("core", [nn.LSTM, nn.LSTMCell])
def test_the_same_bytes_for_a_longer_sequence(core, options):
    short, long = (
        bytes_saved_at_most(
            sg.recurrent.TruncatedBPTT(core(4, 6), horizon=HORIZON, **options), num_chunks
        )
        for num_chunks in (20, 200)
    )
    assert short == long
    assert min(short) > 0


def test_the_same_bytes_for_a_hundred_thousand_steps():
    short, long = (
        bytes_saved_at_most(
            sg.recurrent.TruncatedBPTT(
                nn.LSTM(4, 6), horizon=100, signal=sg.SyntheticGradient(scale=0.1)
            ),
            num_steps // 100,
            horizon=100,
        )
        for num_steps in (1_000, 100_000)
    )
    assert short == long


def test_a_graph_that_is_kept_would_be_seen():
    """The counter itself: one chunk of the whole saves more, the longer it is."""
    found = [
        bytes_saved_at_most(
            sg.recurrent.TruncatedBPTT(nn.LSTM(4, 6), horizon=HORIZON, signal=sg.NoSignal()), 1
        )[0]
    ]
    rnn = nn.LSTM(4, 6)
    saved = list[int]()
    with saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
        rnn(torch.randn(HORIZON * 20, BATCH, 4))[0].square().mean()
    assert sum(saved) > 2 * found[0]
