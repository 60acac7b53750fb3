"""The wavefront engine equals the reference with a target delay of one, whatever happens to it."""

import io
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wavefronts import (
    ADAM,
    LABELED,
    OPTIMIZERS,
    Network,
    assert_equal,
    batches,
    chain,
    cnn,
    mlp,
    pair,
    set_rate,
    train,
    unequal,
)

import synthgrad as sg
from synthgrad.compiler import missing_compiler
from synthgrad.engines.wavefront.bundles import Bundle
from synthgrad.errors import ConditionError, EngineError, UnsupportedModelError


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_equals_the_reference(optimizer: str, probability: float) -> None:
    engines = pair(optimizer=OPTIMIZERS[optimizer], update_probability=probability, seed=4)
    before = {k: v.clone() for k, v in engines[1].chain.state_dict().items()}
    train(engines, batches(14))
    assert_equal(*engines)
    after = engines[1].chain.state_dict()
    weights = [k for k in before if k.endswith("weight")]
    assert all(not torch.equal(before[k], after[k]) for k in weights)


@pytest.mark.parametrize(
    "signal",
    [
        sg.SyntheticGradient(),
        sg.SyntheticGradient(condition=sg.OneHot(3), synthesizer="mirror", scale=0.5),
        sg.SyntheticGradient(condition=sg.OneHot(3), fit_first=3),
        sg.LocalLoss(num_classes=3),
        sg.NoSignal(),
    ],
    ids=["unconditioned", "mirror", "fit-first", "local loss", "no signal"],
)
@pytest.mark.parametrize("late_fit", ["stored", "again"])
@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_every_signal(signal: sg.ErrorSignal, late_fit: str, probability: float) -> None:
    engines = pair(signal=signal, late_fit=late_fit, update_probability=probability)
    train(engines, batches(10))
    assert_equal(*engines)


@pytest.mark.parametrize(
    ("network", "shape", "signal"),
    [
        (mlp, (8, 5), sg.LocalLoss(num_classes=3, head="mlp")),
        (cnn, (6, 1, 4, 4), sg.LocalLoss(num_classes=3, head="conv")),
        (cnn, (6, 1, 4, 4), sg.LocalLoss(num_classes=3, head="mlp_sr")),
        (mlp, (8, 5), sg.PredSim(num_classes=3)),
        (cnn, (6, 1, 4, 4), sg.PredSim(num_classes=3)),
    ],
    ids=["mlp", "conv", "mlp_sr", "pred-sim", "pred-sim on maps"],
)
@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_local_losses(
    network: Network, shape: tuple[int, ...], signal: sg.ErrorSignal, probability: float
) -> None:
    engines = pair(network, signal, shape=shape, update_probability=probability)
    train(engines, batches(8, shape))
    assert_equal(*engines)


@pytest.mark.parametrize(("network", "shape"), [(cnn, (6, 1, 4, 4)), (unequal, (8, 5))])
def test_other_networks(network: Network, shape: tuple[int, ...]) -> None:
    engines = pair(network, shape=shape)
    train(engines, batches(8, shape))
    assert_equal(*engines)


def test_an_uneven_last_batch_flushes_the_line() -> None:
    reference, wavefront = pair()
    data = [*batches(7), *batches(1, (5, 5)), *batches(3)]
    for x, y in data:
        wavefront.step(x, y)
    wavefront.flush()
    for part in (data[:7], data[7:8], data[8:]):
        train((reference,), part)  # type: ignore[arg-type]
    assert_equal(reference, wavefront)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_each_batch_goes_through_each_stage_once(count: int) -> None:
    _, wavefront = pair(signal=sg.SyntheticGradient())
    for x, y in batches(count):
        wavefront.step(x, y)
        assert wavefront.in_flight <= 4
    wavefront.flush()
    assert wavefront.in_flight == 0
    state = wavefront.chain.state_dict()
    seen = [int(v) for k, v in state.items() if k.endswith("num_batches_tracked")]
    assert seen == [count] * len(seen)
    assert [s.interface.num_fits for s in wavefront.chain if s.interface] == [count] * 4


def test_equal_layers_run_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = list[tuple[int, ...]]()
    run = Bundle.run

    def counted(self: Bundle, *arguments: Any) -> Any:
        ran.append(self.slots)
        return run(self, *arguments)

    monkeypatch.setattr(Bundle, "run", counted)
    _, wavefront = pair(signal=sg.NoSignal())
    wavefront.step(*batches(1)[0])
    # 6 places: Linear, norm, Tanh, twice. The first Linear is odd in stage 0, and stage 4 is short.
    assert ran == [
        (0,), (1, 2, 3, 4), (0, 1, 2, 3, 4), (0, 1, 2, 3, 4),
        (0, 1, 2, 3), (4,), (0, 1, 2, 3), (0, 1, 2, 3),
    ]  # fmt: skip


def test_the_model_given_is_the_model_trained() -> None:
    torch.manual_seed(0)
    modules = [module.double() for module in mlp()]
    first = modules[1][0][0].weight  # type: ignore[index]
    made = sg.Chain.from_modules(modules, signal=LABELED, example_inputs=batches(1)[0][0])
    wavefront = sg.engines.Wavefront(
        made, loss=F.cross_entropy, optimizer=ADAM, synthesizer_optimizer=ADAM
    )
    before = first.detach().clone()
    for x, y in batches(14):
        wavefront.step(x, y)
    assert modules[1][0][0].weight is first  # type: ignore[index]
    assert not torch.equal(before, first)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop, which is not stacked"])
def test_saving_with_batches_in_flight_changes_nothing(optimizer: str) -> None:
    data = batches(12)
    through, first, second = (
        pair(update_probability=0.5, optimizer=OPTIMIZERS[optimizer])[1] for _ in range(3)
    )
    for engine in (through, first):
        for t, (x, y) in enumerate(data if engine is through else data[:6]):
            engine.optimizer.param_groups[0]["lr"] = 1e-2 if t < 3 else 1e-3
            engine.step(x, y)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.in_flight == 4
    assert second.optimizer.param_groups[0]["lr"] == 1e-3
    for x, y in data[6:]:
        second.step(x, y)
    through.flush()
    second.flush()
    torch.testing.assert_close(
        dict(through.chain.state_dict()), dict(second.chain.state_dict()), rtol=0, atol=0
    )


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop, which is not stacked"])
def test_a_schedule_follows_the_batches_up_the_line(optimizer: str) -> None:
    reference, wavefront = pair(optimizer=OPTIMIZERS[optimizer])
    for t, (x, y) in enumerate(batches(10)):
        set_rate(reference, wavefront, 1e-2 if t < 5 else 1e-4)
        reference.step(x, y)
        wavefront.step(x, y)
    reference.flush()
    wavefront.flush()
    assert_equal(reference, wavefront)


def test_bad_labels_leave_the_engine_able_to_continue() -> None:
    reference, wavefront = pair()
    data = batches(6)
    for t, (x, y) in enumerate(data):
        if t == 3:
            with pytest.raises(ConditionError):
                wavefront.step(x, y + 9)
        reference.step(x, y)
        wavefront.step(x, y)
    reference.flush()
    wavefront.flush()
    assert_equal(reference, wavefront)


def test_an_exception_in_a_tick_leaves_the_engine_able_to_continue() -> None:
    reference, wavefront = pair()
    plain, calls = F.cross_entropy, list[int]()

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        calls.append(len(calls))
        if len(calls) == 4:
            raise MemoryError
        return plain(outputs, labels)

    wavefront.loss = loss
    for t, (x, y) in enumerate(batches(8)):
        if t == 3:
            with pytest.raises(MemoryError):
                wavefront.step(x, y)
        reference.step(x, y)
        wavefront.step(x, y)
    reference.flush()
    wavefront.flush()
    assert_equal(reference, wavefront)


@pytest.mark.slow
@pytest.mark.skipif(missing_compiler("cpu") is not None, reason="nothing to compile with")
def test_a_compiled_tick_equals_the_reference() -> None:
    def small() -> list[nn.Module]:
        return [nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)]

    engines = pair(small, optimizer=OPTIMIZERS["sgd"], compile=True)
    train(engines, batches(9))
    assert_equal(*engines)


def test_without_a_compiler_it_runs_eagerly_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("synthgrad.compiler.shutil.which", lambda name: None)
    engines = pair(compile=True)
    assert "no C++ compiler" in caplog.text
    train(engines, batches(4))
    assert_equal(*engines)


def test_what_cannot_work_is_refused() -> None:
    for signal in (
        sg.Backprop(),
        sg.SyntheticGradient(mix=0.5),
        sg.SyntheticGradient(trace_decay=0.5),
    ):
        made = chain(mlp, signal, batches(1)[0][0])
        with pytest.raises(EngineError, match="needs the gradient from above"):
            sg.engines.Wavefront(
                made, loss=F.cross_entropy, optimizer=ADAM, synthesizer_optimizer=ADAM
            )
    made = chain(mlp, sg.SyntheticGradient(normalize_targets=True), batches(1)[0][0])
    with pytest.raises(EngineError, match="use normalize_targets=False"):
        sg.engines.Wavefront(made, loss=F.cross_entropy, optimizer=ADAM, synthesizer_optimizer=ADAM)
    twice = nn.Linear(5, 5).double()
    made = sg.Chain.from_modules(
        [nn.Sequential(twice, twice), nn.Linear(5, 3).double()], example_inputs=batches(1)[0][0]
    )
    wavefront = sg.engines.Wavefront(
        made, loss=F.cross_entropy, optimizer=ADAM, synthesizer_optimizer=ADAM
    )
    with pytest.raises(UnsupportedModelError, match="in two of its layers"):
        wavefront.step(*batches(1)[0])


class Scaled(nn.Module):
    """A layer whose numbers hide in an attribute, where repr does not show them."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def forward(self, h: Tensor) -> Tensor:
        return h * self._factor


def test_layers_that_differ_in_a_hidden_attribute_are_not_stacked() -> None:
    def network() -> list[nn.Module]:
        stages = [nn.Sequential(nn.Linear(5, 5), Scaled(0.5 + k)) for k in range(3)]
        return [*stages, nn.Linear(5, 3)]

    engines = pair(network)
    train(engines, batches(8))
    assert_equal(*engines)


class Spare(nn.Linear):
    """A layer with a parameter that it does not use."""

    def __init__(self) -> None:
        super().__init__(5, 5)
        self.spare = nn.Parameter(torch.ones(3))


def test_a_parameter_without_gradient_is_not_decayed() -> None:
    def network() -> list[nn.Module]:
        return [Spare(), Spare(), nn.Linear(5, 3)]

    engines = pair(network, optimizer=partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.5))
    train(engines, batches(5))
    assert_equal(*engines)


def test_hooks_are_refused_and_not_forgotten() -> None:
    stage = nn.Sequential(nn.Linear(5, 5), nn.Tanh()).double()
    stage.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    made = sg.Chain.from_modules([stage, nn.Linear(5, 3).double()], example_inputs=batches(1)[0][0])
    wavefront = sg.engines.Wavefront(
        made, loss=F.cross_entropy, optimizer=ADAM, synthesizer_optimizer=ADAM
    )
    with pytest.raises(UnsupportedModelError, match="has hooks"):
        wavefront.step(*batches(1)[0])
