"""The interface in a training step: trees of tensors, and every error that it can raise."""

import copy
import pickle
from collections import OrderedDict, defaultdict

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import synthgrad as sg
from synthgrad.errors import ConditionError, InterfaceError
from synthgrad.trees import float_tensors, replace_float_tensors
from zoo import CLASSES, ZOO, Pair

MLP = ZOO[0]
CDNI = sg.SyntheticGradient(condition=sg.OneHot(CLASSES))


def decoupled(specimen=MLP, model=None, at=None, **options):
    x, _ = specimen.batch()
    model = specimen.model() if model is None else model
    net = sg.decouple(model, list(at or specimen.at), example_inputs=x, **options)
    for p in net.synthesizer_parameters():
        nn.init.normal_(p, std=0.3)
    return net


def loss_of(net, condition=None, number=0):
    x, y = MLP.batch(number)
    return F.cross_entropy(net(x, condition=condition), y)


def gradients(net):
    return [None if p.grad is None else p.grad.clone() for p in net.parameters()]


# Trees -------------------------------------------------------------------------------------------

A, B, N = torch.ones(1), torch.zeros(2), torch.arange(3)


@pytest.mark.parametrize(
    "tree",
    [
        A,
        (A, B),
        [A, [B, N], "text", None, 3],
        {"a": A, "n": N, "inner": (B,)},
        OrderedDict(a=A, b=B),
        defaultdict(list, a=A, b=[B]),
        Pair(A, "note", B),
        torch.randn(4, 3).max(0),
        {1: A, (2, 3): B},
    ],
    ids=lambda t: type(t).__name__,
)
def test_trees_keep_their_form(tree):
    leaves = float_tensors(tree)
    assert all(t.is_floating_point() for t in leaves)
    new = [t + 1 for t in leaves]
    rebuilt = replace_float_tensors(tree, new)
    assert type(rebuilt) is type(tree)
    assert all(a is b for a, b in zip(float_tensors(rebuilt), new, strict=True))
    assert all(a is b for a, b in zip(float_tensors(tree), leaves, strict=True)), "left alone"
    unchanged = replace_float_tensors(tree, leaves)
    assert str(unchanged) == str(tree)


def test_integers_are_no_activations():
    assert float_tensors((N, [N], {"n": N})) == []


# Conditions --------------------------------------------------------------------------------------


def test_a_missing_condition():
    net = decoupled(signal=CDNI)
    with pytest.raises(
        ConditionError, match=r"at interface 'a'.*OneHot.*call net\(x, condition=y\)"
    ):
        loss_of(net)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (torch.zeros(5, dtype=torch.long), r"'a'.*shape \(5,\) and the activation \(8, 10\)"),
        (torch.zeros(8, 1, dtype=torch.long), r"'a'.*labels of shape \(8, 1\) do not fit"),
        (torch.tensor(1), r"shape \(\) and the activation \(8, 10\)"),
        (torch.full((8,), CLASSES), rf"'a'.*from {CLASSES} to {CLASSES}.*takes 0 to {CLASSES - 1}"),
        (torch.zeros(8), "'a'.*takes integer class labels.*float32"),
    ],
    ids=["another batch", "a column", "a scalar", "out of range", "floats"],
)
def test_a_condition_that_does_not_fit(condition, message):
    net = decoupled(signal=CDNI)
    with pytest.raises(ConditionError, match=message):
        loss_of(net, condition)


def test_labels_are_encoded_once_a_step():
    class Watched(sg.OneHot):
        calls = 0

        def encode(self, labels, dtype):
            Watched.calls += 1
            return super().encode(labels, dtype)

    net = decoupled(signal=sg.SyntheticGradient(condition=Watched(CLASSES)))
    loss_of(net, MLP.batch()[1])
    assert len(net.interfaces) == 3
    assert Watched.calls == 1


# Shapes and paths --------------------------------------------------------------------------------


def test_a_synthesizer_of_the_wrong_shape():
    class Short(nn.Module):
        def forward(self, h, code):
            return h[:, 1:]

    net = decoupled(signal=sg.SyntheticGradient(synthesizer=lambda shape, size: Short()))
    with pytest.raises(InterfaceError, match=r"'a' predicts shape \(8, 9\).*shape \(8, 10\)"):
        loss_of(net)


class Fickle(nn.Module):
    """Takes another path when it is told to."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.top = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.path = "ab"

    def forward(self, x):
        for step in self.path:
            x = getattr(self, step)(x)
        return self.top((x, x)[0])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a", "did not cross interface 'b'"),
        ("", "did not cross interface 'a'"),
        ("ba", "interface 'b' was crossed as number 0 .* it was number 1"),
        ("aab", "interface 'a' was crossed as number 1"),
        ("abb", "interface 'b' was crossed as number 2"),
    ],
)
def test_a_path_that_depends_on_the_data(path, message):
    net = decoupled(model=Fickle().double(), at=["a", "b"])
    net.model.path = path
    with pytest.raises(InterfaceError, match=message):
        loss_of(net)


def test_an_output_that_holds_more_tensors_than_before():
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.extra = nn.Linear(6, 6), ()

        def forward(self, x):
            return self.layer(x), *self.extra

    class Top(nn.Linear):
        def forward(self, h):
            return super().forward(h[0])

    model = nn.Sequential(Growing(), Top(6, CLASSES)).double()
    net = decoupled(model=model, at=["0"])
    model[0].extra = (torch.ones(8, 1),)
    with pytest.raises(InterfaceError, match=r"'0' holds 2 floating-point tensors.*it held 1"):
        loss_of(net)


def test_after_an_error_the_next_pass_works():
    net = decoupled(model=Fickle().double(), at=["a", "b"], update_probability=0.5, seed=1)
    twin = copy.deepcopy(net)
    net.model.path = "ba"
    for _ in range(3):
        with pytest.raises(InterfaceError):
            loss_of(net)
        assert torch.is_grad_enabled()
        assert not net._step.active
    net.model.path = "ab"
    for number in range(5):
        for n in (net, twin):
            n.zero_grad()
            loss_of(n, number=number).backward()
        assert net.updated == twin.updated, "a pass that failed counts for nothing"
        torch.testing.assert_close(gradients(net), gradients(twin), rtol=0, atol=0)


def test_after_a_step_nothing_of_the_batch_is_kept():
    net = decoupled(signal=CDNI, update_probability=0.5)
    for number in range(4):
        loss_of(net, MLP.batch()[1], number).backward()
        step = net._step
        assert (step.condition, step.anchor, step.codes, step.active) == (None, None, {}, False)


# Checkpoints -------------------------------------------------------------------------------------


class Switched(nn.Module):
    """Checkpoints a part of itself once it is told to, after it was decoupled."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.top = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.reentrant = None

    def forward(self, x):
        h = self.a(x)
        if self.reentrant is None:
            return self.top(self.b(h))
        return self.top(checkpoint(lambda h: self.b(h), h, use_reentrant=self.reentrant))


@pytest.mark.parametrize(
    ("signal", "reentrant"),
    [
        (sg.SyntheticGradient(), True),
        (sg.SyntheticGradient(), False),
        (sg.Backprop(), True),
        (sg.Backprop(), False),
        (sg.NoSignal(), True),  # without a gradient the other kind does nothing, and no harm
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_a_checkpoint_around_an_interface(reentrant, signal):
    net = decoupled(model=Switched().double(), at=["a", "b"], signal=signal)
    loss_of(net).backward()
    net.model.reentrant = reentrant
    with pytest.raises(
        InterfaceError, match=r"'b' lies inside an activation checkpoint.*within 'b'"
    ):
        loss_of(net)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_around_the_whole_net(reentrant):
    net = decoupled()
    x, _ = MLP.batch()
    with pytest.raises(InterfaceError, match="whole decoupled model was called inside"):
        checkpoint(net, x.requires_grad_(), use_reentrant=reentrant).sum().backward()


# Backward ----------------------------------------------------------------------------------------


def test_a_second_backward_through_the_same_graph():
    net = decoupled()
    loss = loss_of(net)
    loss.backward(retain_graph=True)
    once = gradients(net.model.a)
    with pytest.raises(InterfaceError, match=r"second time.*interface 'c'.*Add the losses up"):
        loss.backward()
    torch.testing.assert_close(gradients(net.model.a), once, rtol=0, atol=0)


def test_a_second_derivative():
    net = decoupled()
    with pytest.raises(InterfaceError, match="without create_graph"):
        torch.autograd.grad(loss_of(net), net.model.a[0].weight, create_graph=True)


def test_losses_can_be_added_up():
    net, twin = decoupled(), decoupled()
    twin.load_state_dict(net.state_dict())
    x, y = MLP.batch()
    output = net(x)
    (F.cross_entropy(output, y) + output.square().mean()).backward()
    other = twin(x)
    slope = torch.autograd.grad(
        F.cross_entropy(other, y) + other.square().mean(), other, retain_graph=True
    )
    other.backward(slope)
    torch.testing.assert_close(gradients(net), gradients(twin), rtol=0, atol=0)


def test_gradients_of_some_parameters_alone():
    net = decoupled()
    loss_of(net).backward()
    expected = [p.grad for p in net.model.top.parameters()]
    found = torch.autograd.grad(loss_of(net), list(net.model.top.parameters()))
    torch.testing.assert_close(list(found), expected, rtol=0, atol=0)


def test_an_activation_that_a_loss_uses_before_the_interface():
    """A user's auxiliary loss inside a stage adds to the signal from its interface."""
    net = decoupled()
    kept = []
    net.model.a[0].register_forward_hook(lambda m, args, h: kept.append(h))
    loss_of(net).backward()
    without = gradients(net.model.a)
    net.zero_grad()
    kept.clear()
    loss = loss_of(net)
    (loss + kept[0].square().sum()).backward()
    h = kept[0].detach()
    x, _ = MLP.batch()
    torch.testing.assert_close(net.model.a[0].weight.grad, without[0] + (2 * h).T @ x)


# Copies ------------------------------------------------------------------------------------------


def test_a_decoupled_model_can_be_pickled():
    net = decoupled(signal=CDNI, update_probability=0.7)
    loss_of(net, MLP.batch()[1]).backward()
    net.zero_grad()
    twin = pickle.loads(pickle.dumps(net))
    for n in (net, twin):
        loss_of(n, MLP.batch(1)[1], 1).backward()
    torch.testing.assert_close(gradients(twin), gradients(net), rtol=0, atol=0)
    assert not any(m._forward_hooks for m in twin.recouple().modules())
    assert any(m._forward_hooks for m in net.model.modules())
