"""TruncatedBPTT in use: sequences in a stream, checkpoints, scales, the auxiliary task."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import synthgrad as sg

EXACT = {"rtol": 0, "atol": 0}


def lstm(**options):
    torch.manual_seed(0)
    options = {"horizon": 3, **options}
    return sg.recurrent.TruncatedBPTT(nn.LSTM(3, 5), **options)


def step(rnn, inputs, carry=None, **options):
    outputs, carry = rnn(inputs, carry, **options)
    outputs.square().mean().backward()
    return carry


def shaken(rnn):
    """Give the synthesizer something to say."""
    torch.manual_seed(5)
    for p in rnn.synthesizer.parameters():
        nn.init.normal_(p, std=0.3)
    return rnn


def test_the_condition_of_the_emission_is_that_of_the_fit():
    """A label may change from chunk to chunk; a prediction is fitted for what it was made with."""
    rnn = lstm(signal=sg.SyntheticGradient(condition=sg.OneHot(2)))
    carry = step(rnn, torch.randn(3, 2, 3), condition=torch.tensor([0, 0]))
    assert rnn.synthesizer.last.weight.grad is None
    step(rnn, torch.randn(3, 2, 3), carry, condition=torch.tensor([1, 1]))
    used = rnn.synthesizer.last.weight.grad[:, -2:].abs().sum(0)
    assert used[0] > 0
    assert used[1] == 0


def test_a_sequence_shorter_than_the_horizon_is_one_chunk():
    rnn = lstm(horizon=20)
    (chunk,) = rnn.chunks(torch.zeros(4, 2, 3))
    assert chunk.ends
    assert chunk.steps == slice(0, 4)
    step(rnn, chunk.inputs, ends=chunk.ends)


def test_chunks_of_padded_sequences_say_where_each_ends():
    lengths = torch.tensor([7, 3, 4])
    chunks = list(lstm().chunks(torch.zeros(7, 3, 3), lengths))
    assert [c.steps for c in chunks] == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert [c.ends.tolist() for c in chunks] == [
        [False, True, False],
        [False, False, True],
        [True, False, False],
    ]
    assert sum(c.mask.sum(0) for c in chunks).tolist() == lengths.tolist()


def test_in_eval_or_without_gradients_the_core_just_runs():
    rnn = shaken(lstm())
    x = torch.randn(3, 2, 3)
    expected, _ = rnn.core(x)
    for mode in (rnn.eval(), rnn.train()):
        with torch.set_grad_enabled(not mode.training):
            outputs, carry = mode(x)
        torch.testing.assert_close(outputs, expected, **EXACT)
        assert carry.awaits is None


def test_restarted_rows_forget_and_are_not_fitted():
    rnn = shaken(lstm())
    torch.manual_seed(1)
    x, y = torch.randn(3, 2, 3), torch.randn(3, 2, 3)
    carry = step(rnn, x)
    rnn.zero_grad()
    carry = rnn.restart(carry, torch.tensor([True, False]))
    assert carry.awaits.tolist() == [False, True]
    outputs, _ = rnn(y, carry)
    fresh, _ = rnn(y)
    torch.testing.assert_close(outputs[:, 0], fresh[:, 0])
    assert not torch.allclose(outputs[:, 1], fresh[:, 1])
    outputs[:, 0].square().sum().backward()  # the loss of the row that began anew, and signals
    assert rnn.synthesizer.last.weight.grad is not None
    rnn.zero_grad()
    everything = rnn.restart(carry)
    assert everything.awaits is None
    assert not any(t.any() for t in everything.state)


def test_a_state_with_a_graph_gets_its_gradient():
    """What an encoder made is a start like any other, and it is trained."""
    rnn = shaken(lstm())
    start = tuple(torch.zeros(1, 2, 5, requires_grad=True) for _ in range(2))
    outputs, _ = rnn(torch.randn(3, 2, 3), start)
    outputs.sum().backward()
    assert all(s.grad.any() for s in start)


@pytest.mark.parametrize("trace_decay", [0.0, 0.7])
def test_training_resumes_in_mid_sequence_with_the_same_numbers(trace_decay):
    def make():
        torch.manual_seed(0)
        rnn = sg.recurrent.TruncatedBPTT(
            nn.LSTM(3, 4),
            horizon=2,
            signal=sg.SyntheticGradient(condition=sg.OneHot(3), trace_decay=trace_decay),
            auxiliary=sg.recurrent.Auxiliary(),
        )
        return rnn, torch.optim.Adam(rnn.parameters(), lr=0.01)

    x, labels = torch.randn(12, 4, 3), torch.tensor([0, 1, 2, 0])

    def train(rnn, optimizer, chunks, carry=None):
        for chunk in chunks:
            outputs, carry = rnn(chunk.inputs, carry, ends=chunk.ends, condition=labels)
            optimizer.zero_grad()
            outputs.square().mean().backward()
            optimizer.step()
        return carry

    whole, optimizer = make()
    train(whole, optimizer, whole.chunks(x))
    first, optimizer = make()
    chunks = list(first.chunks(x))
    carry = train(first, optimizer, chunks[:3])
    buffer = io.BytesIO()
    torch.save(
        {"rnn": first.state_dict(), "adam": optimizer.state_dict(), "carry": carry.state_dict()},
        buffer,
    )
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    second, optimizer = make()
    for p in second.parameters():
        nn.init.normal_(p)
    second.load_state_dict(saved["rnn"])
    optimizer.load_state_dict(saved["adam"])
    train(second, optimizer, chunks[3:], second.load_carry(saved["carry"]))
    assert second.num_fits == whole.num_fits == 5
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_a_loss_scale_changes_no_gradient_once_it_is_undone():
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    found = []
    for scale in (1.0, torch.tensor(1024.0)):
        rnn = shaken(lstm(auxiliary=sg.recurrent.Auxiliary(weight=1.0))).double()
        carry = None
        for chunk in rnn.chunks(x):
            outputs, carry = rnn(chunk.inputs, carry, ends=chunk.ends, loss_scale=scale)
            (outputs.square().mean() * scale).backward()
        found.append([p.grad / scale for p in rnn.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_until_fit_first_is_over_nothing_is_emitted_and_targets_are_whole():
    x = torch.randn(6, 2, 3)

    def gradients(**options):
        signal = sg.SyntheticGradient(scale=0.5, **options)
        rnn = shaken(lstm(horizon=2, signal=signal, gamma=1.0))
        carry = None
        for chunk in rnn.chunks(x):
            outputs, carry = rnn(chunk.inputs, carry, ends=chunk.ends)
            outputs.square().mean().backward()
        return rnn.core.weight_hh_l0.grad, rnn.synthesizer.last.weight.grad

    waiting, at_once = gradients(fit_first=100), gradients()
    truncated = lstm(horizon=2, signal=sg.NoSignal())
    carry = None
    for chunk in truncated.chunks(x):
        carry = step(truncated, chunk.inputs, carry, ends=chunk.ends)
    torch.testing.assert_close(waiting[0], truncated.core.weight_hh_l0.grad, **EXACT)
    assert not torch.equal(waiting[0], at_once[0])
    torch.testing.assert_close(waiting[1], at_once[1])  # the same targets


def test_a_part_of_the_state_that_nothing_reads_has_a_zero_gradient():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x, state):
            h, count = state
            h = self.layer(torch.cat([x, h], 1))
            return h, (h, torch.ones_like(count))

    for trace_decay in (0.0, 0.9):
        torch.manual_seed(0)
        rnn = sg.recurrent.TruncatedBPTT(
            Counts(),
            horizon=2,
            signal=sg.SyntheticGradient(trace_decay=trace_decay),
            gamma=0.5,
            initial_state=lambda n: (torch.zeros(n, 3), torch.zeros(n, 1)),
        )
        carry = None
        for chunk in rnn.chunks(torch.randn(8, 2, 3)):
            carry = step(rnn, chunk.inputs, carry)
        assert rnn.synthesizer.last.bias.grad[3] == 0
        assert rnn.synthesizer.last.bias.grad[:3].all()


def test_the_auxiliary_task_trains_the_head_and_the_core():
    x = torch.randn(6, 2, 3)

    def gradient(auxiliary):
        rnn = shaken(lstm(auxiliary=auxiliary))
        outputs, _ = rnn(x[:3])
        (outputs * 0).sum().backward()
        return rnn

    plain = gradient(None)
    torch.manual_seed(0)
    with_task = gradient(sg.recurrent.Auxiliary(weight=1.0, hidden=(4,)))
    assert with_task.auxiliary_head.layers[-1].weight.grad.any()
    # The head's last layer starts at zero, so the core feels it from the second update on.
    torch.testing.assert_close(
        plain.core.weight_ih_l0.grad, with_task.core.weight_ih_l0.grad, **EXACT
    )
    nn.init.normal_(with_task.auxiliary_head.layers[-1].weight)
    with_task.zero_grad()
    outputs, _ = with_task(x[:3])
    (outputs * 0).sum().backward()
    assert not torch.equal(plain.core.weight_ih_l0.grad, with_task.core.weight_ih_l0.grad)


def test_the_auxiliary_head_learns_to_foresee_the_signal():
    rnn = shaken(lstm(auxiliary=sg.recurrent.Auxiliary(weight=1.0)))
    for p in (*rnn.core.parameters(), *rnn.synthesizer.parameters()):
        p.requires_grad_(False)
    optimizer = torch.optim.Adam(rnn.auxiliary_head.parameters(), lr=0.05)
    x = torch.randn(3, 16, 3)

    def loss():
        outputs, _ = rnn(x)
        with torch.no_grad():
            flat = torch.cat([s[0] for s in rnn.core(x)[1]], 1)
            signal = rnn.synthesizer(flat, None)
            scaled = signal / rnn.auxiliary_head.mean_square.sqrt()
            distance = F.mse_loss(rnn.auxiliary_head(rnn.core(x)[0][0]), scaled)
        return outputs, float(distance)

    before = loss()[1]
    for _ in range(200):
        outputs, _ = loss()
        optimizer.zero_grad()
        (outputs.sum() * 0 + rnn.auxiliary_head.weight * 0).backward()
        optimizer.step()
    assert loss()[1] < 0.5 * before


def test_a_copy_trains_by_itself():
    rnn = shaken(lstm())
    twin = copy.deepcopy(rnn)
    step(twin, torch.ones(3, 2, 3))
    assert all(p.grad is None for p in rnn.parameters())
    assert twin.core.weight_hh_l0.grad is not None


def test_an_ordinary_loop_learns_what_truncated_bptt_cannot():
    """Remember the first input's sign for two chunks: the gradient has to cross two cuts."""

    def accuracy(signal):
        torch.manual_seed(0)
        rnn = sg.recurrent.TruncatedBPTT(nn.GRU(1, 8), horizon=1, signal=signal)
        head = nn.Linear(8, 1)
        # The core starts without memory of its input, so chance does not solve it.
        nn.init.zeros_(rnn.core.weight_ih_l0)
        optimizer = torch.optim.Adam([*rnn.parameters(), *head.parameters()], lr=0.01)
        right = 0.0
        for update in range(600):
            sign = torch.randint(0, 2, (32, 1)) * 2.0 - 1
            x = torch.zeros(3, 32, 1)
            x[0] = sign
            carry = None
            for chunk in rnn.chunks(x):
                outputs, carry = rnn(chunk.inputs, carry, ends=chunk.ends)
                guess = head(outputs[-1])
                loss = F.soft_margin_loss(guess, sign) if chunk.ends is True else guess.sum() * 0
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if update >= 550:
                right += float((guess.sign() == sign).float().mean()) / 50
        return right

    assert accuracy(sg.NoSignal()) < 0.7
    assert accuracy(sg.SyntheticGradient(synthesizer="linear")) > 0.95
