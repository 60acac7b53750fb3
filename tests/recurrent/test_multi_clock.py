"""In float64: networks on several clocks against one graph through them all, tick by tick."""

import copy
import io
import itertools

import pytest
import torch
from full_bptt import Oracle, make_core
from torch import nn

import synthgrad as sg
from synthgrad.errors import ConditionError, ConfigError, InterfaceError, RecurrentStateError
from synthgrad.recurrent.cores import calling
from synthgrad.recurrent.layout import Layout
from synthgrad.trees import float_tensors, replace_float_tensors

# The same numbers, summed in another order.
ROUNDING = {"rtol": 1e-10, "atol": 1e-13}
EXACT = {"rtol": 0, "atol": 0}
BATCH = 3


class Line:
    """Networks on clocks, an input for two windows of the slowest, and a loss for each network."""

    def __init__(self, kinds, periods, horizons, seed=0):
        torch.manual_seed(seed)
        self.periods, self.horizons = periods, horizons
        self.cores, self.initial = zip(*(make_core(kind) for kind in kinds), strict=True)
        self.messages = nn.ModuleList(nn.Linear(5, 3) for _ in kinds[1:]).double()
        self.num_steps = 2 * periods[-1] * horizons[-1]
        self.inputs = torch.randn(self.num_steps, BATCH, 3, dtype=torch.float64)
        self.weights = [
            torch.randn(self.num_steps // period, BATCH, 5, dtype=torch.float64)
            for period in periods
        ]

    @property
    def parameters(self):
        return [p for part in (*self.cores, self.messages) for p in part.parameters()]

    def loss(self, i, outputs, first_tick):
        weights = self.weights[i][first_tick : first_tick + len(outputs)]
        return ((outputs + outputs.square()) * weights).sum() / BATCH

    def by_hand(self, *, cuts=None):
        """Return the gradients of parameters, and of messages and of states at the cuts.

        Args:
            cuts: whether states lose their graph at each network's cuts; None for no cut, else the
                steps of each network's window.
        """
        hows = [calling(c, s) for c, s in zip(self.cores, self.initial, strict=True)]
        states = [how.initial(c, BATCH) for how, c in zip(hows, self.cores, strict=True)]
        ticks = [0] * len(self.cores)
        messages, kept = [[] for _ in self.messages], [[] for _ in self.cores]
        total = 0.0
        for step in range(1, self.num_steps + 1):
            x = self.inputs[step - 1]
            for i, core in enumerate(self.cores):
                out, states[i] = hows[i].run(core, x[None], states[i])
                total = total + self.loss(i, out, ticks[i])
                ticks[i] += 1
                states[i] = replace_float_tensors(
                    states[i], [t.view_as(t) for t in float_tensors(states[i])]
                )
                if step % (self.horizons[i] * self.periods[i]) == 0:
                    kept[i].append(float_tensors(states[i]))
                if cuts and step % cuts[i] == 0:
                    states[i] = replace_float_tensors(
                        states[i], [t.detach() for t in float_tensors(states[i])]
                    )
                if i + 1 == len(self.cores) or step % self.periods[i + 1]:
                    break
                x = self.messages[i](out[0])
                messages[i].append(x)
        grads = torch.autograd.grad(total, self.parameters, retain_graph=True)
        layouts = [Layout.of(s, how.batch_axis) for s, how in zip(states, hows, strict=True)]
        return grads, *self.known(total, messages, kept, layouts)

    def known(self, total, messages, kept, layouts):
        def gradients(tensors):
            found = torch.autograd.grad(total, tensors, retain_graph=True, allow_unused=True)
            return [
                torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors, strict=True)
            ]

        about_messages = [([m.detach() for m in sent], gradients(sent)) for sent in messages]
        about_states = [
            (
                [layout.flat([t.detach() for t in state]) for state in states],
                [layout.flat(gradients(state)) for state in states],
            )
            for states, layout in zip(kept, layouts, strict=True)
        ]
        return about_messages, about_states

    def clocks(self, signals=None, at_cuts=None, **options):
        """Make the clocks; `signals` is the one of the messages."""
        networks = [
            sg.recurrent.TruncatedBPTT(
                core,
                horizon=horizon,
                signal=at_cuts[i] if at_cuts else sg.NoSignal(),
                initial_state=initial,
            )
            for i, (core, horizon, initial) in enumerate(
                zip(self.cores, self.horizons, self.initial, strict=True)
            )
        ]
        clocks = sg.recurrent.MultiClock(
            networks,
            periods=self.periods,
            messages=self.messages,
            message_sizes=[3] * len(self.messages),
            **({} if signals is None else {"signal": signals}),
            **options,
        )
        return clocks.double()

    def train(self, clocks, *, also=None):
        """Go through the inputs, adding gradients up; the weights are held."""
        clocks.zero_grad()
        if also is not None:
            also.backward()
        carry, ticks = None, [0] * len(self.cores)
        for x in self.inputs.split(clocks.num_steps):
            outputs, carry = clocks(x, carry)
            losses = []
            for i, out in enumerate(outputs):
                if out is not None:
                    losses.append(self.loss(i, out, ticks[i]))
                    ticks[i] += len(out)
            sum(losses).backward()
        assert ticks == [self.num_steps // period for period in self.periods]
        return [p.grad.clone() for p in self.parameters]


LINES = {
    "two": (("lstm", "lstm"), (1, 2), (2, 2)),
    "two, cells": (("gru cell", "own cell"), (1, 3), (3, 2)),
    "two messages a window": (("gru", "lstm"), (1, 2), (4, 4)),
    "equal clocks": (("gru", "rnn"), (1, 1), (2, 4)),
    "three": (("lstm", "gru", "lstm cell"), (1, 2, 4), (2, 2, 2)),
    "three, uneven": (("gru", "stacked lstm", "rnn"), (1, 2, 6), (2, 3, 1)),
}
every_line = pytest.mark.parametrize("name", LINES)


def knows(gradients, flats):
    """Return a signal whose synthesizer is an oracle."""
    oracle = Oracle(flats, gradients, 1 / BATCH)
    return sg.SyntheticGradient(synthesizer=lambda shape, size: copy.deepcopy(oracle))


def constant(value=0.1):
    def build(shape, size):
        module = sg.synthesizers.linear(shape, size)
        for p in module.parameters():
            nn.init.constant_(p, value)
        return module

    return build


def assert_equal(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def all_messages(about):
    """Join what is known of all channels: one oracle then serves each of them."""
    flats = [m for sent, _ in about for m in sent]
    return knows([g for _, gradients in about for g in gradients], flats)


@every_line
def test_oracles_for_messages_give_the_gradients_of_one_graph_through_them(name):
    """The states are cut as the networks' windows are, on both sides."""
    line = Line(*LINES[name])
    windows = [h * p for h, p in zip(line.horizons, line.periods, strict=True)]
    expected, messages, _ = line.by_hand(cuts=windows)
    assert_equal(line.train(line.clocks(all_messages(messages))), expected, ROUNDING)


@every_line
def test_oracles_for_messages_and_states_give_full_bptt(name):
    line = Line(*LINES[name])
    expected, messages, states = line.by_hand()
    # At the very end nothing comes back: its states are known with a gradient of zero.
    at_cuts = [knows(gradients, flats) for flats, gradients in states]
    assert_equal(line.train(line.clocks(all_messages(messages), at_cuts)), expected, ROUNDING)


@every_line
def test_coupled_clocks_are_one_graph(name):
    line = Line(*LINES[name])
    windows = [h * p for h, p in zip(line.horizons, line.periods, strict=True)]
    expected, _, _ = line.by_hand(cuts=windows)
    clocks = line.clocks(coupled=True)
    assert clocks.num_steps == windows[-1]
    assert_equal(line.train(clocks), expected, ROUNDING)


def test_a_coupled_network_with_a_long_horizon_is_not_cut_within_the_window():
    line = Line(("lstm", "gru"), (1, 2), (4, 2))
    expected, _, _ = line.by_hand(cuts=(4, 4))
    assert_equal(line.train(line.clocks(coupled=True)), expected, ROUNDING)


@every_line
def test_a_zero_synthesizer_is_no_gradient_from_above_bit_for_bit(name):
    line, alone = Line(*LINES[name]), Line(*LINES[name])
    decoupled = line.train(line.clocks())
    without = alone.clocks(sg.NoSignal())
    nothing = sum((p * 0).sum() for p in without.parameters())  # else a gradient may be None
    assert_equal(decoupled, alone.train(without, also=nothing), EXACT)


@every_line
def test_the_fit_target_is_the_true_gradient_of_the_message(name):
    """With an untrained signal above, where the slowest network's gradient is all there is."""
    line = Line(*LINES[name])
    windows = [h * p for h, p in zip(line.horizons, line.periods, strict=True)]
    _, messages, _ = line.by_hand(cuts=windows)
    clocks = line.clocks(sg.SyntheticGradient(synthesizer="linear"))
    top = clocks.channels[-1].synthesizer
    nn.init.normal_(top.last.weight, std=0.3)
    line.train(clocks)
    found = [p.grad.clone() for p in top.parameters()]
    # The regression written by hand: for each window a mean over messages and batch.
    top.zero_grad()
    sent, gradients = messages[-1]
    number = line.horizons[-1]
    total = 0.0
    for start in range(0, len(sent), number):
        m = torch.cat(sent[start : start + number])
        target = torch.cat(gradients[start : start + number]) * BATCH
        total = total + (top(m, None) - target).square().sum() / len(m)
    total.backward()
    assert_equal(found, [p.grad for p in top.parameters()], ROUNDING)
    assert clocks.channels[-1].num_fits == 2


def test_scale_multiplies_what_the_sender_gets_and_not_the_target():
    gradients, fits = {}, {}
    for scale in (1.0, 10.0):
        line = Line(*LINES["two"])
        clocks = line.clocks(sg.SyntheticGradient(synthesizer=constant(), scale=scale))
        line.train(clocks)
        # The message module hears of nothing but the signal.
        gradients[scale] = line.messages[0].weight.grad
        fits[scale] = clocks.channels[0].synthesizer.last.weight.grad
    torch.testing.assert_close(gradients[10.0], 10 * gradients[1.0], **ROUNDING)
    torch.testing.assert_close(fits[10.0], fits[1.0], **EXACT)


@every_line
def test_the_synthesizers_loss_leaks_nothing_into_the_networks(name):
    plain, wild = Line(*LINES[name]), Line(*LINES[name])
    signal = sg.SyntheticGradient(synthesizer=constant())
    one, other = plain.clocks(signal), wild.clocks(signal)
    for channel in other.channels:
        channel.synthesizer.last.register_forward_hook(
            lambda module, args, out: out + 1e3 * (out - out.detach())
        )
    assert_equal(plain.train(one), wild.train(other), EXACT)
    ratio = [
        b.synthesizer.last.weight.grad / a.synthesizer.last.weight.grad
        for a, b in zip(one.channels, other.channels, strict=True)
    ]
    assert_equal(ratio, [torch.full_like(r, 1001.0) for r in ratio], {"rtol": 1e-10, "atol": 0})


@every_line
def test_what_is_carried_has_no_graph_and_does_not_grow(name):
    line = Line(*LINES[name])
    clocks = line.clocks(sg.SyntheticGradient(synthesizer=constant()))
    carry, sizes = None, []
    for x in torch.cat([line.inputs] * 2).split(clocks.num_steps):
        outputs, carry = clocks(x, carry)
        sum((out * 0).sum() for out in outputs if out is not None).backward()
        tensors = [*flat_tensors(carry.state_dict())]
        assert all(t.grad_fn is None and not t.requires_grad for t in tensors)
        sizes.append(sum(t.numel() for t in tensors))
    half = len(sizes) // 2
    assert sizes[half - 1] == sizes[-1]
    assert max(sizes[half:]) <= max(sizes[:half])


def flat_tensors(tree):
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from flat_tensors(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from flat_tensors(value)


class Training:
    """A line in training with Adam, which can be saved after any call."""

    def __init__(self, seed, *, set_to_none=True):
        self.set_to_none = set_to_none
        self.line = Line(("lstm", "gru", "gru"), (1, 2, 4), (2, 2, 2), seed=seed)
        self.clocks = self.line.clocks(
            sg.SyntheticGradient(
                synthesizer="mlp", condition=sg.OneHot(4), fit_first=2, normalize_targets=True
            )
        )
        self.optimizer = torch.optim.Adam(self.clocks.parameters(), lr=0.01)
        self.carry = None

    def call(self, number):
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(2, BATCH, 3, generator=generator, dtype=torch.float64)
        labels = torch.randint(4, (1, BATCH), generator=generator)
        outputs, self.carry = self.clocks(x, self.carry, condition=[labels, labels])
        loss = sum(out.square().mean() for out in outputs if out is not None)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=self.set_to_none)
        return loss.item()


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 7])
def test_training_resumes_in_the_middle_of_a_window_with_the_same_numbers(stop):
    training = Training(seed=0)
    for number in range(stop):
        training.call(number)
    saved = io.BytesIO()
    torch.save(
        {
            "clocks": training.clocks.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "carry": training.carry.state_dict(),
        },
        saved,
    )
    expected = [training.call(number) for number in range(stop, 14)]
    saved.seek(0)
    loaded = torch.load(saved)
    again = Training(seed=1)
    again.clocks.load_state_dict(loaded["clocks"])
    again.optimizer.load_state_dict(loaded["optimizer"])
    again.carry = again.clocks.load_carry(loaded["carry"])
    assert [again.call(number) for number in range(stop, 14)] == expected
    assert_equal(again.clocks.parameters(), training.clocks.parameters(), EXACT)


def test_an_optimizer_may_move_networks_whose_window_goes_on():
    """As Adam's momentum does where gradients are set to zero in place of None."""
    training = Training(seed=0, set_to_none=False)
    slow = training.clocks.networks[2].core.weight_hh_l0
    seen = []
    for number in range(8):
        training.call(number)
        seen.append(slow.detach().clone())
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(seen)]
    assert moved == [False] * 2 + [True] * 5
    assert torch.isfinite(slow).all()


def test_without_training_the_outputs_are_the_same_and_nothing_is_fitted():
    line = Line(*LINES["three"])
    clocks = line.clocks(sg.SyntheticGradient(synthesizer="mlp"))
    runs = []
    for mode in (True, False):
        clocks.train(mode)
        carry, outputs = None, []
        with torch.set_grad_enabled(mode):
            for x in line.inputs.split(clocks.num_steps):
                made, carry = clocks(x, carry)
                outputs += [out.detach() for out in made if out is not None]
        runs.append(outputs)
    assert_equal(*runs, EXACT)
    assert [channel.num_fits for channel in clocks.channels] == [0, 0]


def test_a_loss_scale_multiplies_every_gradient():
    found = []
    for loss_scale in (1.0, 1024.0):
        line = Line(*LINES["two"])
        clocks = line.clocks(sg.SyntheticGradient(synthesizer=constant()))
        outputs, carry = clocks(line.inputs[:2], loss_scale=loss_scale)
        second, _ = clocks(line.inputs[2:4], carry, loss_scale=loss_scale)
        loss = outputs[0].square().mean() + second[0].square().mean() + second[1].square().mean()
        (loss * loss_scale).backward()
        found.append([p.grad for p in clocks.parameters()])
    assert_equal([g * 1024 for g in found[0]], found[1], EXACT)


def test_a_sum_is_in_the_same_units():
    found = []
    for reduction in ("mean", "sum"):
        torch.manual_seed(0)
        networks = [
            sg.recurrent.TruncatedBPTT(
                nn.GRU(3, 3), horizon=2, signal=sg.NoSignal(), reduction=reduction
            )
            for _ in range(2)
        ]
        signal = sg.SyntheticGradient(synthesizer=constant())
        clocks = sg.recurrent.MultiClock(networks, periods=(1, 2), signal=signal).double()
        x, carry = torch.ones(4, BATCH, 3, dtype=torch.float64), None
        factor = 1 / BATCH if reduction == "mean" else 1.0
        for part in x.split(2):
            outputs, carry = clocks(part, carry)
            (sum(out.square().sum() for out in outputs if out is not None) * factor).backward()
        core = [p.grad / factor for network in networks for p in network.core.parameters()]
        fits = [p.grad for p in clocks.channels[0].synthesizer.parameters()]
        found.append([*core, *fits])
    assert_equal(*found, ROUNDING)


def gru(features, units, horizon=2, **options):
    return sg.recurrent.TruncatedBPTT(
        nn.GRU(features, units, **options), horizon=horizon, signal=sg.NoSignal()
    )


def make(networks=None, periods=(1, 2), **options):
    return sg.recurrent.MultiClock(networks or [gru(3, 4), gru(4, 5)], periods=periods, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"networks": [gru(3, 4)], "periods": (1,)}, "two or more"),
        ({"periods": (1,)}, "one for each"),
        ({"periods": (2, 4)}, "begins with 1"),
        ({"periods": (1, 0)}, "multiple"),
        ({"periods": (1, -2)}, "multiple"),
        (
            {"networks": [gru(3, 4, 6), gru(4, 4), gru(4, 4)], "periods": (1, 2, 3)},
            "3 is none of 2",
        ),
        ({"periods": (1, 4)}, "multiple of the next period, 4"),
        ({"networks": [gru(3, 4, 4), gru(4, 4, 3)]}, "next window, 6"),
        ({"networks": [gru(3, 4), gru(4, 5, batch_first=True)]}, "time first"),
        ({"messages": []}, "0 messages for 2 networks"),
        ({"message_sizes": [4, 4]}, "2 message_sizes for 2 networks"),
        ({"coupled": True, "signal": sg.SyntheticGradient()}, "leave out one"),
        ({"signal": sg.SyntheticGradient(mix=0.5)}, "mix=0"),
        ({"signal": sg.SyntheticGradient(trace_decay=0.5)}, "trace_decay=0.5"),
        ({"signal": sg.PredSim(num_classes=3)}, "PredSim"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(options, words):
    with pytest.raises(ConfigError, match=words):
        make(**options)


def test_the_messages_of_an_own_core_need_a_size():
    core, initial = make_core("own cell")
    own = sg.recurrent.TruncatedBPTT(
        core.float(), horizon=2, signal=sg.NoSignal(), initial_state=initial
    )
    with pytest.raises(ConfigError, match="message_sizes"):
        make([gru(3, 3), own])
    assert make([gru(3, 3), own], message_sizes=[3]).channels[0].size == 3


def test_a_network_with_a_conditioned_signal_of_its_own_is_refused():
    own = sg.recurrent.TruncatedBPTT(
        nn.GRU(3, 4), horizon=2, signal=sg.SyntheticGradient(condition=sg.OneHot(3))
    )
    with pytest.raises(ConfigError, match="for its messages"):
        make([own, gru(4, 5)])


@pytest.mark.parametrize("shape", [(3, 2, 3), (1, 2, 3), (2,)])
def test_a_call_takes_the_first_networks_window(shape):
    with pytest.raises(InterfaceError, match=r"\[2, batch"):
        make()(torch.zeros(shape))


def test_a_message_of_the_wrong_shape():
    clocks = make([gru(3, 4), gru(6, 5)])
    with pytest.raises(InterfaceError, match=r"messages have shape \(1, 2, 4\)"):
        clocks(torch.zeros(2, 2, 3))


def test_a_synthesizer_of_the_wrong_shape():
    signal = sg.SyntheticGradient(synthesizer=lambda shape, size: Shorten())
    with pytest.raises(InterfaceError, match="has the shape of what"):
        make(signal=signal)(torch.zeros(2, 2, 3))


class Shorten(nn.Module):
    def forward(self, h, code):
        return h[:, :-1]


def test_a_condition_that_is_missing_or_has_the_wrong_shape():
    clocks = make(signal=sg.SyntheticGradient(condition=sg.OneHot(3)))
    x, labels = torch.zeros(2, 4, 3), torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(ConditionError, match=r"labels of shape \(1, 4\)"):
        clocks(x)
    with pytest.raises(ConditionError, match=r"not \(4,\)"):
        clocks(x, condition=labels[0])
    with pytest.raises(ConditionError, match="2 conditions for 1 channels"):
        clocks(x, condition=[labels, labels])
    _, carry = clocks(x, condition=labels)
    assert carry.mail[0].codes.shape == (1, 4, 3)


def test_a_carry_of_something_else():
    three = make([gru(3, 4), gru(4, 4), gru(4, 4)], periods=(1, 2, 4))
    _, carry = three(torch.zeros(2, 4, 3))
    two = make()
    with pytest.raises(RecurrentStateError, match="3 networks"):
        two(torch.zeros(2, 4, 3), carry)
    with pytest.raises(RecurrentStateError, match="3 networks"):
        two.load_carry(carry.state_dict())
    with pytest.raises(RecurrentStateError, match="'mail' is missing"):
        two.load_carry({"networks": []})
    _, carry = two(torch.zeros(2, 4, 3))
    with pytest.raises(RecurrentStateError, match="batch stays the same"):
        two(torch.zeros(2, 5, 3), carry)


def test_backward_twice_is_refused():
    clocks = make()
    outputs, _ = clocks(torch.randn(2, 4, 3))
    outputs[0].sum().backward(retain_graph=True)
    with pytest.raises(InterfaceError, match="second time"):
        outputs[0].sum().backward()
