"""Limit cases over the zoo: an oracle is backprop, a zero synthesizer is nothing."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import synthgrad as sg
from synthgrad.trees import float_tensors, replace_float_tensors
from zoo import BATCH, ZOO, Specimen

MLP = ZOO[0]
EXACT = {"rtol": 0, "atol": 0}


class Oracle(nn.Module):
    """Answers with what it was told, and has nothing to learn."""

    def __init__(self):
        super().__init__()
        self.answer = None

    def forward(self, h, code):
        return self.answer


ORACLE = sg.SyntheticGradient(synthesizer=lambda shape, size: Oracle())


def gradients(model):
    return {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def backprop(specimen: Specimen):
    """Parameter gradients of plain backprop, and the gradient of each tensor at each interface."""
    model = specimen.model()
    x, y = specimen.batch()
    kept = {}

    def keep(name):
        def hook(module, args, output):
            leaves = float_tensors(output)
            leaves = [h if h.requires_grad else h.detach().requires_grad_() for h in leaves]
            kept[name] = leaves
            for h in leaves:
                h.retain_grad()
            return replace_float_tensors(output, [h.clone() for h in leaves])

        return hook

    for name in specimen.at:
        model.get_submodule(name).register_forward_hook(keep(name))
    torch.manual_seed(0)
    F.cross_entropy(model(x), y).backward()
    return gradients(model), {name: [h.grad for h in leaves] for name, leaves in kept.items()}


def decoupled(specimen: Specimen, **options) -> sg.DecoupledModel:
    x, _ = specimen.batch()
    return sg.decouple(specimen.model(), list(specimen.at), example_inputs=x, **options)


def train(net, specimen, number=0):
    x, y = specimen.batch(number)
    torch.manual_seed(number)
    F.cross_entropy(net(x), y).backward()


def randomize(net):
    for p in net.synthesizer_parameters():
        nn.init.normal_(p, std=0.3)


@pytest.mark.parametrize("release", ["backward", "forward"])
@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_an_oracle_gives_exactly_the_gradients_of_backprop(specimen, release):
    expected, true = backprop(specimen)
    net = decoupled(specimen, signal=ORACLE, release=release)
    for name, synthesizers in net.synthesizers.items():
        for oracle, gradient in zip(synthesizers, true[name], strict=True):
            oracle.answer = gradient * BATCH  # per example; BATCH is a power of two, so exactly
    train(net, specimen)
    torch.testing.assert_close(gradients(net.model), expected, **EXACT)
    assert any(g is not None and g.any() for g in list(expected.values())[:2]) or (
        specimen.name == "FrozenBottom"
    )


@pytest.mark.parametrize("release", ["backward", "forward"])
@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_a_zero_synthesizer_hands_down_exactly_nothing(specimen, release):
    expected, _ = backprop(specimen)
    net = decoupled(specimen, release=release)  # untrained: its last layer is zero
    train(net, specimen)
    found = gradients(net.model)
    top = {n for n in found if n.startswith(("top", "head"))}
    assert top
    for name, gradient in found.items():
        if name in top:
            torch.testing.assert_close(gradient, expected[name], **EXACT)
        elif gradient is not None:
            assert not gradient.any(), name


@pytest.mark.parametrize(
    "signal", [sg.Backprop(), sg.SyntheticGradient(mix=1.0)], ids=["Backprop", "mix=1"]
)
@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_backprop_and_mix_1_are_exactly_backprop(specimen, signal):
    plain, net = specimen.model(), decoupled(specimen, signal=signal)
    randomize(net)
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.02) for m in (plain, net.model)]
    for number in range(5):
        for model, optimizer in zip((plain, net), optimizers, strict=True):
            train(model, specimen, number)
            optimizer.step()
            optimizer.zero_grad()
        torch.testing.assert_close(net.model.state_dict(), plain.state_dict(), **EXACT)


def test_mix_1_still_fits_the_synthesizer():
    net = decoupled(MLP, signal=sg.SyntheticGradient(mix=1.0))
    randomize(net)
    train(net, MLP)
    assert all(p.grad.any() for p in net.synthesizer_parameters())


def test_no_signal_trains_the_stages_above_its_topmost_interface_alone():
    plain, net = MLP.model(), decoupled(MLP, signal=sg.NoSignal())
    for part in plain.parts()[:-1]:
        part.requires_grad_(False)
    for model in (plain, net):
        train(model, MLP)
    torch.testing.assert_close(gradients(net.model), gradients(plain), **EXACT)
    assert net.model.a[0].weight.grad is None
    assert net.model.top.weight.grad.any()
    assert not list(net.synthesizer_parameters())


def test_signals_can_differ_between_interfaces():
    signals = {"a": sg.NoSignal(), "b": sg.SyntheticGradient(), "c": sg.Backprop()}
    net = decoupled(MLP, signal=signals)
    randomize(net)
    train(net, MLP)
    plain = MLP.model()
    train(plain, MLP)
    expected, found = gradients(plain), gradients(net.model)
    assert found["a.0.weight"] is None
    assert not torch.equal(found["b.0.weight"], expected["b.0.weight"])
    for name in ("c.0.weight", "top.weight"):
        torch.testing.assert_close(found[name], expected[name], **EXACT)
    assert all(p.grad.any() for p in net.synthesizers["b"].parameters())
