"""`net.report()`: right values, at the right steps, without waiting for the device in a step."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import synthgrad as sg
from synthgrad import metrics
from zoo import BATCH, CLASSES, ZOO

MLP, TREES = ZOO[0], next(s for s in ZOO if s.name == "Trees")
CDNI = sg.SyntheticGradient(condition=sg.OneHot(CLASSES))
NAMES = {"regression_loss", "cosine", "relative_error", "prediction_norm", "target_norm"}


def decoupled(specimen=MLP, **options):
    options = {"signal": CDNI, **options}
    x, _ = specimen.batch()
    net = sg.decouple(specimen.model(), list(specimen.at), example_inputs=x, **options)
    for p in net.synthesizer_parameters():
        nn.init.normal_(p, std=0.3)
    return net


def train(net, number=0, specimen=MLP, **options):
    x, y = specimen.batch(number)
    F.cross_entropy(net(x, condition=y, **options), y, reduction="mean").backward()


def test_nothing_is_measured_unless_asked():
    net = decoupled()
    train(net)
    assert net.report() == {}


def test_values_are_those_of_the_definition():
    net = decoupled(report_every=1)
    activations, targets = {}, {}

    def note(name):
        def hook(module, args, up):
            activations[name] = up.detach().clone()
            up.register_hook(lambda g: targets.update({name: g * BATCH}))

        return hook

    for name in MLP.at:
        net.model.get_submodule(name).register_forward_hook(note(name))
    train(net)
    _, y = MLP.batch()
    code = F.one_hot(y, CLASSES).double()
    report = net.report()
    assert list(report) == list(MLP.at)
    for name, values in report.items():
        predicted = net.synthesizers[name][0](activations[name], code).detach()
        true = targets[name]
        assert values.keys() == NAMES
        expected = {
            "regression_loss": (predicted - true).square().sum(1).mean(),
            "cosine": metrics.cosine(predicted, true),
            "relative_error": metrics.relative_error(predicted, true),
            "prediction_norm": predicted.norm(),
            "target_norm": true.norm(),
        }
        torch.testing.assert_close(values, expected)
        assert all(v.shape == () and not v.requires_grad for v in values.values())


def test_the_regression_loss_is_the_one_that_is_minimized():
    """Its gradient, by finite differences, is the gradient that the synthesizer was given."""
    net = decoupled(report_every=1)
    weight = net.synthesizers["c"][0].last.bias
    train(net)
    gradient = weight.grad[0].item()
    losses = []
    for shift in (1e-5, -2e-5):
        with torch.no_grad():
            weight[0] += shift
        train(net)
        losses.append(net.report()["c"]["regression_loss"].item())
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(gradient, rel=1e-5)


def test_the_reduction_changes_no_value():
    reports = []
    for reduction in ("mean", "sum"):
        torch.manual_seed(0)
        net = decoupled(report_every=1, reduction=reduction)
        x, y = MLP.batch()
        F.cross_entropy(net(x, condition=y), y, reduction=reduction).backward()
        reports.append(net.report())
    torch.testing.assert_close(*reports)


def test_it_is_taken_every_so_many_steps():
    net = decoupled(report_every=3)
    losses = []
    for number in range(7):
        train(net, number)
        losses.append(net.report()["a"]["regression_loss"].item())
    changed = [0] + [k for k in range(1, 7) if losses[k] != losses[k - 1]]
    assert changed == [0, 3, 6]


def test_steps_are_counted_not_passes():
    net = decoupled(report_every=2, accumulate=3)
    losses = []
    for number in range(12):
        train(net, number)
        losses.append(net.report()["a"]["regression_loss"].item())
    changed = [0] + [k for k in range(1, 12) if losses[k] != losses[k - 1]]
    assert changed == [0, 6]


def test_a_skipped_stage_leaves_the_last_measure():
    net = decoupled(report_every=1, update_probability=(1.0, 0.3, 1.0, 1.0), seed=2)
    seen = set()
    previous = None
    for number in range(8):
        train(net, number)
        now = net.report().get("a", {}).get("regression_loss")
        if previous is not None:
            assert (now != previous) == net.updated[1]
            seen.add(net.updated[1])
        previous = now
    assert seen == {True, False}


def test_an_interface_with_several_tensors_has_an_entry_each():
    net = decoupled(TREES, report_every=1, signal=sg.SyntheticGradient())
    train(net, specimen=TREES)
    assert list(net.report()) == ["a[0]", "a[1]", "b[0]", "b[1]"]


def test_a_report_is_a_copy():
    net = decoupled(report_every=1)
    train(net)
    net.report()["a"].clear()
    assert net.report()["a"].keys() == NAMES


class NoSync(TorchDispatchMode):
    """Fails on any operation for which the host would wait for the device."""

    def __init__(self):
        super().__init__()
        self.allowed = 0
        self.met = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "_local_scalar_dense" in str(func) or "nonzero" in str(func):
            self.met += 1
            assert self.met <= self.allowed, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


def test_the_detector_works():
    with pytest.raises(AssertionError, match="waits for the device"), NoSync():
        torch.ones(()).item()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"update_probability": 0.5},
        {"release": "forward"},
        {"signal": sg.SyntheticGradient(mix=0.5, fit_first=2)},
    ],
    ids=str,
)
def test_no_step_waits_for_the_device(options):
    options = {"signal": sg.SyntheticGradient(), "report_every": 1, **options}
    net = decoupled(**options)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaled = {} if "release" in options else {"loss_scale": torch.tensor(8.0)}
    with NoSync():
        for number in range(4):
            train(net, number, **scaled)
            optimizer.step()
            optimizer.zero_grad()
            net.report()


def test_labels_on_the_cpu_are_checked_on_the_cpu_and_nothing_else_waits():
    """Two numbers, the lowest and the highest label; elsewhere the device itself asserts."""
    net = decoupled(report_every=1)
    mode = NoSync()
    mode.allowed = 2
    with mode:
        train(net)
    assert mode.met == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", [{}, {"update_probability": 0.5}], ids=str)
def test_no_step_waits_on_a_gpu(options):
    x, y = (t.cuda() for t in MLP.batch())
    net = sg.decouple(
        MLP.model().cuda(),
        list(MLP.at),
        example_inputs=x,
        signal=CDNI,
        report_every=1,
        **options,
    )
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    for number in range(6):
        # The first step initializes libraries, which may wait.
        torch.cuda.set_sync_debug_mode("error" if number else "default")
        try:
            F.cross_entropy(net(x, condition=y), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            net.report()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(v.is_cuda for v in net.report()["a"].values())
