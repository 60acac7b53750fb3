"""What TruncatedBPTT refuses, and that it says why."""

import pytest
import torch
from full_bptt import make_core
from torch import nn

import synthgrad as sg
from synthgrad.errors import ConditionError, ConfigError, InterfaceError, RecurrentStateError


def lstm(**options):
    torch.manual_seed(0)
    options = {"horizon": 3, **options}
    return sg.recurrent.TruncatedBPTT(nn.LSTM(3, 5), **options)


def step(rnn, inputs, carry=None, **options):
    outputs, carry = rnn(inputs, carry, **options)
    outputs.square().mean().backward()
    return carry


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 0}, "1 or more"),
        ({"gamma": 1.5}, r"\[0, 1\]"),
        ({"trace_length": 0}, "1 or more"),
        ({"reduction": "none"}, "'mean' or 'sum'"),
        ({"signal": sg.SyntheticGradient(mix=0.5)}, "mix=0"),
        ({"signal": sg.LocalLoss(num_classes=3)}, "cannot stand in"),
        ({"signal": sg.Backprop()}, "cannot stand in"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        lstm(**options)


def test_a_bidirectional_core_is_refused():
    with pytest.raises(ConfigError, match="bidirectional"):
        sg.recurrent.TruncatedBPTT(nn.GRU(3, 4, bidirectional=True), horizon=2)


def test_a_cell_of_ones_own_needs_an_initial_state():
    core, _ = make_core("own cell")
    with pytest.raises(ConfigError, match="initial_state"):
        sg.recurrent.TruncatedBPTT(core, horizon=2)


def test_an_auxiliary_task_needs_to_know_the_outputs():
    core, initial = make_core("own cell")
    with pytest.raises(ConfigError, match="features"):
        sg.recurrent.TruncatedBPTT(
            core, horizon=2, initial_state=initial, auxiliary=sg.recurrent.Auxiliary()
        )
    with pytest.raises(ConfigError, match="above 0"):
        sg.recurrent.Auxiliary(weight=0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"inputs": torch.zeros(3)}, "time and batch"),
        ({"inputs": torch.zeros(4, 2, 3)}, "horizon is 3"),
        ({"inputs": torch.zeros(0, 2, 3)}, "0 steps"),
        ({"mask": torch.ones(2, 2, dtype=torch.bool)}, "first two axes"),
        ({"mask": torch.ones(3, 2)}, "bool"),
        ({"mask": torch.tensor([[1, 1], [0, 1], [1, 1]], dtype=torch.bool)}, "gap"),
        ({"ends": torch.zeros(3, dtype=torch.bool)}, "ends must be bool"),
        ({"ends": torch.zeros(2)}, "ends must be bool"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(call, message):
    call = {"inputs": torch.zeros(3, 2, 3), **call}
    with pytest.raises(InterfaceError, match=message):
        lstm()(**call)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([4, 9]), "from 4 to 9"),
        (torch.tensor([0, 7]), "at least one"),
        (torch.tensor([7]), r"shape \(2,\)"),
        (torch.tensor([7.0, 7.0]), "whole numbers"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths, message):
    with pytest.raises(InterfaceError, match=message):
        next(lstm().chunks(torch.zeros(7, 2, 3), lengths))


def test_a_sequence_without_steps_is_refused():
    with pytest.raises(InterfaceError, match="no step"):
        next(lstm().chunks(torch.zeros(0, 2, 3)))


def test_a_batch_of_another_size_is_refused():
    rnn = lstm()
    carry = step(rnn, torch.zeros(3, 2, 3))
    with pytest.raises(RecurrentStateError, match="hold 4 examples"):
        rnn(torch.zeros(3, 4, 3), carry)


class Fickle(nn.Module):
    """A cell that changes the structure of its state at its third step."""

    def __init__(self, change):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.steps = 0
        self.change = change

    def forward(self, x, state):
        (h,) = state
        h = self.layer(torch.cat([x, h], 1))
        self.steps += 1
        return h, (self.change(h) if self.steps == 3 else (h,))


@pytest.mark.parametrize(
    "change",
    [lambda h: (h, h), lambda h: [h], lambda h: (h.double(),), lambda h: (h[:, :2],)],
    ids=["one more", "a list", "another type", "another shape"],
)
def test_a_state_that_changes_its_structure_is_refused(change):
    rnn = sg.recurrent.TruncatedBPTT(
        Fickle(change), horizon=1, initial_state=lambda n: (torch.zeros(n, 3),)
    )
    carry = step(rnn, torch.ones(1, 2, 3))
    carry = step(rnn, torch.ones(1, 2, 3), carry)
    with pytest.raises(RecurrentStateError, match="the state changed"):
        step(rnn, torch.ones(1, 2, 3), carry)


def test_states_without_tensors_or_without_a_batch_are_refused():
    sizes_differ = (torch.zeros(2, 3), torch.zeros(4, 3))
    for state, message in [((1, 2), "floating-point"), (sizes_differ, "axis 0")]:
        with pytest.raises(RecurrentStateError, match=message):
            sg.recurrent.TruncatedBPTT(
                Fickle(None), horizon=1, initial_state=lambda n, state=state: state
            )


class Returns(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, x, state):
        return self.what(x, state)


@pytest.mark.parametrize(
    ("what", "message"),
    [(lambda x, s: x, "must return"), (lambda x, s: ((x, x), s), "one tensor")],
)
def test_a_cell_that_returns_something_else_is_refused(what, message):
    rnn = sg.recurrent.TruncatedBPTT(
        Returns(what), horizon=1, initial_state=lambda n: torch.zeros(n, 3)
    )
    with pytest.raises(RecurrentStateError, match=message):
        rnn(torch.ones(1, 2, 3))


def test_a_synthesizer_of_the_wrong_shape_is_refused():
    class Narrow(nn.Module):
        def forward(self, h, code):
            return h[:, :2]

    rnn = lstm(signal=sg.SyntheticGradient(synthesizer=lambda shape, size: Narrow()))
    with pytest.raises(InterfaceError, match="has the shape"):
        rnn(torch.zeros(3, 2, 3))


def test_labels_that_are_missing_are_asked_for():
    rnn = lstm(signal=sg.SyntheticGradient(condition=sg.OneHot(4)))
    with pytest.raises(ConditionError, match="condition=labels"):
        rnn(torch.zeros(3, 2, 3))
    with pytest.raises(ConditionError, match=r"not of shape \(3,\)"):
        rnn(torch.zeros(3, 2, 3), condition=torch.zeros(3, dtype=torch.int64))


def test_backward_twice_is_refused():
    rnn = lstm()
    outputs, _ = rnn(torch.zeros(3, 2, 3))
    outputs.sum().backward(retain_graph=True)
    with pytest.raises(InterfaceError, match="second time"):
        outputs.sum().backward()


def test_rows_of_another_number_are_refused():
    rnn = lstm()
    carry = step(rnn, torch.zeros(3, 2, 3))
    with pytest.raises(InterfaceError, match="rows must be bool"):
        rnn.restart(carry, torch.tensor([True]))


def test_a_carry_that_is_none_is_refused():
    with pytest.raises(RecurrentStateError, match="awaits"):
        lstm().load_carry({"state": torch.zeros(2)})
