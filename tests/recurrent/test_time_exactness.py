"""In float64: what truncated BPTT with a synthetic gradient must equal, and where it is zero."""

import pytest
import torch
from full_bptt import CORES, Oracle, full_bptt, make_core
from torch import nn

import synthgrad as sg
from synthgrad.recurrent.layout import Layout
from synthgrad.trees import float_tensors

# The same numbers, summed in another order.
ROUNDING = {"rtol": 1e-10, "atol": 1e-13}
EXACT = {"rtol": 0, "atol": 0}
STEPS, BATCH = 7, 4
RAGGED = torch.tensor([7, 3, 1, 5])


def sequence(seed=0, features=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(STEPS, BATCH, features, generator=generator, dtype=torch.float64)


class Setting:
    """A core, inputs as it takes them, and a loss: a mean over the batch of sums over the steps."""

    def __init__(self, kind, lengths=None, reduction="mean"):
        torch.manual_seed(1)
        self.core, self.initial = make_core(kind)
        self.time_axis = 1 if kind == "batch first" else 0
        self.inputs = sequence().movedim(0, self.time_axis)
        self.lengths = lengths
        self.reduction = reduction
        self.weights = torch.randn(STEPS, BATCH, 5, dtype=torch.float64)
        if lengths is not None:
            self.weights *= (torch.arange(STEPS)[:, None] < lengths)[:, :, None]

    def loss(self, outputs, steps):
        by_time = outputs.movedim(self.time_axis, 0)
        total = ((by_time + by_time.square()) * self.weights[steps]).sum()
        return total / BATCH if self.reduction == "mean" else total

    def bptt(self, horizon):
        return full_bptt(self.core, self.initial, self.inputs, self.loss, horizon)

    def recurrent(self, horizon, synthesizer=None, **options):
        signal = options.pop("signal", None) or sg.SyntheticGradient(
            synthesizer=(lambda shape, size: synthesizer) if synthesizer else "linear",
            **{k: options.pop(k) for k in ("scale", "trace_decay") if k in options},
        )
        return sg.recurrent.TruncatedBPTT(
            self.core,
            horizon=horizon,
            signal=signal,
            initial_state=self.initial,
            reduction=self.reduction,
            **options,
        )

    def train(self, rnn, carry=None):
        """Go through the sequence, adding gradients up; the weights are held."""
        rnn.zero_grad()
        for chunk in rnn.chunks(self.inputs, self.lengths):
            outputs, carry = rnn(chunk.inputs, carry, mask=chunk.mask, ends=chunk.ends)
            self.loss(outputs, chunk.steps).backward()
        return [p.grad.clone() for p in self.core.parameters()]


def assert_equal(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["whole", "ragged"])
@pytest.mark.parametrize("horizon", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("kind", CORES)
def test_an_oracle_gives_the_gradients_of_full_bptt(kind, horizon, lengths):
    setting = Setting(kind, lengths)
    expected, flats, gradients = setting.bptt(horizon)
    oracle = Oracle(flats or [torch.zeros(1, 1)], gradients or [torch.zeros(1, 1)], 1 / BATCH)
    if not flats:
        oracle = None  # one chunk holds it all: any synthesizer will do
    rnn = setting.recurrent(horizon, oracle)
    assert_equal(setting.train(rnn), expected, ROUNDING)


def test_an_oracle_of_a_sum_is_in_the_same_units():
    setting = Setting("gru", reduction="sum")
    expected, flats, gradients = setting.bptt(2)
    rnn = setting.recurrent(2, Oracle(flats, gradients, 1.0))
    assert_equal(setting.train(rnn), expected, ROUNDING)


@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["whole", "ragged"])
@pytest.mark.parametrize("kind", CORES)
def test_a_zero_synthesizer_is_truncated_bptt_bit_for_bit(kind, lengths):
    setting = Setting(kind, lengths)
    decoupled = setting.train(setting.recurrent(2))
    truncated = setting.train(setting.recurrent(2, signal=sg.NoSignal()))
    assert_equal(decoupled, truncated, EXACT)


def test_no_signal_is_truncated_bptt_written_by_hand():
    setting = Setting("lstm")
    truncated = setting.train(setting.recurrent(3, signal=sg.NoSignal()))
    setting.core.zero_grad()
    state = None
    for start in range(0, STEPS, 3):
        steps = slice(start, min(start + 3, STEPS))
        outputs, state = setting.core(setting.inputs[steps], state)
        setting.loss(outputs, steps).backward()
        state = tuple(s.detach() for s in state)
    assert_equal(truncated, [p.grad for p in setting.core.parameters()], EXACT)


@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["whole", "ragged"])
@pytest.mark.parametrize("kind", ["lstm", "stacked lstm", "gru", "lstm cell", "own cell"])
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_with_a_full_trace_the_summed_target_is_full_bptts(kind, lengths, scale):
    setting = Setting(kind, lengths)
    _, flats, gradients = setting.bptt(2)
    rnn = setting.recurrent(2, trace_decay=1.0, gamma=1.0, scale=scale)
    for p in rnn.synthesizer.parameters():
        nn.init.normal_(p, std=0.1)
    setting.train(rnn)
    found = [p.grad.clone() for p in rnn.synthesizer.parameters()]
    # The regression to full BPTT's gradients, written by hand; where a row has ended, to zero,
    # once.
    rnn.zero_grad()
    ends = setting.lengths if lengths is not None else torch.full((BATCH,), STEPS)
    boundaries = list(range(2, STEPS + 2, 2))
    last = final_states(setting, 2)
    total = 0.0
    for index, boundary in enumerate(boundaries):
        flat = flats[index] if index < len(flats) else last
        target = gradients[index] * BATCH if index < len(flats) else torch.zeros_like(last)
        at_boundary = (ends > boundary - 2)[:, None]  # rows that were alive in the chunk before
        error = (rnn.synthesizer(flat, None) - target) * at_boundary
        total = total + error.square().sum() / BATCH
    total.backward()
    assert_equal(found, [p.grad for p in rnn.synthesizer.parameters()], ROUNDING)


def final_states(setting, horizon):
    rnn = setting.recurrent(horizon, signal=sg.NoSignal())
    carry = None
    for chunk in rnn.chunks(setting.inputs):
        _, carry = rnn(chunk.inputs, carry)
    layout = Layout.of(carry.state, 1 if isinstance(setting.core, nn.RNNBase) else 0)
    return layout.flat(float_tensors(carry.state))


def test_a_trace_that_is_cut_is_the_nstep_target():
    """trace_length boundaries back: the error of boundary k reaches k - 1 ... k - trace_length."""
    setting = Setting("gru")
    rnn = setting.recurrent(1, trace_decay=1.0, gamma=1.0, trace_length=2)
    for p in rnn.synthesizer.parameters():
        nn.init.normal_(p, std=0.1)
    carry = None
    for chunk in rnn.chunks(setting.inputs):
        outputs, carry = rnn(chunk.inputs, carry)
        setting.loss(outputs, chunk.steps).backward()
        assert len(carry.past) == min(chunk.steps.start, 2)


@pytest.mark.parametrize("kind", ["lstm", "own cell"])
def test_gamma_discounts_the_target_and_scale_what_the_core_gets(kind):
    setting = Setting(kind)
    targets = {}
    for gamma, scale in [(1.0, 1.0), (0.5, 1.0), (0.5, 0.1), (0.1, 0.1)]:
        torch.manual_seed(3)
        rnn = setting.recurrent(2, gamma=gamma, scale=scale)
        for p in rnn.synthesizer.parameters():
            nn.init.normal_(p, std=0.3)
        targets[gamma, scale] = setting.train(rnn), rnn.synthesizer.last.weight.grad.clone()
    # gamma changes the fit alone
    assert_equal(targets[1.0, 1.0][0], targets[0.5, 1.0][0], EXACT)
    assert_equal(targets[0.5, 0.1][0], targets[0.1, 0.1][0], EXACT)
    assert not torch.equal(targets[1.0, 1.0][1], targets[0.5, 1.0][1])
    # the scale changes the core alone
    torch.testing.assert_close(targets[0.5, 1.0][1], targets[0.5, 0.1][1], **ROUNDING)
    assert not torch.equal(targets[0.5, 1.0][0][0], targets[0.5, 0.1][0][0])


@pytest.mark.parametrize("kind", CORES)
def test_the_last_windows_target_is_exactly_zero(kind):
    setting = Setting(kind)
    rnn = setting.recurrent(STEPS)
    for p in rnn.synthesizer.parameters():
        nn.init.normal_(p, std=0.3)
    with_signal = setting.train(rnn)
    fitted = [p.grad.clone() for p in rnn.synthesizer.parameters()]
    without = setting.train(setting.recurrent(STEPS, signal=sg.NoSignal()))
    assert_equal(with_signal, without, EXACT)
    rnn.zero_grad()
    last = final_states(setting, STEPS)
    (rnn.synthesizer(last, None).square().sum() / BATCH).backward()
    assert_equal(fitted, [p.grad for p in rnn.synthesizer.parameters()], ROUNDING)


@pytest.mark.parametrize("kind", CORES)
def test_the_synthesizers_loss_leaks_nothing_into_the_core(kind):
    """A factor on the gradient of the synthesizer's fit changes nothing in the core's."""
    setting = Setting(kind)
    plain, wild = setting.recurrent(2), setting.recurrent(2)
    for p in (*plain.synthesizer.parameters(), *wild.synthesizer.parameters()):
        nn.init.constant_(p, 0.1)
    wild.synthesizer.last.register_forward_hook(
        lambda module, args, out: out + 1e3 * (out - out.detach())
    )
    assert_equal(setting.train(plain), setting.train(wild), EXACT)
    ratio = wild.synthesizer.last.weight.grad / plain.synthesizer.last.weight.grad
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1001.0))


@pytest.mark.parametrize("kind", CORES)
def test_what_is_carried_has_no_graph(kind):
    setting = Setting(kind)
    rnn = setting.recurrent(2, trace_decay=0.5)
    carry = None
    for chunk in rnn.chunks(setting.inputs):
        outputs, carry = rnn(chunk.inputs, carry)
        setting.loss(outputs, chunk.steps).backward()
        saved = carry.state_dict()
        leaves = [*flat_tensors(saved)]
        assert leaves
        assert all(t.grad_fn is None and not t.requires_grad for t in leaves)


def flat_tensors(tree):
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from flat_tensors(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from flat_tensors(value)
