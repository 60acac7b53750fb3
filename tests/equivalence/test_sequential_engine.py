"""The reference engine at delay 0 = the ordinary loop over the decoupled model, bit for bit."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import synthgrad as sg
from synthgrad.errors import UnsupportedModelError
from zoo import CLASSES, ZOO, InParts, Specimen

CDNI = sg.SyntheticGradient(condition=sg.OneHot(CLASSES))
MIRROR = sg.SyntheticGradient(condition=sg.OneHot(CLASSES), synthesizer="mirror", scale=0.5)
ADAM = partial(torch.optim.Adam, lr=1e-2)
TRACED = sg.SyntheticGradient(condition=sg.OneHot(CLASSES), trace_decay=0.5)
SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)

# Which modules a part owns, where it is a function and not a module.
OWNED: dict[str, list[tuple[str, ...]]] = {
    "Conv": [("a",), ("b",), ("top",)],
    "InPlaceView": [("a",), ("b",), ("top",)],
    "Transformer": [("embed", "a"), ("b",), ("head",)],
    "Reused": [("up", "loop", "end"), ("b",), ("top",)],
    "NoGradBranch": [("a",), ("side", "b", "end"), ("top",)],
    "Counting": [("a",), ("b",), ("top",)],
}
CHAINS = [s for s in ZOO if s.name != "Shared"]


class Part(nn.Module):
    """A part of a specimen as a module of its own."""

    def __init__(self, run: Callable[[Any], Any], owned: Sequence[nn.Module]) -> None:
        super().__init__()
        self.run = run
        self.owned = nn.ModuleList(owned)

    def forward(self, h: Any) -> Any:
        return self.run(h)


def stages_of(specimen: Specimen, model: InParts) -> list[nn.Module]:
    parts = model.parts()
    owned = OWNED.get(specimen.name)
    if owned is None:
        assert all(isinstance(part, nn.Module) for part in parts)
        return parts
    modules = [[model.get_submodule(name) for name in names] for names in owned]
    return [Part(run, own) for run, own in zip(parts, modules, strict=True)]


def assert_equal_training(
    specimen: Specimen,
    signal: sg.ErrorSignal,
    make: Callable[..., torch.optim.Optimizer] = ADAM,
    *,
    order: Any = None,
    **options: Any,
) -> None:
    x, _ = specimen.batch()
    net = sg.decouple(
        specimen.model(), list(specimen.at), example_inputs=x, signal=signal, **options
    )
    for p in net.synthesizer_parameters():
        nn.init.normal_(p, std=0.1)
    model = specimen.model()
    chain = sg.Chain.from_modules(stages_of(specimen, model), example_inputs=x, signal=signal)
    # A chain restores the buffers of its stages; a specimen may have some of its own.
    model.load_state_dict(specimen.model().state_dict())
    for stage, interface in zip(chain, net.ordered_interfaces(), strict=False):
        assert stage.interface is not None
        stage.interface.load_state_dict(interface.state_dict())
    optimizer = make(net.parameters())
    engine = sg.engines.Sequential(
        chain,
        loss=F.cross_entropy,
        optimizer=make,
        synthesizer_optimizer=make,
        order=order,
        **options,
    )
    for number in range(6):
        x, y = specimen.batch(number)
        torch.manual_seed(number)
        loss = F.cross_entropy(net(x.clone(), condition=y), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.manual_seed(number)
        assert torch.equal(engine.step(x.clone(), y), loss)
    torch.testing.assert_close(model.state_dict(), net.model.state_dict(), rtol=0, atol=0)
    for stage, interface in zip(chain, net.ordered_interfaces(), strict=False):
        assert stage.interface is not None
        torch.testing.assert_close(
            dict(stage.interface.state_dict()), dict(interface.state_dict()), rtol=0, atol=0
        )
    fresh = specimen.model().state_dict()
    assert any(not torch.equal(v, fresh[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("specimen", CHAINS, ids=lambda s: s.name)
@pytest.mark.parametrize("make", [ADAM, SGD], ids=["adam", "sgd"])
def test_every_stage_updated(specimen: Specimen, make: Any) -> None:
    assert_equal_training(specimen, CDNI, make)


@pytest.mark.parametrize("specimen", CHAINS, ids=lambda s: s.name)
@pytest.mark.parametrize(
    "signal",
    [CDNI, TRACED, sg.LocalLoss(num_classes=CLASSES)],
    ids=["cdni", "traced", "local loss"],
)
def test_some_stages_skipped(specimen: Specimen, signal: sg.ErrorSignal) -> None:
    assert_equal_training(specimen, signal, update_probability=0.6, seed=4)


@pytest.mark.parametrize("specimen", CHAINS, ids=lambda s: s.name)
def test_updates_in_any_order(specimen: Specimen) -> None:
    def order(t: int) -> list[int]:
        return random.Random(t).sample(range(count), count)

    count = len(specimen.at) + 1
    assert_equal_training(specimen, CDNI, order=order)


@pytest.mark.parametrize(
    "signal",
    [sg.Backprop(), sg.NoSignal(), sg.LocalLoss(num_classes=CLASSES)],
    ids=["backprop", "no signal", "local loss"],
)
@pytest.mark.parametrize("specimen", CHAINS, ids=lambda s: s.name)
def test_signals_without_a_synthesizer(specimen: Specimen, signal: sg.ErrorSignal) -> None:
    assert_equal_training(specimen, signal)


@pytest.mark.parametrize(
    "signal",
    [
        MIRROR,
        sg.SyntheticGradient(mix=0.3),
        sg.SyntheticGradient(mix=1.0),
        sg.SyntheticGradient(fit_first=3),
    ],
    ids=["mirror", "mixed", "mix of one", "fit first"],
)
def test_other_synthesizers(signal: sg.ErrorSignal) -> None:
    assert_equal_training(ZOO[0], signal)
    assert_equal_training(ZOO[1], signal)


def test_stages_that_share_weights_are_refused() -> None:
    (shared,) = (s for s in ZOO if s.name == "Shared")
    model = shared.model()
    stages = [nn.Sequential(model.up, model.a), model.b, model.top]  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedModelError, match="shared with stage 0"):
        sg.Chain.from_modules(stages, example_inputs=shared.batch()[0])
