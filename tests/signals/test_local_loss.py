"""The local loss equals stages trained one by one, each with its own classifier."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import synthgrad as sg
from synthgrad.errors import ConditionError, ConfigError, InterfaceError
from zoo import CLASSES, ZOO, Mlp

MLP = ZOO[0]
assert MLP.make is Mlp
LOCAL = sg.LocalLoss(num_classes=CLASSES)


def decoupled(**options):
    x, _ = MLP.batch()
    options = {"signal": LOCAL, "at": list(MLP.at)} | options
    return sg.decouple(MLP.model(), example_inputs=x, **options)


def gradients(module):
    return [p.grad for p in module.parameters()]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("release", ["backward", "forward"])
def test_it_equals_stages_trained_one_by_one(reduction, release):
    x, y = MLP.batch()
    net = decoupled(reduction=reduction, release=release)
    model, heads = MLP.model(), copy.deepcopy(list(net.synthesizers.values()))
    F.cross_entropy(net(x, condition=y), y, reduction=reduction).backward()
    h = x
    for part, head in zip(model.parts(), [*heads, [nn.Identity()]], strict=True):
        h = part(h.detach())
        F.cross_entropy(head[0](h), y, reduction=reduction).backward()
    # The library's cross-entropy takes one-hot labels, which sums in another order.
    torch.testing.assert_close(gradients(net.model), gradients(model), rtol=1e-10, atol=1e-13)
    for mine, other in zip(net.synthesizers.values(), heads, strict=True):
        torch.testing.assert_close(gradients(mine), gradients(other[0]), rtol=1e-10, atol=1e-13)


def test_no_stage_computes_the_gradient_of_its_input():
    x, y = MLP.batch()
    net = decoupled()
    came = {}
    for name in ("b", "c", "top"):
        module = net.model.get_submodule(name)
        module.register_forward_pre_hook(
            lambda m, args, name=name: came.update({name: args[0].requires_grad})
        )
    net(x, condition=y)
    assert came == {"b": False, "c": False, "top": False}


def test_a_skipped_stage_and_its_head_stay_untouched():
    net = decoupled(update_probability=0.5, seed=2)
    for number in range(12):
        x, y = MLP.batch(number)
        net.zero_grad()
        F.cross_entropy(net(x, condition=y), y).backward()
        stages = [*net.model.parts()]
        heads = [*net.synthesizers.values()]
        for k, updated in enumerate(net.updated):
            assert all((g is not None) == updated for g in gradients(stages[k]))
            if k < len(heads):
                assert all((g is not None) == updated for g in gradients(heads[k]))


def test_it_learns():
    torch.manual_seed(0)
    net = decoupled()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    x, y = MLP.batch()
    losses = []
    for _ in range(300):
        loss = F.cross_entropy(net(x, condition=y), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_it_stands_beside_other_signals():
    x, y = MLP.batch()
    signal = {"a": sg.SyntheticGradient(), "b": LOCAL, "c": sg.Backprop()}
    net = decoupled(signal=signal)
    nn.init.normal_(net.synthesizers["a"][0].last.weight)
    F.cross_entropy(net(x, condition=y), y).backward()
    assert all(g is not None and g.any() for g in gradients(net))


def test_a_head_of_ones_own():
    net = decoupled(signal=sg.LocalLoss(num_classes=3, head=lambda s, n: nn.Linear(s[-1], n)))
    assert isinstance(net.synthesizers["a"][0], nn.Linear)


def test_second_backward_is_refused():
    x, y = MLP.batch()
    loss = F.cross_entropy(decoupled()(x, condition=y), y)
    loss.backward(retain_graph=True)
    with pytest.raises(InterfaceError, match="second time"):
        loss.backward()


def test_what_cannot_work_is_refused():
    x, y = MLP.batch()
    with pytest.raises(ConditionError, match="'a'"):
        decoupled()(x)
    with pytest.raises(ConditionError, match="takes 0 to 2"):
        decoupled()(x, condition=y + 5)
    with pytest.raises(ConfigError, match="head='deep'"):
        sg.LocalLoss(num_classes=3, head="deep")
    with pytest.raises(ConfigError, match=r"'a'.*conv head takes.*shape \(10,\)"):
        decoupled(signal=sg.LocalLoss(num_classes=3, head="conv"))
    with pytest.raises(ConfigError, match="at least one class"):
        sg.LocalLoss(num_classes=0)


class Checkpointed(nn.Sequential):
    reentrant = True

    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=self.reentrant)


CRITIC = sg.Critic(loss=partial(F.cross_entropy, reduction="none"))
UNDER = [
    LOCAL,
    CRITIC,
    sg.DirectFeedbackAlignment(),
    {"0": LOCAL, "2": sg.SyntheticGradient()},
    {"0": LOCAL, "2": sg.Backprop()},
]


def checkpointed(where, signal):
    """Three stages; the checkpoint is a part of the middle one, or the last one."""
    parts = [nn.Linear(6, 6), Checkpointed(nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, CLASSES)]
    if where == "last":
        parts = [nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU(), Checkpointed(nn.Linear(6, CLASSES))]
    model = nn.Sequential(*parts).double()
    x, _ = MLP.batch()
    return sg.decouple(model, ["0", "2"], example_inputs=x, signal=signal)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("signal", UNDER, ids=str)
def test_a_reentrant_checkpoint_that_would_not_be_trained_is_refused(signal):
    x, y = MLP.batch()
    net = checkpointed("middle", signal)
    with pytest.raises(InterfaceError, match=r"below interface '2'.*use_reentrant=False"):
        net(x, condition=y)
    net.model[1].requires_grad_(False)  # a frozen stage has nothing to train
    F.cross_entropy(net(x, condition=y), y).backward()
    net.model[1].requires_grad_(True)
    net.model[1].reentrant = False
    F.cross_entropy(net(x, condition=y), y).backward()
    assert all(g is not None for g in gradients(net.model[1]))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("signal", UNDER[:3], ids=str)
def test_a_reentrant_checkpoint_in_the_last_stage_is_refused(signal):
    x, y = MLP.batch()
    with pytest.raises(InterfaceError, match=r"the last stage.*use_reentrant=False"):
        checkpointed("last", signal)(x, condition=y)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_a_reentrant_checkpoint_in_a_chain_is_refused():
    x, y = MLP.batch()
    model = nn.Sequential(nn.Linear(6, 6), Checkpointed(nn.Linear(6, 6)), nn.Linear(6, CLASSES))
    chain = sg.Chain.from_sequential(model.double(), example_inputs=x, signal=LOCAL)
    sgd = partial(torch.optim.SGD, lr=0.1)
    engine = sg.engines.Sequential(
        chain, loss=F.cross_entropy, optimizer=sgd, synthesizer_optimizer=sgd
    )
    with pytest.raises(InterfaceError, match="use_reentrant=False"):
        engine.step(x, y)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_several_labels_an_example_are_reduced_as_the_networks_loss(reduction):
    x, y = torch.randn(4, 5, 6, dtype=torch.float64), torch.randint(0, 3, (4, 5))
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)).double()
    signal = sg.LocalLoss(num_classes=3, head=lambda shape, n: nn.Linear(shape[-1], n))
    net = sg.decouple(model, ["0"], example_inputs=x, signal=signal, reduction=reduction)
    F.cross_entropy(net(x, condition=y).flatten(0, 1), y.flatten(), reduction=reduction).backward()
    found, head = model[0].weight.grad.clone(), copy.deepcopy(net.synthesizers["0"][0])
    model.zero_grad()
    scores = head(model[0](x)).flatten(0, 1)
    F.cross_entropy(scores, y.flatten(), reduction=reduction).backward()
    # The library's cross-entropy takes one-hot labels, which sums in another order.
    torch.testing.assert_close(found, model[0].weight.grad, rtol=1e-10, atol=1e-13)


def test_scores_of_another_shape_are_refused():
    x = torch.randn(4, 4, 6)
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    signal = sg.LocalLoss(num_classes=3, head=lambda shape, n: nn.Linear(shape[-1], n))
    net = sg.decouple(model, ["0"], example_inputs=x, signal=signal)
    with pytest.raises(InterfaceError, match=r"'0'.*\(4, 4, 3\)"):
        net(x, condition=torch.arange(4) % 3)
