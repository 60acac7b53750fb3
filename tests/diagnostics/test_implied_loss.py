"""The implied loss against the true one where both are known: quadratics and rotations."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import synthgrad as sg
from synthgrad.diagnostics import implied_loss
from synthgrad.errors import ConditionError, ConfigError

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(8, 5, dtype=torch.float64, generator=GENERATOR)
Y = torch.arange(8) % 3
GOAL = torch.randn(8, 3, dtype=torch.float64, generator=GENERATOR)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.ReLU(inplace=True), nn.Linear(4, 3)
    ).double()


class Field(nn.Module):
    """A synthesizer that is told what to predict."""

    def __init__(self, predict):
        super().__init__()
        self.predict = predict

    def forward(self, h, code):
        return self.predict(h)


def decoupled(predict, reduction="mean", model=None, at="2"):
    signal = sg.SyntheticGradient(synthesizer=lambda shape, size: Field(predict))
    return sg.decouple(
        model or network(), [at], example_inputs=X, signal=signal, reduction=reduction
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("directions", ["gradients", "gradient", "random"])
@pytest.mark.parametrize("num_nodes", [1, 5])
def test_a_linear_synthesizer_of_a_quadratic_loss_implies_it(reduction, directions, num_nodes):
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).double()
    top = model[1]

    def exact(h):
        return 2 * (top(h) - GOAL) @ top.weight

    def loss(output):
        total = (output - GOAL).square().sum()
        return total / len(GOAL) if reduction == "mean" else total

    net = decoupled(exact, reduction, model, at="0")
    found = implied_loss(
        net, "0", X, loss, directions=directions, num_points=7, num_nodes=num_nodes, radius=3.0
    )
    torch.testing.assert_close(found.implied, found.true, rtol=1e-10, atol=1e-10)
    assert found.true[3, 3].item() == pytest.approx(loss(model(X)).item(), rel=1e-12)
    assert float(found.true.std()) > 0.1
    assert found.asymmetry < 1e-10
    torch.testing.assert_close(found.a, torch.linspace(-3, 3, 7, dtype=torch.float64))


def test_the_first_direction_is_the_true_gradients():
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).double()
    net = decoupled(torch.zeros_like, model=model, at="0")
    h = model[0](X).detach().requires_grad_()
    (gradient,) = torch.autograd.grad((model[1](h) - GOAL).square().mean(), h)
    found = implied_loss(
        net, "0", X, lambda out: (out - GOAL).square().mean(), num_points=3, radius=1e-3
    )
    slope_a = float(found.true[2, 1] - found.true[0, 1]) / 2e-3
    slope_b = float(found.true[1, 2] - found.true[1, 0]) / 2e-3
    # a central difference of a quadratic is exact; what is left is cancellation
    assert slope_a == pytest.approx((gradient.norm() * h.norm()).item(), rel=1e-8)
    assert slope_b == pytest.approx(0, abs=1e-8)


def test_both_gradients_lie_in_the_plane():
    """Their lengths and their cosine are those of the slopes along the two directions."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).double()
    pull = torch.randn(8, 4, dtype=torch.float64)
    net = decoupled(lambda h: h + pull, "sum", model, at="0")
    h = model[0](X).detach().requires_grad_()
    (gradient,) = torch.autograd.grad((model[1](h) - GOAL).square().sum(), h)
    found = implied_loss(
        net,
        "0",
        X,
        lambda out: (out - GOAL).square().sum(),
        directions="gradients",
        num_points=3,
    )
    synthetic = h.detach() + pull
    slopes = found.field[:, 1, 1] / h.norm()
    torch.testing.assert_close(slopes.norm(), synthetic.norm())
    cosine = F.cosine_similarity(synthetic.flatten(), gradient.flatten(), dim=0)
    torch.testing.assert_close(slopes[0] / slopes.norm(), cosine)


@pytest.mark.parametrize("factor", [0.0, 3.0])
def test_a_synthetic_gradient_along_the_true_one_leaves_a_random_direction(factor):
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).double()
    top = model[1]
    net = decoupled(lambda h: 2 * factor * (top(h) - GOAL) @ top.weight, "sum", model, at="0")
    options = {"num_points": 3, "seed": 5}

    def loss(out):
        return (out - GOAL).square().sum()

    both, one = (
        implied_loss(net, "0", X, loss, directions=d, **options) for d in ("gradients", "gradient")
    )
    torch.testing.assert_close(both.true, one.true)
    assert float(both.true.std()) > 0.1


def test_given_directions_are_used_as_they_are():
    u, v = torch.zeros(2, 8, 4, dtype=torch.float64)
    u[0, 0], v[1, 2] = 2.0, -3.0
    net = decoupled(torch.ones_like)
    found = implied_loss(net, "2", X, torch.sum, directions=(u, v), num_points=3)
    torch.testing.assert_close(found.field[0], torch.full((3, 3), 2 / 8, dtype=torch.float64))
    torch.testing.assert_close(found.field[1], torch.full((3, 3), -3 / 8, dtype=torch.float64))
    expected = found.true[1, 1] + (2 * found.a[:, None] - 3 * found.b[None]) / 8
    torch.testing.assert_close(found.implied, expected)


def test_a_rotation_is_no_gradient():
    """G = (-y, x) in the plane: no work along any ray, curl 2 everywhere."""
    u, v = torch.zeros(2, 8, 4, dtype=torch.float64)
    u[0, 0], v[0, 1] = 1.0, 1.0

    def rotate(h):
        out = torch.zeros_like(h)
        out[0, 0], out[0, 1] = -(h[0, 1] - center[0, 1]), h[0, 0] - center[0, 0]
        return out

    net = decoupled(rotate, "sum")
    net.eval()
    center = net.model[:3](X).detach()
    found = implied_loss(net, "2", X, torch.sum, directions=(u, v), num_points=5)
    two = torch.full((5, 5), 2.0, dtype=torch.float64)
    torch.testing.assert_close(found.curl, two)
    assert found.asymmetry == pytest.approx(1)
    torch.testing.assert_close(found.implied, found.true[2, 2].expand(5, 5))


def test_a_wrong_sign_is_seen():
    def upside_down(h):
        leaf = h.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(model[3:](leaf.clone()).square().sum(), leaf)
        return -gradient

    model = network()
    net = decoupled(upside_down, "sum", model)
    found = implied_loss(net, "2", X, lambda out: out.square().sum(), num_points=3, radius=0.01)
    rise, implied = found.true[2, 1] - found.true[1, 1], found.implied[2, 1] - found.implied[1, 1]
    # the loss has kinks where ReLU has
    assert float(implied / rise) == pytest.approx(-1, rel=0.05)


def test_batch_norm_and_dropout_above_are_the_same_in_every_pass_and_nothing_changes():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)
    ).double()
    signal = sg.SyntheticGradient(condition=sg.OneHot(3))
    net = sg.decouple(model, ["0"], example_inputs=X, signal=signal)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    random = torch.random.get_rng_state()
    u, v = torch.zeros(2, 8, 4, dtype=torch.float64)

    def loss(output):
        return F.cross_entropy(output, Y)

    found = implied_loss(net, "0", X, loss, condition=Y, directions=(u, v), num_points=3)
    assert (found.true == found.true[0, 0]).all()
    assert torch.equal(random, torch.random.get_rng_state())
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    assert all(p.grad is None for p in net.parameters())
    assert sum(len(m._forward_hooks) for m in net.model.modules()) == 1  # the interface's own


def test_another_default_device_changes_nothing():
    net = decoupled(lambda h: h.square())
    surfaces = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            found = implied_loss(net, "2", X, squared, num_points=3, directions="random")
        surfaces.append([found.true, found.implied, found.field])
    torch.testing.assert_close(*surfaces, rtol=0, atol=0)


def squared(out):
    return out.square().mean()


def test_a_seed_is_a_plane():
    net = decoupled(torch.zeros_like)
    first, again, other = (
        implied_loss(net, "2", X, torch.sum, directions="random", num_points=3, seed=seed).true
        for seed in (0, 0, 1)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "options",
    [
        {"num_points": 2},
        {"num_nodes": 0},
        {"radius": 0.0},
        {"interface_name": "3"},
        {"directions": (torch.zeros(8, 4), torch.zeros(4))},
    ],
)
def test_an_option_that_cannot_work_is_refused(options):
    net = decoupled(torch.zeros_like)
    with pytest.raises(ConfigError):
        implied_loss(net, **{"interface_name": "2", "inputs": X, "loss": torch.sum, **options})


def test_a_missing_condition_and_a_signal_without_synthesizer_are_refused():
    signal = sg.SyntheticGradient(condition=sg.OneHot(3))
    net = sg.decouple(network(), ["2"], example_inputs=X, signal=signal)
    with pytest.raises(ConditionError, match="condition=y"):
        implied_loss(net, "2", X, torch.sum)
    net = sg.decouple(network(), ["2"], example_inputs=X, signal=sg.NoSignal())
    with pytest.raises(ConfigError, match="one synthesizer"):
        implied_loss(net, "2", X, torch.sum)
