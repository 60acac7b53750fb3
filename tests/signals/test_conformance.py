"""What every error signal promises, as one table: a new signal is added to `SIGNALS`."""

import copy
import dataclasses
import inspect
import io

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import synthgrad as sg
from synthgrad import signals
from synthgrad.signals import ErrorSignal, Lock, Need, Place, Units


def per_example(output, labels):
    return nn.functional.cross_entropy(output, labels, reduction="none")


SIGNALS = [
    sg.Backprop(),
    sg.NoSignal(),
    sg.SyntheticGradient(),
    sg.SyntheticGradient(condition=sg.OneHot(3)),
    sg.SyntheticGradient(condition=sg.OneHot(3), synthesizer="mlp", scale=0.5),
    sg.SyntheticGradient(synthesizer="mirror", mix=0.3),
    sg.SyntheticGradient(mix=1.0),
    sg.SyntheticGradient(fit_first=3),
    sg.SyntheticGradient(trace_decay=0.5),
    sg.SyntheticGradient(condition=sg.OneHot(3), normalize_targets=True),
    sg.LocalLoss(num_classes=3),
    *(sg.LocalLoss(num_classes=3, head=h) for h in ("auto", "pooled", "mlp", "mlp_sr", "conv")),
    sg.PredSim(num_classes=3),
    sg.PredSim(num_classes=3, weight=0.5, head="conv"),
    sg.DirectFeedbackAlignment(),
    sg.DirectFeedbackAlignment(seed=1, scale=3.0),
    sg.Kickback(),
    sg.FeedbackAlignment(),
    sg.SignSymmetric(),
    sg.SignSymmetric(magnitude=0.5),
    sg.Critic(loss=per_example),
    sg.Critic(loss=per_example, condition=sg.OneHot(3), critic="quadratic", scale=0.5),
]
SHAPES = {"features": (4, 6), "sequence": (4, 3, 6), "maps": (4, 2, 5, 5)}


def takes(signal: ErrorSignal, name: str) -> bool:
    if name == "maps":
        return getattr(signal, "synthesizer", "auto") in ("auto", "conv")
    return getattr(signal, "head", "auto") not in ("mlp_sr", "conv")


CASES = [
    pytest.param(signal, shape, id=f"{signal} on {name}")
    for signal in SIGNALS
    for name, shape in SHAPES.items()
    if takes(signal, name)
]
UNITS = {
    "mean": Units.of(4),
    "sum": Units.of(4, mean=False),
    "scaled mean": Units.of(4, loss_scale=torch.tensor(256.0)),
}


def build(signal: ErrorSignal, example, output=None):
    output = torch.zeros(len(example), 3) if output is None else output
    return signal.build_at(example, Place(index=1, tensor=0, output=output))


def trained_module(signal: ErrorSignal, example):
    """What the signal builds, with weights that make it predict something."""
    module = build(signal, example)
    for p in module.parameters() if module is not None else ():
        nn.init.normal_(p, std=0.3)
    return module


def predicted(signal, module, h):
    if not (signal.fits_target or signal.fits_loss):
        return None
    code = None
    if signal.conditioned_on is not None:
        labels = torch.arange(len(h)) % signal.conditioned_on.num_classes
        code = signal.conditioned_on.encode(labels, h.dtype)
    return signal.predict(module, h.detach(), code)


def hand_down(signal, module, prediction, target, error, units):
    """What the stage below is given: from the output error, or from prediction and target."""
    if signal.needs_output_error:
        assert signal.emit(prediction, target, units, 99) is None, "it is emitted in backward"
        return signal.project_error(module, error, target.shape)
    with pytest.raises(NotImplementedError):
        signal.project_error(module, error, target.shape)
    return signal.emit(prediction, target, units, 99)


def test_every_signal_is_in_the_table():
    public = [c for _, c in inspect.getmembers(signals, inspect.isclass)]
    known = {c for c in public if issubclass(c, ErrorSignal) and c is not ErrorSignal}
    assert known == {type(s) for s in SIGNALS}


@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_a_signal_is_a_frozen_description(signal):
    assert signal == copy.deepcopy(signal) == dataclasses.replace(signal)
    assert hash(signal) == hash(dataclasses.replace(signal))
    for f in dataclasses.fields(signal):
        assert f.kw_only
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(signal, f.name, None)


@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_a_signal_says_what_it_needs_and_opens(signal):
    assert isinstance(signal.needs, Need)
    assert signal.opens <= set(Lock)
    waits = signal.needs is Need.GRADIENT_FROM_ABOVE
    assert waits == (Lock.BACKWARD not in signal.opens), "who waits for it cannot open that lock"
    kinds = (signal.fits_target, signal.fits_loss, signal.is_local)
    assert sum(kinds) <= 1
    assert signal.fits_loss == (signal.needs is Need.PER_EXAMPLE_LOSS)
    shape = next(shape for name, shape in SHAPES.items() if takes(signal, name))
    has_module = build(signal, torch.zeros(shape)) is not None
    assert has_module == (any(kinds) or signal.needs is Need.OUTPUT_ERROR)
    assert signal.needs_output_error == (signal.needs in (Need.OUTPUT_ERROR, Need.STAGE_ABOVE))
    if signal.needs_output_error or waits:
        assert Lock.UPDATE not in signal.opens, "the forward pass must have ended"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("signal", "shape"), CASES)
def test_shapes_and_dtypes(signal, shape, dtype):
    h, target = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    module = trained_module(signal, h)
    prediction = predicted(signal, module, h)
    error = torch.randn(4, 3, dtype=dtype)
    emitted = hand_down(signal, module, prediction, target, error, Units.of(4))
    if signal.trains_below and not signal.is_local:
        assert (emitted.shape, emitted.dtype) == (h.shape, dtype)
        assert emitted.any()
    else:
        assert emitted is None
    if signal.fits_target:
        fit = signal.fit_gradient(prediction, target, Units.of(4))
        assert (fit.shape, fit.dtype) == (h.shape, dtype)
    if module is not None:
        assert {p.dtype for p in (*module.parameters(), *module.buffers())} - {torch.int64} == {
            dtype
        }


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
@pytest.mark.parametrize(("signal", "shape"), CASES)
def test_units(signal, shape, units):
    """A prediction is per example; signal and target are in the units of the (scaled) loss."""
    h, per_example = torch.randn(shape), torch.randn(shape)
    target, error = per_example * units.factor, torch.randn(4, 3)
    module = trained_module(signal, h)
    prediction = predicted(signal, module, h)
    emitted = hand_down(signal, module, prediction, target, error * units.factor, units)
    if emitted is not None:
        alone = hand_down(signal, module, prediction, per_example, error, Units.of(1))
        torch.testing.assert_close(emitted, alone * units.factor)
    if signal.fits_target:
        leaf = prediction.detach().requires_grad_()
        ((leaf - per_example).square().sum() / 4).backward()
        fit = signal.fit_gradient(prediction, target, units)
        torch.testing.assert_close(fit, leaf.grad * units.loss_scale)
    if signal.is_local:
        scores = trained_module(signal, h)(h)
        code = signal.conditioned_on.encode(torch.arange(4) % 3, scores.dtype)
        summed = signal.local_loss(scores, code, Units.of(4, mean=False))
        torch.testing.assert_close(signal.local_loss(scores, code, units), summed * units.factor)


@pytest.mark.parametrize(("signal", "shape"), CASES)
def test_a_prediction_that_is_right_is_emitted_as_the_target_and_fits(signal, shape):
    """At the fixed point every signal that trains the stage below hands down the true gradient."""
    per_example = torch.randn(shape)
    scale = getattr(signal, "scale", 1.0)
    units = Units.of(4)
    target = per_example * units.factor
    if signal.needs_output_error:
        if len(shape) == 4:  # Kickback assigns errors to channels
            return
        # An output of the activation's own shape, and a matrix that changes nothing.
        module = build(signal, per_example, per_example)
        for matrix in module.buffers() if module is not None else ():
            nn.init.eye_(matrix)
        torch.testing.assert_close(signal.project_error(module, target, target.shape), target)
    elif signal.trains_below and not signal.is_local:
        emitted = signal.emit(per_example / scale, target, units, 99)
        torch.testing.assert_close(emitted, target)
    if signal.fits_target:
        assert not signal.fit_gradient(per_example, target, units).any()


@pytest.mark.parametrize(("signal", "shape"), CASES)
def test_determinism(signal, shape):
    h, target, error = torch.randn(shape), torch.randn(shape), torch.randn(4, 3)
    trained = trained_module(signal, h)
    before = torch.get_rng_state()
    results = []
    for _ in range(2):
        module = build(signal, h) if signal.needs_output_error else trained
        prediction = predicted(signal, module, h)
        results.append(hand_down(signal, module, prediction, target, error, Units.of(4)))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before), "no randomness of its own"


@pytest.mark.parametrize(("signal", "shape"), CASES)
def test_the_state_reloads_into_another_module(signal, shape):
    h = torch.randn(shape)
    module = trained_module(signal, h)
    if module is None:
        return

    def answer(module):
        if signal.needs_output_error:
            return signal.project_error(module, torch.ones(4, 3), h.shape)
        return module(h) if signal.is_local else predicted(signal, module, h)

    answer(module)  # batch norm has statistics now
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    # A signal that draws its module from a seed is built with another one.
    other = build(dataclasses.replace(signal, seed=7) if hasattr(signal, "seed") else signal, h)
    if signal.needs_output_error:
        assert not torch.equal(answer(other), answer(module))
    other.load_state_dict(torch.load(file, weights_only=True))
    first, second = (answer(m.eval()) for m in (module, other))
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert first.any()


@pytest.mark.parametrize(("signal", "shape"), CASES)
def test_inputs_are_not_changed(signal, shape):
    h, target, error = torch.randn(shape), torch.randn(shape), torch.randn(4, 3)
    module = trained_module(signal, h)
    prediction = predicted(signal, module, h)
    given = [t for t in (h, target, error, prediction) if t is not None]
    before = [t.clone() for t in given]
    hand_down(signal, module, prediction, target, error, Units.of(4))
    if signal.fits_target:
        signal.fit_gradient(prediction, target, Units.of(4))
    torch.testing.assert_close(given, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("signal", "shape"),
    [case for case in CASES if case.values[0].fits_target or case.values[0].fits_loss],
)
def test_no_gradient_leaks_from_the_fit_into_the_stage_below(signal, shape):
    """With zeros emitted, only a leak could move the stage below."""

    class Muted(type(signal)):
        def emit(self, prediction, target, units, num_fits):
            return torch.zeros_like(prediction)

    muted = Muted(**{f.name: getattr(signal, f.name) for f in dataclasses.fields(signal)})
    bottom = nn.Conv2d(2, 2, 1) if len(shape) == 4 else nn.Linear(6, 6)
    top = nn.Flatten(1)
    x = torch.randn(shape)
    model = nn.Sequential(bottom, nn.Identity(), top, nn.Linear(x[0].numel(), 3))
    net = sg.decouple(model, ["1"], example_inputs=x, signal=muted)
    for p in net.synthesizer_parameters():
        nn.init.normal_(p, std=0.3)
    net(x, condition=torch.arange(4) % 3).square().sum().backward()
    fitted = list(net.synthesizer_parameters())
    assert all(p.grad is not None and p.grad.any() for p in fitted)
    assert all(p.grad is None or not p.grad.any() for p in bottom.parameters())


@pytest.mark.parametrize("signal", [s for s in SIGNALS if takes(s, "features")], ids=str)
def test_operations_can_be_counted(signal):
    """Hooks on modules, such as those of torch's FLOP counter, see every signal's work."""
    net = sg.decouple(
        nn.Sequential(*(nn.Linear(6, 6) for _ in range(3)), nn.Linear(6, 3)),
        at=["0", "1"],
        signal=signal,
        example_inputs=torch.zeros(4, 6),
    )
    labels = torch.arange(4) % 3
    with FlopCounterMode(display=False) as counter:
        nn.functional.cross_entropy(net(torch.randn(4, 6), condition=labels), labels).backward()
    assert counter.get_total_flops() > 0
