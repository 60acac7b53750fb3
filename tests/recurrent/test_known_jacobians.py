"""In float64: the Jacobians by equations are those by backward passes."""

import pytest
import torch
from full_bptt import CORES, make_core
from torch import nn

import synthgrad as sg
from synthgrad.recurrent import traces
from synthgrad.recurrent.cores import calling
from synthgrad.recurrent.known_jacobians import known_jacobian
from synthgrad.recurrent.layout import Layout
from synthgrad.trees import float_tensors, replace_float_tensors

KNOWN = {
    **{kind: lambda kind=kind: make_core(kind)[0] for kind in CORES if "own" not in kind},
    "relu rnn": lambda: nn.RNN(3, 5, nonlinearity="relu").double(),
    "relu cell": lambda: nn.RNNCell(3, 5, nonlinearity="relu").double(),
    "lstm without biases": lambda: nn.LSTM(3, 5, bias=False).double(),
    "gru without biases": lambda: nn.GRUCell(3, 5, bias=False).double(),
}
NOT_KNOWN = ("stacked lstm", "projected lstm")


@pytest.mark.parametrize("num_steps", [1, 4])
@pytest.mark.parametrize("kind", [kind for kind in KNOWN if kind not in NOT_KNOWN])
def test_it_is_that_of_backward_passes(kind, num_steps):
    torch.manual_seed(0)
    core = KNOWN[kind]()
    how = calling(core, None)
    shape = (num_steps, 2, 3)
    inputs = torch.randn(shape, dtype=torch.float64)
    state = how.initial(core, 2)
    before = [torch.randn_like(t).requires_grad_() for t in float_tensors(state)]
    _, after = how.run(core, inputs.movedim(0, how.time_axis), replace_float_tensors(state, before))
    layout = Layout.of(after, how.batch_axis)
    expected = traces.jacobian(layout, layout.flat(float_tensors(after)), before)
    found = known_jacobian(core, inputs, before)
    # The same numbers, by other operations.
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", [*NOT_KNOWN, "own cell"])
def test_what_is_not_known_is_left_to_backward_passes(kind):
    core, initial = make_core(kind)
    how = calling(core, initial)
    state = how.initial(core, 2)
    assert known_jacobian(core, torch.zeros(1, 2, 3).double(), float_tensors(state)) is None


def test_a_chunk_of_a_known_core_takes_no_backward_pass(monkeypatch):
    """Batch first as well: the time axis of the inputs is told."""
    monkeypatch.setattr("synthgrad.recurrent.truncated.jacobian", None)
    core = nn.GRU(3, 5, batch_first=True)
    rnn = sg.recurrent.TruncatedBPTT(
        core, horizon=2, signal=sg.SyntheticGradient(synthesizer="linear", trace_decay=0.5)
    )
    carry = None
    for chunk in rnn.chunks(torch.randn(2, 6, 3)):
        outputs, carry = rnn(chunk.inputs, carry)
        outputs.square().mean().backward()
    assert len(carry.past) == 2
