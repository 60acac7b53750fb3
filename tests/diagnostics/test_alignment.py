"""Alignment against the true gradient, which an oracle knows."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import synthgrad as sg

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


def test_an_operation_in_place_after_the_interface_changes_nothing() -> None:
    found = []
    for inplace in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=inplace), nn.Linear(7, 3)).double()
        net = sg.decouple(model, ["0"], example_inputs=X)
        nn.init.ones_(net.synthesizers["0"][0].last.weight)
        found.append(sg.diagnostics.alignment(net, X, loss)["0"])
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_missing_condition_is_named() -> None:
    signal = sg.SyntheticGradient(condition=sg.OneHot(3))
    net = sg.decouple(network(), ["2"], example_inputs=X, signal=signal)
    with pytest.raises(sg.errors.ConditionError, match="'2'"):
        sg.diagnostics.alignment(net, X, loss)
