"""Signals made of the output error, and other transposes, against plain matrix formulas."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.flop_counter import FlopCounterMode

import synthgrad as sg
from feedback_by_hand import Network, chain, cross_entropy_error, direct, kickback
from zoo import ZOO

EXACT = {"rtol": 0, "atol": 0}
# The same formulas in another order of summation, in float64.
ROUNDING = {"rtol": 1e-9, "atol": 1e-12}


def mlp(outputs=3):
    return nn.Sequential(
        nn.Sequential(nn.Linear(6, 10), nn.ReLU()),
        nn.Sequential(nn.Linear(10, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU()),
        nn.Sequential(nn.Linear(9, 8), nn.ReLU()),
        nn.Sequential(nn.Linear(8, outputs)),
    )


def cnn():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.BatchNorm2d(5), nn.ReLU()),
        nn.Sequential(nn.Conv2d(5, 4, 2), nn.ReLU(), nn.Flatten()),
        nn.Sequential(nn.Linear(16, 7), nn.ReLU()),
        nn.Sequential(nn.Linear(7, 3)),
    )


SHAPES = {mlp: (6,), cnn: (2, 6, 6)}
SIGNALS = [
    sg.Backprop(),
    sg.DirectFeedbackAlignment(seed=3, scale=2.0),
    sg.Kickback(),
    sg.FeedbackAlignment(seed=3),
    sg.SignSymmetric(),
    sg.SignSymmetric(magnitude=0.3),
]


def decoupled(make, signal, **options):
    torch.manual_seed(0)
    model = make().double()
    for m in model.modules():
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(m.weight)
    return sg.decouple(model, "every", signal=signal, example_inputs=batch(make)[0], **options)


def batch(make, number=0):
    source = torch.Generator().manual_seed(number)
    x = torch.randn(8, *SHAPES[make], generator=source, dtype=torch.float64)
    return x, torch.randint(0, 3, (8,), generator=source)


def gradients(module):
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


def by_hand(net, signal, x, error_of):
    network = Network(net.model)
    error = error_of(network.forward(x))
    match signal:
        case sg.DirectFeedbackAlignment():
            matrices = [s[0].matrix for s in net.synthesizers.values()]
            direct(network, error, matrices)
        case sg.Kickback():
            kickback(network, error)
        case sg.FeedbackAlignment():
            fixed = {id(net.model.get_submodule(f.name).weight): f.fixed for f in feedback(net)}
            chain(network, error, lambda weight: fixed[owner(net, weight)])
        case sg.SignSymmetric():
            # The deviation of torch's own initialization: uniform within 1/sqrt(fan_in).
            chain(
                network,
                error,
                lambda w: (signal.magnitude or (3 * w[0].numel()) ** -0.5) * w.sign(),
            )
        case _:
            chain(network, error)
    return network.gradients()


def feedback(net):
    return net.feedback.values()


def owner(net, weight):
    return next(id(p) for p in net.model.parameters() if p.data_ptr() == weight.data_ptr())


@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_training_equals_plain_formulas(signal, make):
    net = decoupled(make, signal)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for number in range(4):
        x, y = batch(make, number)
        expected = by_hand(net, signal, x, lambda out, y=y: cross_entropy_error(out, y))
        F.cross_entropy(net(x), y).backward()
        torch.testing.assert_close(gradients(net.model), expected, **ROUNDING)
        assert all(g.any() for g in expected)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("options", [{"reduction": "sum"}, {"loss_scale": 64.0}], ids=str)
@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_the_output_error_is_in_the_units_of_the_loss(signal, options):
    net = decoupled(mlp, signal, reduction=options.get("reduction", "mean"))
    x, y = batch(mlp)
    factor = options.get("loss_scale", len(x))
    expected = by_hand(net, signal, x, lambda out: cross_entropy_error(out, y) * factor)
    output = net(x, loss_scale=options.get("loss_scale"))
    (F.cross_entropy(output, y) * factor).backward()
    torch.testing.assert_close(gradients(net.model), expected, **ROUNDING)


def test_kickback_with_one_output_is_the_papers_formula():
    """The error times each unit's summed weights to the active units of the next layer."""
    torch.manual_seed(0)
    a, b, c = nn.Linear(6, 10), nn.Linear(10, 9), nn.Linear(9, 1)
    model = nn.Sequential(nn.Sequential(a, nn.ReLU()), nn.Sequential(b, nn.ReLU()), c).double()
    x, y = batch(mlp)[0], torch.randn(8, 1, dtype=torch.float64)
    net = sg.decouple(model, "every", signal=sg.Kickback(), example_inputs=x)
    F.mse_loss(net(x), y).backward()
    with torch.no_grad():
        h = (x @ a.weight.T + a.bias).relu()
        g = (h @ b.weight.T + b.bias).relu()
        error = 2 * (g @ c.weight.T + c.bias - y) / len(x)  # [batch, 1]
        influence_h = (g > 0).double() @ b.weight  # sum over the active units above
        influence_g = c.weight
        expected_a = ((error * influence_h) * (h > 0)).T @ x
        expected_b = ((error * influence_g) * (g > 0)).T @ h
    torch.testing.assert_close(a.weight.grad, expected_a, **ROUNDING)
    torch.testing.assert_close(b.weight.grad, expected_b, **ROUNDING)


@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_kickback_at_one_interface_is_exactly_backprop(specimen):
    """The only interface is the topmost one."""
    assert_trains_as_backprop(specimen, specimen.at[-1:], sg.Kickback(), lambda net: None)


@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_feedback_alignment_with_the_layers_own_weights_is_exactly_backprop(specimen):
    def align(net):
        for f in feedback(net):
            f.fixed.copy_(net.model.get_submodule(f.name).weight)

    assert_trains_as_backprop(specimen, specimen.at, sg.FeedbackAlignment(), align)


def assert_trains_as_backprop(specimen, at, signal, prepare):
    plain = specimen.model()
    x, _ = specimen.batch()
    net = sg.decouple(specimen.model(), list(at), example_inputs=x, signal=signal)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.02) for m in (plain, net.model)]
    for number in range(3):
        prepare(net)
        x, y = specimen.batch(number)
        for model, optimizer in zip((plain, net), optimizers, strict=True):
            torch.manual_seed(number)
            F.cross_entropy(model(x.clone()), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        torch.testing.assert_close(net.model.state_dict(), plain.state_dict(), **EXACT)


@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_direct_feedback_trains_each_part_on_its_own(specimen):
    """Over the zoo, with skipped stages; the parts' own derivatives by autograd."""
    x, _ = specimen.batch()
    signal = sg.DirectFeedbackAlignment(scale=3.0)
    net = sg.decouple(
        specimen.model(),
        list(specimen.at),
        example_inputs=x,
        signal=signal,
        update_probability=0.6,
        seed=1,
    )
    seen = set()
    for number in range(8):
        model = specimen.model()
        model.load_state_dict(net.model.state_dict())
        net.zero_grad()
        x, y = specimen.batch(number)
        torch.manual_seed(number)
        F.cross_entropy(net(x.clone()), y).backward()
        seen.add(net.updated)
        torch.manual_seed(number)
        trained_in_parts(model, net, x, y)
        torch.testing.assert_close(gradients(net.model), gradients(model), **ROUNDING)
    assert len({u[-1] for u in seen}) == 2, "the top stage was skipped, and was updated"


def trained_in_parts(model, net, x, y):
    tops = []
    for part, updated in zip(model.parts(), net.updated, strict=True):
        with torch.set_grad_enabled(updated):
            x = part(tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, x))
        tops.append([v for v in tree_flatten(x)[0] if is_float(v)])
        x = tree_map(lambda v: v.detach() if isinstance(v, torch.Tensor) else v, x)
    output = tops.pop()[0]
    error = cross_entropy_error(output.detach(), y)
    if net.updated[-1]:
        output.backward(error)
    for hs, modules in zip(tops, net.synthesizers.values(), strict=True):
        pairs = [(h, (error @ m.matrix).reshape(h.shape)) for h, m in zip(hs, modules, strict=True)]
        pairs = [(h, d) for h, d in pairs if h.requires_grad]
        if pairs:
            torch.autograd.backward([h for h, _ in pairs], [d for _, d in pairs])


def is_float(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_gradients_accumulate_and_a_copy_trains_on_its_own(signal):
    net = decoupled(mlp, signal)
    single = []
    for number in range(2):
        twin = copy.deepcopy(net)
        x, y = batch(mlp, number)
        F.cross_entropy(twin(x), y).backward()
        single.append(gradients(twin.model))
        assert all(p.grad is None for p in net.parameters())
    for number in range(2):
        x, y = batch(mlp, number)
        F.cross_entropy(net(x), y).backward()
    sums = [a + b for a, b in zip(*single, strict=True)]
    torch.testing.assert_close(gradients(net.model), sums, **EXACT)


@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_a_reloaded_net_trains_alike(signal):
    net = decoupled(mlp, signal)
    # Another seed, so that the fixed weights have to come from the state.
    seeded = {"seed": 99} if hasattr(signal, "seed") else {}
    other = decoupled(mlp, dataclasses.replace(signal, **seeded))
    x, y = batch(mlp)
    F.cross_entropy(other(x), y).backward()
    different = gradients(other.model)
    other.zero_grad()
    other.load_state_dict(net.state_dict())
    for each in (net, other):
        F.cross_entropy(each(x), y).backward()
    torch.testing.assert_close(gradients(other.model), gradients(net.model), **EXACT)
    assert not seeded or not torch.equal(different[0], net.model[0][0].weight.grad)


@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_outside_a_training_pass_and_recoupled_the_model_is_exact(signal):
    net, plain = decoupled(mlp, signal), decoupled(mlp, signal).recouple()
    x, y = batch(mlp)
    F.cross_entropy(plain(x), y).backward()
    expected = gradients(plain)
    F.cross_entropy(net(x), y).backward()  # a pass before, that must leave nothing behind
    for model in (net.model, net.eval().model.train(), net.train().recouple()):
        net.zero_grad()
        F.cross_entropy(model(x), y).backward()
        torch.testing.assert_close(gradients(net.model), expected, **EXACT)
    hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in net.model.modules()]
    assert not any(a or b for a, b in hooks)
    assert net.model.state_dict().keys() == mlp().state_dict().keys()


def test_cost_is_that_of_the_method():
    """No true input gradient where none is used: counted in products of matrices."""
    x, _ = batch(mlp)

    def products(signal):
        model = nn.Sequential(*[nn.Linear(6, 6) for _ in range(5)]).double()
        net = sg.decouple(model, "every", signal=signal, example_inputs=x)
        loss = F.mse_loss(net(x), x)
        with FlopCounterMode(display=False) as counter:
            loss.backward()
        return counter.get_total_flops() / (2 * len(x) * 6 * 6)

    # Of five layers each has a weight gradient; backprop adds four input gradients.
    assert products(sg.Backprop()) == 9
    assert products(sg.FeedbackAlignment()) == products(sg.SignSymmetric()) == 9
    # One product with the fixed matrix an interface, instead of those with the weights.
    assert products(sg.DirectFeedbackAlignment()) == 5 + 4
    # Three stages have the product for the signal beside their own.
    assert products(sg.Kickback()) == 9 + 3
