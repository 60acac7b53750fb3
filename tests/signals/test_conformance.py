"""What every error signal promises, as one table: a new signal is added to `SIGNALS`."""

import copy
import dataclasses
import inspect
import io
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import synthgrad as sg
from synthgrad import signals
from synthgrad.signals import ErrorSignal, Lock, Need, Place, Units
from synthgrad.signals.transposes import Feedback, TransposeSignal, input_gradient_of


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
    sg.SyntheticGradient(condition=sg.OneHot(3), synthesizer="conv"),
    sg.SyntheticGradient(condition=sg.OneHot(3), synthesizer="low-rank"),
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


def all_that_it_gives(signal, module, h, target, error, units):
    """Every tensor that a signal makes; a local one is its loss, and the gradient of it."""
    if signal.is_local:
        leaf = h.clone().requires_grad_()
        loss = signal.local_loss(module(leaf), labels_of(signal, h), units)
        return [loss.detach(), *torch.autograd.grad(loss, leaf)]
    prediction = predicted(signal, module, h)
    given = [hand_down(signal, module, prediction, target, error, units)]
    if signal.fits_target:
        given += [prediction.detach(), signal.fit_gradient(prediction.detach(), target, units)]
    return given


def takes(signal: ErrorSignal, name: str) -> bool:
    synthesizer = getattr(signal, "synthesizer", "auto")
    if name == "maps":
        return synthesizer in ("auto", "conv", "low-rank")
    if synthesizer == "conv":
        return False
    return getattr(signal, "head", "auto") not in ("mlp_sr", "conv")


CASES = [
    pytest.param(signal, shape, id=f"{signal} on {name}")
    for signal in SIGNALS
    for name, shape in SHAPES.items()
    if takes(signal, name)
]
HANDING_DOWN = [case for case in CASES if case.values[0].trains_below]
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
        if p.dim() > 1:  # a norm's weights of both signs would leave units that are dead
            nn.init.normal_(p, std=0.3)
    return module


def predicted(signal, module, h):
    if not (signal.fits_target or signal.fits_loss):
        return None
    code = None
    if signal.conditioned_on is not None:
        code = labels_of(signal, h)
    return signal.predict(module, h.detach(), code)


def layer_of(shape, dtype):
    """A layer whose output has its input's shape; always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        layer = nn.Conv2d(2, 2, 3, padding=1) if len(shape) == 4 else nn.Linear(6, 6)
        return layer.to(dtype)


def through(signal, layer, error):
    """What becomes of an error on its way down through a layer."""
    x = torch.zeros_like(error).requires_grad_()
    weight = layer.weight.detach()
    other = partial(signal.feedback, weight, signal.draw(weight, "layer"))
    Feedback.apply(layer(x.detach()), x, other, input_gradient_of(layer)).backward(error)
    return x.grad


def labels_of(signal, h):
    """Encoded."""
    return signal.conditioned_on.encode(torch.arange(len(h)) % 3, h.dtype)


def hand_down(signal, module, prediction, target, error, units):
    """What the stage below is given: from the output error, or from prediction and target."""
    if isinstance(signal, TransposeSignal):
        emitted = signal.emit(prediction, target, units, 99)
        assert emitted is target, "the way down is another, and the end of it is handed on"
        return through(signal, layer_of(target.shape, target.dtype), emitted)
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
@pytest.mark.parametrize(("signal", "shape"), HANDING_DOWN)
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
        scores, code = module(h), labels_of(signal, h)
        summed = signal.local_loss(scores, code, Units.of(4, mean=False))
        torch.testing.assert_close(signal.local_loss(scores, code, units), summed * units.factor)


@pytest.mark.parametrize(
    ("signal", "shape"),
    # Kickback assigns the errors of feature maps to channels.
    [c for c in CASES if c.values[0].needs_output_error and len(c.values[1]) < 4],
)
def test_an_error_that_is_the_gradient_is_handed_down_as_it_is(signal, shape):
    """With an output of the activation's own shape, and a matrix that changes nothing."""
    target = torch.randn(shape)
    module = build(signal, target, target)
    for matrix in module.buffers() if module is not None else ():
        nn.init.eye_(matrix)
    torch.testing.assert_close(signal.project_error(module, target, target.shape), target)


@pytest.mark.parametrize(
    ("signal", "shape"), [c for c in CASES if isinstance(c.values[0], TransposeSignal)]
)
def test_with_the_layers_own_weights_an_error_goes_down_as_in_backprop(signal, shape):
    error, layer = torch.randn(shape), layer_of(shape, torch.float32)
    fixed = signal.draw(layer.weight.detach(), "layer")
    with torch.no_grad():
        if fixed is not None:
            layer.weight.copy_(fixed)
        else:  # any magnitude but its own would do harm
            layer.weight.copy_(signal.feedback(layer.weight, None))
    x = torch.zeros(shape, requires_grad=True)
    layer(x).backward(error)
    torch.testing.assert_close(through(signal, layer, error), x.grad)
    with torch.no_grad():
        layer.weight.mul_(-2)
    assert not torch.allclose(through(signal, layer, error), -2 * x.grad)


@pytest.mark.parametrize(
    ("signal", "shape"), [c for c in CASES if c.values[0].fits_target or c.values[0].fits_loss]
)
def test_a_prediction_that_is_right_is_emitted_as_the_target_and_fits(signal, shape):
    """At the fixed point the signal is the true gradient."""
    per_example = torch.randn(shape)
    units = Units.of(4)
    target = per_example * units.factor
    emitted = signal.emit(per_example / signal.scale, target, units, 99)
    torch.testing.assert_close(emitted, target)
    if signal.fits_target:
        assert not signal.fit_gradient(per_example, target, units).any()


@pytest.mark.parametrize(("signal", "shape"), HANDING_DOWN)
def test_determinism(signal, shape):
    """The second time as the first; and what is drawn from a seed takes nothing from torch."""
    h, target, error = torch.randn(shape), torch.randn(shape), torch.randn(4, 3)
    module = trained_module(signal, h)
    before = torch.get_rng_state()
    results = []
    for _ in range(2):
        if signal.needs_output_error:
            module = build(signal, h)
        results.append(all_that_it_gives(signal, module, h, target, error, Units.of(4)))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    assert all(tensor.any() for tensor in results[0])
    assert torch.equal(torch.get_rng_state(), before), "no randomness of its own"


@pytest.mark.parametrize(
    ("signal", "shape"),
    [c for c in CASES if build(c.values[0], torch.zeros(c.values[1])) is not None],
)
def test_the_state_reloads_into_another_module(signal, shape):
    h = torch.randn(shape)
    module = trained_module(signal, h)

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


@pytest.mark.parametrize(("signal", "shape"), HANDING_DOWN)
def test_inputs_are_not_changed(signal, shape):
    h, target, error = torch.randn(shape), torch.randn(shape), torch.randn(4, 3)
    module = trained_module(signal, h)
    given = [h, target, error]
    before = [t.clone() for t in given]
    all_that_it_gives(signal, module, h, target, error, Units.of(4))
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
