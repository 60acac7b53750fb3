"""Prediction and similarity loss equal the paper's formulas, pair by pair, in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import synthgrad as sg
from synthgrad.errors import ConditionError, ConfigError, InterfaceError
from synthgrad.signals import Units
from synthgrad.signals.pred_sim import similarity

CLASSES = 3
SHAPES = {"features": (6,), "sequence": (4, 5), "maps": (5, 3, 3), "one position": (5, 1, 1)}


def features(module: nn.Module, h: Tensor) -> Tensor:
    """What is compared, written out."""
    (weight,) = module.compare.parameters()
    if h.dim() == 2:
        return h @ weight.T
    if h.dim() == 3:
        places = torch.einsum("btf,gf->bgt", h, weight)
    else:
        places = F.conv2d(h, weight, padding=1).flatten(2)
    count = places.shape[-1]
    if count == 1:
        return places[..., 0]
    apart = places - places.mean(-1, keepdim=True)
    return (apart.square().sum(-1) / (count - 1)).sqrt()


def by_hand(
    module: nn.Module, h: Tensor, labels: Tensor, beta: float, reduction: str = "mean"
) -> Tensor:
    """The loss, with the similarities as numpy's correlation between examples."""
    prediction = F.cross_entropy(module.predict(h), labels, reduction="mean")
    code = F.one_hot(labels, CLASSES).to(h.dtype)
    found, wanted = torch.corrcoef(features(module, h)), torch.corrcoef(code)
    total = (1 - beta) * prediction + beta * F.mse_loss(found, wanted)
    return total if reduction == "mean" else total * len(labels)


def made(signal: sg.PredSim, h: Tensor) -> nn.Module:
    module = signal.build(h)
    for p in module.parameters():
        nn.init.normal_(p, std=0.5)
    return module


def loss_of(signal: sg.PredSim, module: nn.Module, h: Tensor, labels: Tensor, units: Units):
    return signal.local_loss(module(h), signal.conditioned_on.encode(labels, h.dtype), units)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.99, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_it_equals_the_formula_by_hand(shape: tuple[int, ...], beta: float, reduction: str) -> None:
    signal = sg.PredSim(num_classes=CLASSES, weight=beta)
    h = torch.randn(7, *shape, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 1, 0, 0, 2])
    module = made(signal, h)
    units = Units.of(7, mean=reduction == "mean", loss_scale=4.0)
    ours = loss_of(signal, module, h, labels, units)
    theirs = by_hand(module, h, labels, beta, reduction) * 4
    # corrcoef and log_softmax sum in another order than we do.
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    over = [h, *module.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(ours, over),
        torch.autograd.grad(theirs, over),
        rtol=1e-9,
        atol=1e-12,
    )


def model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh()),
        nn.Sequential(nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten()),
        nn.Sequential(nn.Linear(20, 6), nn.Tanh()),
        nn.Linear(6, CLASSES),
    ).double()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("release", ["backward", "forward"])
def test_it_equals_stages_trained_one_by_one(reduction: str, release: str) -> None:
    x = torch.randn(8, 1, 4, 4, dtype=torch.float64)
    y = torch.randint(0, CLASSES, (8,))
    signal = sg.PredSim(num_classes=CLASSES)
    net = sg.decouple(
        model(), ["0", "1", "2"], example_inputs=x, signal=signal, reduction=reduction,
        release=release,
    )  # fmt: skip
    twin, modules = model(), copy.deepcopy([m[0] for m in net.synthesizers.values()])
    F.cross_entropy(net(x, condition=y), y, reduction=reduction).backward()
    h = x
    for stage, module in zip(twin, [*modules, None], strict=True):
        h = stage(h.detach())
        if module is not None:
            by_hand(module, h, y, 0.99, reduction).backward()
    F.cross_entropy(h, y, reduction=reduction).backward()
    pairs = [
        (net.model, twin),
        *zip([m[0] for m in net.synthesizers.values()], modules, strict=True),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(
            [p.grad for p in ours.parameters()],
            [p.grad for p in theirs.parameters()],
            rtol=1e-9,  # sums in another order
            atol=1e-12,
        )


def test_a_skipped_stage_and_its_head_stay_untouched() -> None:
    x, y = torch.randn(4, 1, 4, 4, dtype=torch.float64), torch.arange(4) % CLASSES
    net = sg.decouple(
        model(), ["0", "1"], example_inputs=x, signal=sg.PredSim(num_classes=CLASSES),
        update_probability=0.5, seed=1,
    )  # fmt: skip
    seen = set()
    for _ in range(8):
        net.zero_grad()
        F.cross_entropy(net(x, condition=y), y).backward()
        parts = [*net.synthesizers.values()]
        for updated, head in zip(net.updated, parts, strict=False):
            seen.add(updated)
            assert all((p.grad is not None) == updated for p in head.parameters())
    assert seen == {True, False}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("case", ["one example", "dead", "constant", "one class"])
def test_nothing_becomes_nan(shape: tuple[int, ...], case: str) -> None:
    signal = sg.PredSim(num_classes=CLASSES)
    h = torch.randn(1 if case == "one example" else 4, *shape)
    if case == "dead":
        h[1:] = 0
    if case == "constant":
        h[:] = 0.7
    labels = torch.zeros(len(h), dtype=torch.long)
    h.requires_grad_()
    module = made(signal, h)
    loss = loss_of(signal, module, h, labels, Units.of(len(h)))
    loss.backward()
    everything = [loss, h.grad, *(p.grad for p in module.parameters())]
    assert all(t.isfinite().all() for t in everything)
    assert h.grad.abs().max() < 1e3, "a dead example has no huge gradient either"


def test_one_example_alone_has_the_prediction_loss_only() -> None:
    signal = sg.PredSim(num_classes=CLASSES, weight=0.25)
    h = torch.randn(1, 6, dtype=torch.float64)
    module, labels = made(signal, h), torch.tensor([2])
    loss = loss_of(signal, module, h, labels, Units.of(1))
    torch.testing.assert_close(loss, 0.75 * F.cross_entropy(module.predict(h), labels))
    (gradient,) = torch.autograd.grad(loss, module.compare.weight)
    # The cosine of an example with itself: zero up to rounding.
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-14)


def test_similarity_of_labels() -> None:
    code = F.one_hot(torch.tensor([0, 1, 1]), CLASSES)
    expected = torch.tensor([[1, -0.5, -0.5], [-0.5, 1, 1], [-0.5, 1, 1]])
    torch.testing.assert_close(similarity(code), expected)
    torch.testing.assert_close(similarity(code.expand(2, 3, 3)), expected.expand(2, 3, 3))


def test_half_precision_of_autocast_does_not_reach_the_similarities() -> None:
    signal = sg.PredSim(num_classes=CLASSES)
    h, labels = torch.randn(4, 6), torch.arange(4) % CLASSES
    output = made(signal, h)(h)
    code = signal.conditioned_on.encode(labels, h.dtype)
    plain = signal.local_loss(output, code, Units.of(4))
    with torch.autocast("cpu", torch.bfloat16):
        cast = signal.local_loss(output, code, Units.of(4))
        assert made(signal, h)(h).dtype is torch.float32
    torch.testing.assert_close(cast, plain, rtol=0, atol=0)


def test_it_learns() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(16, 1, 4, 4, dtype=torch.float64), torch.randint(0, CLASSES, (16,))
    net = sg.decouple(
        model(), ["0", "1", "2"], example_inputs=x, signal=sg.PredSim(num_classes=CLASSES)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(300):
        loss = F.cross_entropy(net(x, condition=y), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_what_cannot_work_is_refused() -> None:
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match=r"weight=.* must lie in"):
            sg.PredSim(num_classes=3, weight=weight)
    with pytest.raises(ConfigError, match="head='deep' is unknown"):
        sg.PredSim(num_classes=3, head="deep")
    with pytest.raises(ConfigError, match="at least one class"):
        sg.PredSim(num_classes=0)
    with pytest.raises(ConfigError, match=r"shape \(2, 3, 4, 5\)"):
        sg.PredSim(num_classes=3).build(torch.zeros(1, 2, 3, 4, 5))
    x = torch.randn(4, 1, 4, 4, dtype=torch.float64)
    net = sg.decouple(model(), ["0"], example_inputs=x, signal=sg.PredSim(num_classes=CLASSES))
    with pytest.raises(ConditionError, match="takes 0 to 2"):
        net(x, condition=torch.tensor([0, 1, 2, 3]))
    with pytest.raises(ConditionError, match="no condition"):
        net(x)
    with pytest.raises(InterfaceError, match=r"'0'.*scores of shape \(4, 3\)"):
        net(x, condition=torch.zeros(4, 2, dtype=torch.long))


def test_a_head_with_a_row_a_place_is_refused() -> None:
    x = torch.randn(4, 5, 6)
    layers = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, CLASSES))
    signal = sg.PredSim(num_classes=CLASSES, head=lambda shape, n: nn.Linear(shape[-1], n))
    net = sg.decouple(layers, ["0"], example_inputs=x, signal=signal)
    with pytest.raises(InterfaceError, match=r"'0'.*\(4, 5, 3\).*one label each"):
        net(x, condition=torch.zeros(4, dtype=torch.long))
