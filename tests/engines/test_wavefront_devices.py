"""The wavefront engine equals the reference on every device, run eagerly and recorded.

On the CPU "recorded" is the engine's logic of static buffers with a recorder that runs the tick
anew; on CUDA it is a CUDA graph. All in float64, where cuBLAS and cuDNN, like the CPU, only add in
another order: the tolerance is that of the CPU.

    PYTHONPATH=src python3 -m pytest -c /dev/null -p no:cacheprovider -k cuda \\
        tests/engines/test_wavefront_devices.py
"""

import io
import subprocess
import sys
from dataclasses import dataclass, field
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
    Tape,
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
from synthgrad.engines import Wavefront
from synthgrad.engines.wavefront.bundles import stacked
from synthgrad.errors import EngineError

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = pytest.param("cuda", marks=NEEDS_CUDA)
PLACES = [
    ("cpu", "recorded"),
    pytest.param("cuda", "eager", marks=NEEDS_CUDA),
    pytest.param("cuda", "recorded", marks=NEEDS_CUDA),
]
everywhere = pytest.mark.parametrize(("device", "execution"), PLACES)


@pytest.fixture
def options(device: str, execution: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options with which the engines run in this place."""
    if device == "cpu" and execution == "recorded":
        monkeypatch.setattr(Wavefront, "_make_recorder", lambda self: Tape())
    return {"device": device, "cuda_graph": execution == "recorded"}


class CountedDropout(nn.Module):
    """Dropout whose mask follows from how often the layer has run, so that two engines agree.

    What `nn.Dropout` draws depends on which layer draws first, and all stages draw at once here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, h: Tensor) -> Tensor:
        self.count += 1
        place = torch.arange(h.numel(), device=h.device).reshape(h.shape)
        kept = (place * 7919 + self.count * 104729) % 1009 % 3 > 0
        return h * kept * 1.5


def dropping(layer: partial[nn.Module] | type[nn.Module]) -> Network:
    def network() -> list[nn.Module]:
        stages = [nn.Sequential(nn.Linear(5, 5), nn.Tanh(), layer()) for _ in range(3)]
        return [*stages, nn.Linear(5, 3)]

    return network


def lengths() -> list[nn.Module]:
    """Stages of one, three, two, three and one layers, which begin and end alike."""
    layers = [[nn.Linear(5, 5) for _ in range(count)] for count in (1, 3, 2, 3)]
    return [*(nn.Sequential(*own) for own in layers), nn.Linear(5, 3)]


@dataclass(frozen=True, kw_only=True)
class Case:
    network: Network = mlp
    signal: sg.ErrorSignal = LABELED
    optimizer: str = "adam"
    shape: tuple[int, ...] = (8, 5)
    options: dict[str, Any] = field(default_factory=dict)


SPARSE = {"update_probability": 0.5, "seed": 4}
IMAGES = (6, 1, 4, 4)
CASES = {
    "adam": Case(),
    "adamw": Case(optimizer="adamw"),
    "sgd with momentum, half of the updates": Case(optimizer="sgd, nesterov", options=SPARSE),
    "adam, half of the updates": Case(options=SPARSE),
    "an optimizer that is not stacked": Case(
        optimizer="rmsprop, which is not stacked", options=SPARSE
    ),
    "stages of unequal length": Case(network=lengths),
    "local loss, stages of unequal length": Case(
        network=lengths, signal=sg.LocalLoss(num_classes=3), options=SPARSE
    ),
    "cnn": Case(network=cnn, shape=IMAGES),
    "stages all different": Case(network=unequal),
    "batch-normalized synthesizers, fitted again": Case(
        signal=sg.SyntheticGradient(condition=sg.OneHot(3), synthesizer="mirror"),
        options={"late_fit": "again"},
    ),
    "batch-normalized synthesizers, fitted as stored": Case(
        signal=sg.SyntheticGradient(condition=sg.OneHot(3), synthesizer="mirror", fit_first=3),
    ),
    "convolutional synthesizers": Case(
        network=cnn,
        shape=IMAGES,
        signal=sg.SyntheticGradient(condition=sg.OneHot(3), synthesizer="conv"),
    ),
    "mlp synthesizers": Case(
        signal=sg.SyntheticGradient(
            synthesizer=partial(sg.synthesizers.mlp, hidden=(4, 4)), condition=sg.OneHot(3)
        )
    ),
    "local loss": Case(signal=sg.LocalLoss(num_classes=3)),
    "local loss with a convolutional head, half of the updates": Case(
        network=cnn,
        shape=IMAGES,
        signal=sg.LocalLoss(num_classes=3, head="conv"),
        options=SPARSE,
    ),
    "prediction and similarity": Case(network=cnn, shape=IMAGES, signal=sg.PredSim(num_classes=3)),
    "no signal": Case(signal=sg.NoSignal()),
    "dropout": Case(network=dropping(CountedDropout), options=SPARSE),
    "dropout of nothing": Case(network=dropping(partial(nn.Dropout, 0.0))),
    "dropout of everything": Case(network=dropping(partial(nn.Dropout, 1.0))),
}


@everywhere
@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference(
    case: str, device: str, execution: str, options: dict[str, Any]
) -> None:
    given = CASES[case]
    engines = pair(
        given.network,
        given.signal,
        OPTIMIZERS[given.optimizer],
        given.shape,
        **given.options,
        **options,
    )
    before = {k: v.clone() for k, v in engines[1].chain.state_dict().items()}
    train(engines, batches(11, given.shape, device))
    assert_equal(*engines)
    after = engines[1].chain.state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before)
    assert engines[1].execution == {"eager": "eager", "recorded": "cuda-graph"}[execution]


@everywhere
def test_an_uneven_last_batch_of_every_epoch(
    device: str, execution: str, options: dict[str, Any]
) -> None:
    reference, wavefront = pair(**options)
    for _ in range(2):
        for part in (batches(7, device=device), batches(1, (5, 5), device)):
            for x, y in part:
                wavefront.step(x, y)
            train((reference,), part)  # type: ignore[arg-type]
    wavefront.flush()
    assert_equal(reference, wavefront)


@everywhere
def test_the_losses_are_those_of_the_reference(
    device: str, execution: str, options: dict[str, Any]
) -> None:
    reference, wavefront = pair(**options)
    data = batches(9, device=device)
    expected = [reference.step(x, y) for x, y in data]
    found = [wavefront.step(x, y) for x, y in data]
    assert found[:4] == [None] * 4
    # Kept by the caller, not overwritten by later ticks. Batched products add in another order.
    torch.testing.assert_close(found[4:], expected[:5], rtol=1e-9, atol=1e-12)


@everywhere
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop, which is not stacked"])
def test_saving_with_batches_in_flight_changes_nothing(
    optimizer: str, device: str, execution: str, options: dict[str, Any]
) -> None:
    data = batches(12, device=device)
    mirror = sg.SyntheticGradient(condition=sg.OneHot(3), synthesizer="mirror")
    through, first, second = (
        pair(mlp, mirror, OPTIMIZERS[optimizer], update_probability=0.5, **options)[1]
        for _ in range(3)
    )
    for engine in (through, first):
        for x, y in data if engine is through else data[:6]:
            engine.step(x, y)
    for x, y in data[:3]:
        second.step(x, y)  # it has begun, and recorded, before it is told where to go on
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    for x, y in data[6:]:
        second.step(x, y)
    through.flush()
    second.flush()
    torch.testing.assert_close(
        dict(through.chain.state_dict()), dict(second.chain.state_dict()), rtol=0, atol=0
    )


@everywhere
def test_a_schedule_is_followed(device: str, execution: str, options: dict[str, Any]) -> None:
    reference, wavefront = pair(**options)
    for t, (x, y) in enumerate(batches(10, device=device)):
        set_rate(reference, wavefront, 1e-2 / (1 + t))
        reference.step(x, y)
        wavefront.step(x, y)
    reference.flush()
    wavefront.flush()
    assert_equal(reference, wavefront)


@everywhere
@pytest.mark.parametrize("tick", [1, 4, 6])
def test_an_exception_in_a_tick_leaves_the_engine_able_to_continue(
    tick: int, device: str, execution: str, options: dict[str, Any]
) -> None:
    """A loss that raises in the tick; of a CUDA graph, while it is being made."""
    reference, wavefront = pair(**options)
    plain, failing = F.cross_entropy, list[bool]()

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        if failing:
            raise MemoryError
        return plain(outputs, labels)

    wavefront.loss = loss
    raised = 0
    for t, (x, y) in enumerate(batches(9, device=device)):
        if t == tick:
            failing.append(True)
            state = {k: v.clone() for k, v in wavefront.chain.state_dict().items()}
            try:
                # Recorded ticks do not call the loss, so that nothing can raise there.
                wavefront.step(x, y)
            except MemoryError:
                raised += 1
                after = dict(wavefront.chain.state_dict())
                torch.testing.assert_close(after, state, rtol=0, atol=0)
                failing.clear()
                wavefront.step(x, y)
            failing.clear()
        else:
            wavefront.step(x, y)
        reference.step(x, y)
    reference.flush()
    wavefront.flush()
    assert_equal(reference, wavefront)
    assert raised or ((device, execution) == ("cuda", "recorded") and tick != 4)


@everywhere
def test_running_out_of_memory_in_a_trial_run_changes_nothing(
    device: str, execution: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just before the commit: everything has been computed and nothing written."""
    from synthgrad.engines.wavefront import tick as module

    engine = pair(**options)[1]
    data = batches(3, device=device)
    engine.step(*data[0])
    engine.flush()
    state = {k: v.clone() for k, v in engine.chain.state_dict().items()}
    commit = module._commit

    def full(pairs: list[tuple[Tensor, Tensor]]) -> None:
        raise torch.OutOfMemoryError("as if")

    monkeypatch.setattr(module, "_commit", full)
    with pytest.raises(torch.OutOfMemoryError):
        engine.step(data[1][0][:5], data[1][1][:5])
    torch.testing.assert_close(dict(engine.chain.state_dict()), state, rtol=0, atol=0)
    monkeypatch.setattr(module, "_commit", commit)
    engine.step(*data[1])
    engine.flush()


@everywhere
def test_what_is_carried_is_stated(device: str, execution: str, options: dict[str, Any]) -> None:
    def engine(length: int, signal: sg.ErrorSignal) -> Wavefront:
        def network() -> list[nn.Module]:
            stages = [nn.Sequential(*[nn.Linear(5, 5) for _ in range(length)]) for _ in range(3)]
            return [*stages, nn.Linear(5, 3)]

        return pair(network, signal, **options)[1]

    found = dict[tuple[int, bool], int]()
    for length in (1, 4):
        for signal in (LABELED, sg.LocalLoss(num_classes=3)):
            made = engine(length, signal)
            assert made.carried_bytes() == 0
            sizes = set[int]()
            for x, y in batches(9, device=device):
                made.step(x, y)
                sizes.add(made.carried_bytes())
            assert len(sizes) == 1  # it does not grow
            found[length, signal is LABELED] = sizes.pop()
    # Three interfaces with 8 x 5 numbers, four stages with 8 labels and two rates.
    activations, rest = 3 * 8 * 5 * 8, 4 * (8 * 8 + 2 * 8)
    assert found[1, False] == activations + rest
    assert found[1, True] == 2 * activations + rest  # and the predictions that wait for a target
    # What is inside a stage is not carried.
    assert found[4, False] == found[1, False]
    assert found[4, True] == found[1, True]


@NEEDS_CUDA
@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize(("network", "shape"), [(mlp, (8, 5)), (unequal, (8, 5)), (cnn, IMAGES)])
def test_side_streams_on_cuda(network: Network, shape: tuple[int, ...], cuda_graph: bool) -> None:
    engines = pair(network, shape=shape, device="cuda", cuda_graph=cuda_graph, side_streams=True)
    train(engines, batches(24, shape, "cuda"))
    assert_equal(*engines)


@NEEDS_CUDA
@pytest.mark.skipif(missing_compiler("cuda") is not None, reason="nothing to compile with")
def test_compiled_and_recorded_on_cuda() -> None:
    engines = pair(dropping(CountedDropout), device="cuda", compile=True, cuda_graph=True)
    train(engines, batches(9, device="cuda"))
    assert engines[1].execution == "compiled cuda-graph"
    assert_equal(*engines)


@NEEDS_CUDA
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_steady_tick_does_not_wait_for_cuda() -> None:
    for options in ({}, {"cuda_graph": True}):
        _, wavefront = pair(device="cuda", **options)
        data = batches(8, device="cuda")
        for x, y in data:
            wavefront.step(x, y)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for x, y in data:
                wavefront.step(x, y)
            wavefront.flush()  # with masks, which come from the host
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_stacked_dropout_draws_for_each_stage(device: str) -> None:
    state = dict[str, Tensor]()
    bundle = stacked([nn.Dropout(0.5) for _ in range(3)], [0, 1, 2], "", state)
    out, _ = bundle.run(state, torch.ones(3, 64, 64, device=device))
    kept = out > 0
    assert torch.equal(out, 2.0 * kept)
    # 4096 draws each: the standard deviation of a share is under 0.01.
    assert all(abs(float(own.double().mean()) - 0.5) < 0.05 for own in kept)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(float((kept[a] == kept[b]).double().mean()) - 0.5) < 0.05


def test_a_recording_is_made_once_a_kind_of_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    tapes = [Tape()]
    monkeypatch.setattr(Wavefront, "_make_recorder", lambda self: tapes[0])
    _, wavefront = pair(cuda_graph=True)
    for x, y in batches(9):
        wavefront.step(x, y)
    assert tapes[0].recordings == 2  # with masks while the line fills, and without
    wavefront.flush()
    for x, y in batches(6):
        wavefront.step(x, y)
    assert tapes[0].recordings == 2
    wavefront.step(*batches(1, (5, 5))[0])
    assert tapes[0].recordings == 3


def test_what_cannot_be_recorded_runs_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Torn(Tape):
        def record(self, function: Any) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Wavefront, "_make_recorder", lambda self: Torn())
    engines = pair(cuda_graph=True)
    assert engines[1].execution == "cuda-graph"
    train(engines, batches(7))
    assert engines[1].execution == "eager"
    assert "goes on eager: RuntimeError: operation not permitted" in caplog.text
    assert_equal(*engines)


def test_without_cuda_it_runs_eagerly_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    engines = pair(cuda_graph=True)
    assert engines[1].execution == "eager"
    assert "makes no CUDA graph: the chain is on the CPU" in caplog.text
    train(engines, batches(4))
    assert_equal(*engines)


def test_on_the_cpu_cuda_is_not_touched() -> None:
    program = """
import sys, torch
from functools import partial
from torch import nn
import synthgrad as sg
chain = sg.Chain.from_sequential(
    [nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)],
    signal=sg.LocalLoss(num_classes=2), example_inputs=torch.zeros(2, 4),
)
adam = partial(torch.optim.Adam, lr=1e-3)
engine = sg.engines.Wavefront(
    chain, loss=nn.functional.cross_entropy, optimizer=adam, synthesizer_optimizer=adam,
    cuda_graph=True,
)
for _ in range(4):
    engine.step(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
engine.flush()
assert not torch.cuda.is_initialized()
assert "triton" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_a_batch_on_another_device_is_refused() -> None:
    wavefront = pair()[1]
    x, y = batches(1)[0]
    with pytest.raises(EngineError, match="the batch is on meta and the chain on cpu"):
        wavefront.step(x.to("meta"), y)
    moved = chain(mlp, LABELED, x)
    moved.stages[1].to("meta")
    with pytest.raises(EngineError, match="the chain is on cpu, meta"):
        Wavefront(moved, loss=F.cross_entropy, optimizer=ADAM, synthesizer_optimizer=ADAM)


def half(signal: sg.ErrorSignal, device: str, execution: str) -> tuple[Wavefront, Wavefront]:
    def engine(**options: Any) -> Wavefront:
        torch.manual_seed(0)
        # No batch norm: with eight examples it makes large differences of small ones.
        modules = [module.to(device) for module in dropping(nn.Identity)()]
        made = sg.Chain.from_modules(
            modules, signal=signal, example_inputs=torch.zeros(8, 5, device=device)
        )
        sgd = partial(torch.optim.SGD, lr=0.05)
        return Wavefront(
            made, loss=F.cross_entropy, optimizer=sgd, synthesizer_optimizer=sgd, **options
        )

    return engine(), engine(autocast=torch.bfloat16, cuda_graph=execution == "recorded")


@everywhere
@pytest.mark.parametrize("signal", [LABELED, sg.LocalLoss(num_classes=3)], ids=str)
def test_bfloat16(
    signal: sg.ErrorSignal, device: str, execution: str, options: dict[str, Any]
) -> None:
    plain, narrow = half(signal, device, execution)
    before = {k: v.clone() for k, v in narrow.chain.state_dict().items()}
    for x, y in batches(10, device=device):
        plain.step(x.float(), y)
        narrow.step(x.float(), y)
    assert narrow.carried_bytes() < plain.carried_bytes()
    plain.flush()
    narrow.flush()
    wide, rough = plain.chain.state_dict(), narrow.chain.state_dict()
    assert all(rough[k].dtype is wide[k].dtype for k in wide)
    # 8 bits of mantissa: what goes into a product is off by up to 2**-8, half a percent.
    for k in wide:
        if k.endswith("weight"):
            moved, off = wide[k] - before[k], rough[k] - wide[k]
            assert off.norm() <= 0.02 * moved.norm(), k
            assert not torch.equal(rough[k], before[k])
