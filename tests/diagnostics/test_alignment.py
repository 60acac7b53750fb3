"""Alignment against the true gradient, which an oracle knows."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import synthgrad as sg
from synthgrad.diagnostics.alignment import compare

X = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Dropout(0.5), nn.Linear(7, 3)
    ).double()


def loss(output: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output, Y)


class Oracle(nn.Module):
    """Predicts the gradient of the layer above, times a factor."""

    def __init__(self, top: nn.Linear, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.__dict__["top"] = top  # not a submodule: it belongs to the network

    def forward(self, h: torch.Tensor, code: torch.Tensor | None) -> torch.Tensor:
        with torch.enable_grad():
            h = h.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(self.top(h)), h)
        return gradient * len(h) * self.factor


@pytest.mark.parametrize("factor", [1.0, -2.0])
def test_an_oracle_is_aligned(factor: float) -> None:
    model = network()
    top = model[4]
    assert isinstance(top, nn.Linear)
    signal = sg.SyntheticGradient(synthesizer=lambda shape, size: Oracle(top, factor))
    net = sg.decouple(model, ["3"], example_inputs=X, signal=signal)
    found = sg.diagnostics.alignment(net, X, loss)["3"]
    assert float(found["cosine"]) == pytest.approx(1.0 if factor > 0 else -1.0)
    assert float(found["norm_ratio"]) == pytest.approx(abs(factor))
    assert float(found["relative_error"]) == pytest.approx(abs(factor - 1), abs=1e-12)


def test_an_untrained_synthesizer_predicts_zero() -> None:
    net = sg.decouple(network(), ["0", "2"], example_inputs=X)
    found = sg.diagnostics.alignment(net, X, loss)
    assert set(found) == {"0", "2"}
    assert all(float(m["relative_error"]) == 1.0 for m in found.values())
    assert all(float(m["cosine"]) == 0.0 for m in found.values())


def test_nothing_is_changed() -> None:
    signal = sg.SyntheticGradient(condition=sg.OneHot(3))
    net = sg.decouple(network(), ["2"], example_inputs=X, signal=signal)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    random = torch.random.get_rng_state()
    sg.diagnostics.alignment(net, X, loss, condition=Y)
    assert torch.equal(random, torch.random.get_rng_state())
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    assert all(p.grad is None for p in net.parameters())
    handles = [len(m._forward_hooks) for m in net.model.modules()]
    assert sum(handles) == 1  # the interface's own


def test_frozen_stages_have_a_true_gradient_too() -> None:
    model = network()
    model[0].requires_grad_(False)
    net = sg.decouple(model, ["0"], example_inputs=X)
    assert float(sg.diagnostics.alignment(net, X, loss)["0"]["relative_error"]) == 1.0


@pytest.mark.parametrize(
    "signal",
    [
        sg.SyntheticGradient(),
        sg.SyntheticGradient(mix=0.5),
        sg.Backprop(),
        sg.FeedbackAlignment(),
        sg.DirectFeedbackAlignment(),
        sg.LocalLoss(num_classes=3),
    ],
    ids=str,
)
def test_an_operation_in_place_after_the_interface_changes_nothing(signal) -> None:
    found = []
    for inplace in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=inplace), nn.Linear(7, 3)).double()
        net = sg.decouple(model, ["0"], example_inputs=X, signal=signal)
        for p in net.synthesizer_parameters():
            nn.init.ones_(p)
        if signal.is_local:  # a head with equal weights has no gradient
            nn.init.eye_(net.synthesizers["0"][0][1].weight)
        found.append(sg.diagnostics.alignment(net, X, loss, condition=Y)["0"])
    assert float(found[0]["norm_ratio"]) > 0
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_missing_condition_is_named() -> None:
    signal = sg.SyntheticGradient(condition=sg.OneHot(3))
    net = sg.decouple(network(), ["2"], example_inputs=X, signal=signal)
    with pytest.raises(sg.errors.ConditionError, match="'2'"):
        sg.diagnostics.alignment(net, X, loss)


# Signals that are no prediction -------------------------------------------------------------------

SIGNALS = [
    sg.Backprop(),
    sg.DirectFeedbackAlignment(),
    sg.FeedbackAlignment(),
    sg.Kickback(),
    sg.LocalLoss(num_classes=3),
    sg.SignSymmetric(),
    sg.SyntheticGradient(mix=0.4, scale=0.5),
]


def every_layer() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(a, 7), nn.BatchNorm1d(7), nn.Tanh()) for a in (5, 7, 7)]
    return nn.Sequential(*layers, nn.Sequential(nn.Dropout(0.3), nn.Linear(7, 3))).double()


def decoupled(signal: sg.ErrorSignal, model=None, **options) -> sg.DecoupledModel:
    model = model or every_layer()
    net = sg.decouple(model, "every", example_inputs=X, signal=signal, **options)
    for p in net.synthesizer_parameters():
        nn.init.normal_(p, std=0.3)
    return net


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_it_is_what_autograd_brings_down_to_the_activation(signal, mode) -> None:
    """The gradients that hooks on the activations see: in backprop, and in a training pass."""
    net = decoupled(signal)
    for m in net.model.modules():
        m.training = mode
    came = list[list[torch.Tensor]]()

    def keep(module, args, h):
        came.append([])
        h.register_hook(came[-1].append)

    handles = [stage.register_forward_hook(keep, prepend=True) for stage in net.model[:-1]]
    state = torch.get_rng_state()
    loss(net.model(X)).backward()
    torch.set_rng_state(state)  # the same units are dropped
    loss(net(X, condition=Y)).backward()
    for handle in handles:
        handle.remove()
    net.training = mode
    torch.set_rng_state(state)
    found = sg.diagnostics.alignment(net, X, loss, condition=Y)
    for k in range(3):
        # Kickback goes through a stage before the stage's own backward, which comes last.
        expected = compare(came[3 + k][-1].flatten(), came[k][-1].flatten())
        torch.testing.assert_close(found[str(k)], expected, rtol=0, atol=0)
        assert float(found[str(k)]["norm_ratio"]) > 0


@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_measuring_any_signal_changes_nothing(signal: sg.ErrorSignal) -> None:
    options = {} if signal.needs_stage_above else {"update_probability": 0.5}
    if not (signal.needs_stage_above or signal.needs_output_error):
        options["release"] = "forward"
    net, twin = (decoupled(signal, report_every=1, **options) for _ in range(2))
    twin.load_state_dict(net.state_dict())
    for each in (net, twin):
        torch.manual_seed(1)
        loss(each(X, condition=Y)).backward()
        each.zero_grad()
    before = copy.deepcopy((net.state_dict(), net.updated, net.report()))
    random = torch.random.get_rng_state()
    sg.diagnostics.alignment(net, X, loss, condition=Y)
    assert torch.equal(random, torch.random.get_rng_state())
    after = (net.state_dict(), net.updated, net.report())
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert all(p.grad is None for p in net.parameters())
    for each in (net, twin):  # and the next pass is what it would have been
        torch.manual_seed(2)
        loss(each(X, condition=Y)).backward()
    pairs = zip(net.parameters(), twin.parameters(), strict=True)
    torch.testing.assert_close(*zip(*((a.grad, b.grad) for a, b in pairs), strict=True))


def test_what_is_backprop_is_aligned() -> None:
    for signal, names in [(sg.Backprop(), "012"), (sg.Kickback(), "2")]:
        found = sg.diagnostics.alignment(decoupled(signal), X, loss)
        assert all(float(found[name]["relative_error"]) < 1e-12 for name in names)
    assert float(found["0"]["relative_error"]) > 0.1


def test_interfaces_that_train_nothing_are_left_out() -> None:
    net = decoupled(sg.NoSignal())
    assert sg.diagnostics.alignment(net, X, loss) == {}
    local = sg.LocalLoss(num_classes=3)
    net = sg.decouple(
        every_layer(),
        "every",
        example_inputs=X,
        signal={"0": sg.NoSignal(), "1": local, "2": sg.SyntheticGradient()},
    )
    found = sg.diagnostics.alignment(net, X, loss, condition=Y)
    assert set(found) == {"1", "2"}
    assert float(found["1"]["norm_ratio"]) > 0
    assert float(found["2"]["norm_ratio"]) == 0


def test_a_frozen_stage_is_handed_a_signal_too() -> None:
    net = decoupled(sg.DirectFeedbackAlignment())
    expected = sg.diagnostics.alignment(net, X, loss)
    net.model[0].requires_grad_(False)
    torch.testing.assert_close(sg.diagnostics.alignment(net, X, loss), expected, rtol=0, atol=0)


def test_a_pure_synthetic_gradient_is_judged_before_it_is_used() -> None:
    signal = sg.SyntheticGradient(fit_first=100, scale=3.0)
    net, plain = decoupled(signal), decoupled(sg.SyntheticGradient())
    plain.load_state_dict(net.state_dict())
    found = [sg.diagnostics.alignment(each, X, loss) for each in (net, plain)]
    torch.testing.assert_close(*found, rtol=0, atol=0)
    assert float(found[0]["1"]["norm_ratio"]) > 0
