"""One backward with gradients substituted = backward inside forward = the same written by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F

import synthgrad as sg
from by_hand import train_step
from zoo import CLASSES, ZOO, Mlp, Specimen

MLP = ZOO[0]
CDNI = sg.SyntheticGradient(condition=sg.OneHot(CLASSES))
# The regression gradient is 2/B p - 2 g here and 2/B (p - B g) by hand, which round differently.
ROUNDING = {"rtol": 1e-9, "atol": 1e-12}


def decoupled(specimen: Specimen, **options):
    x, _ = specimen.batch()
    net = sg.decouple(specimen.model(), list(specimen.at), example_inputs=x, **options)
    for p in net.synthesizer_parameters():
        torch.nn.init.normal_(p, std=0.1)
    return net


def loss_of(net, x, y, reduction="mean"):
    return F.cross_entropy(net(x, condition=y), y, reduction=reduction)


def optimizer_of(model, synthesizers, kind=torch.optim.SGD):
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    return kind([*model.parameters(), *synthesizers.parameters()], lr=0.02, **options)


def assert_trains_as_by_hand(specimen, *, steps=8, kind=torch.optim.SGD, **options):
    signal = options.setdefault("signal", CDNI)
    reduction = options.get("reduction", "mean")
    net = decoupled(specimen, **options)
    model = specimen.model()
    synthesizers = torch.nn.ModuleList(copy.deepcopy(list(net.synthesizers.values())))
    ours = optimizer_of(net.model, net.interfaces, kind)
    theirs = optimizer_of(model, synthesizers, kind)
    for number in range(steps):
        x, y = specimen.batch(number)
        torch.manual_seed(number)
        loss_of(net, x.clone(), y, reduction).backward()
        torch.manual_seed(number)
        train_step(
            model.parts(),
            list(synthesizers),
            x.clone(),
            y,
            code=F.one_hot(y, CLASSES).double() if signal.condition else None,
            updated=net.updated,
            mean=reduction == "mean",
            mix=signal.mix,
            scale=signal.scale,
            trace_decay=signal.trace_decay,
        )
        for optimizer in (ours, theirs):
            optimizer.step()
            optimizer.zero_grad()
        torch.testing.assert_close(net.model.state_dict(), model.state_dict(), **ROUNDING)
        for mine, other in zip(net.synthesizers.values(), synthesizers, strict=True):
            torch.testing.assert_close(mine.state_dict(), other.state_dict(), **ROUNDING)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(net.model.parameters(), specimen.model().parameters(), strict=True)
    )


@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_one_backward(specimen):
    assert_trains_as_by_hand(specimen)


@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_one_backward_with_skipped_stages(specimen):
    assert_trains_as_by_hand(specimen, update_probability=0.6, seed=4)


@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_backward_inside_forward_is_exactly_the_one_backward(specimen):
    options = {"signal": CDNI, "update_probability": 0.8, "seed": 2}
    nets = [decoupled(specimen, release=r, **options) for r in ("backward", "forward")]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [optimizer_of(n.model, n.interfaces) for n in nets]
    for number in range(8):
        x, y = specimen.batch(number)
        for net, optimizer in zip(nets, optimizers, strict=True):
            torch.manual_seed(number)
            loss_of(net, x.clone(), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        torch.testing.assert_close(nets[0].state_dict(), nets[1].state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"signal": sg.SyntheticGradient()},
        {"signal": sg.SyntheticGradient(synthesizer="mirror", condition=sg.OneHot(CLASSES))},
        {"signal": sg.SyntheticGradient(scale=0.3)},
        {"signal": sg.SyntheticGradient(mix=0.3)},
        {"signal": sg.SyntheticGradient(mix=0.7, scale=2.0), "reduction": "sum"},
        {"reduction": "sum"},
        {"update_probability": (0.5, 0.9, 0.4, 0.7), "seed": 1},
        {"kind": torch.optim.Adam, "steps": 30},
        {"kind": torch.optim.Adam, "steps": 30, "update_probability": 0.5},
    ],
    ids=str,
)
def test_options(options):
    assert_trains_as_by_hand(MLP, **options)


@pytest.mark.parametrize("trace_decay", [0.5, 1.0])
@pytest.mark.parametrize("probability", [1.0, 0.6])
@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_trace_decay(specimen, trace_decay, probability):
    signal = sg.SyntheticGradient(condition=sg.OneHot(CLASSES), trace_decay=trace_decay)
    assert_trains_as_by_hand(specimen, signal=signal, update_probability=probability, steps=4)


def test_with_a_trace_decay_of_one_every_target_is_the_true_gradient():
    """Whatever the synthesizers say; and the stages are trained by what these say alone."""
    x, y = MLP.batch()
    traced = decoupled(MLP, signal=sg.SyntheticGradient(trace_decay=1.0))
    plain, true = decoupled(MLP, signal=sg.SyntheticGradient()), MLP.model()
    plain.load_state_dict(traced.state_dict())
    true.load_state_dict(traced.model.state_dict())
    ups = []
    h = x
    for part in true.parts():
        h = part(h)
        ups.append(h)
    gradients = torch.autograd.grad(F.cross_entropy(h, y, reduction="sum"), ups[:-1])
    for net in (traced, plain):
        F.cross_entropy(net(x), y).backward()
    for a, b in zip(traced.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    for name, h, gradient in zip(MLP.at, ups[:-1], gradients, strict=True):
        synthesizer = copy.deepcopy(traced.synthesizers[name][0])
        synthesizer.zero_grad()
        ((synthesizer(h.detach(), None) - gradient).square().sum() / len(y)).backward()
        for a, b in zip(
            synthesizer.parameters(), traced.synthesizers[name].parameters(), strict=True
        ):
            torch.testing.assert_close(a.grad, b.grad, **ROUNDING)


def test_a_sum_and_a_mean_of_the_loss_train_alike():
    """Per-example units: the stage's gradient is B times as large, the synthesizer's the same."""
    x, y = MLP.batch()
    mean, total = decoupled(MLP), decoupled(MLP, reduction="sum")
    total.load_state_dict(mean.state_dict())
    loss_of(mean, x, y).backward()
    loss_of(total, x, y, "sum").backward()
    for a, b in zip(mean.model.parameters(), total.model.parameters(), strict=True):
        torch.testing.assert_close(a.grad * len(y), b.grad, **ROUNDING)
    for a, b in zip(mean.synthesizer_parameters(), total.synthesizer_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, **ROUNDING)


def test_fit_first_hands_down_zero_and_fits_meanwhile():
    net = decoupled(MLP, signal=sg.SyntheticGradient(fit_first=2))
    x, y = MLP.batch()
    bottom = net.model.a[0].weight
    for number in range(4):
        net.zero_grad()
        F.cross_entropy(net(x), y).backward()
        assert bottom.grad.any() == (number >= 2)
        assert all(p.grad.any() for p in net.synthesizers["a"].parameters())


def test_every_part_of_the_specimens_is_used():
    """The zoo itself: a plain forward pass is the parts in order."""
    for specimen in ZOO:
        model, (x, _) = specimen.model(), specimen.batch()
        torch.manual_seed(0)
        expected = h = model(x.clone())
        torch.manual_seed(0)
        h = x.clone()
        for part in specimen.model().parts():
            h = part(h)
        torch.testing.assert_close(h, expected, rtol=0, atol=0)
        assert len(model.parts()) == len(specimen.at) + 1
    assert isinstance(MLP.model(), Mlp)
