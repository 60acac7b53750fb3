"""Synthetic inputs: each stage alone with the network's input, the labels and its own state."""

import copy
import io
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

import synthgrad as sg
from synthgrad import synthetic_input
from synthgrad.errors import ConfigError, InterfaceError, UnsupportedModelError
from zoo import BATCH, CLASSES, ZOO

SPECIMENS = {s.name: s for s in ZOO}
MLP, BATCH_NORM, CONV = SPECIMENS["Mlp"], SPECIMENS["BatchNorm"], SPECIMENS["Conv"]
CDNI = sg.SyntheticGradient(condition=sg.OneHot(CLASSES))
CRITIC = sg.Critic(loss=partial(F.cross_entropy, reduction="none"), condition=sg.OneHot(CLASSES))
LOCAL = sg.LocalLoss(num_classes=CLASSES)


def decoupled(specimen=MLP, **options):
    x, _ = specimen.batch()
    torch.manual_seed(3)
    options = {
        "signal": CDNI,
        "at": list(specimen.at),
        "synthetic_input": sg.SyntheticInput(),
    } | options
    net = sg.decouple(specimen.model(), example_inputs=x, **options)
    for module in net.synthesizers.values():
        for p in module.parameters():
            nn.init.normal_(p, std=0.3)
    return net


def gradients(module):
    return [p.grad for p in module.parameters()]


def train(net, number=0, specimen=MLP, **options):
    x, y = specimen.batch(number)
    loss = F.cross_entropy(net(x, condition=y, **options), y)
    (loss * options.get("loss_scale", 1.0)).backward()


def train_by_hand(model, synthesizers, inputs, x, y):
    """Every stage by itself on the network's input; nothing here is the library's."""
    code, entries, tops, predictions = F.one_hot(y, CLASSES).double(), [], [], []
    h = x
    for k, part in enumerate(model.parts()):
        flat, spec = tree_flatten(part(h))
        places = [i for i, t in enumerate(flat) if _is_float(t)]
        tops.append([flat[i] for i in places])
        if k == len(synthesizers):
            break
        predictions.append(
            [m(flat[i].detach(), code) for m, i in zip(synthesizers[k], places, strict=True)]
        )
        guesses = [m(x) for m in inputs[k]]
        for guess, top in zip(guesses, tops[-1], strict=True):
            ((guess - top.detach()).square().sum() / len(y)).backward()
        entries.append([g.detach().requires_grad_() for g in guesses])
        for i, entry in zip(places, entries[-1], strict=True):
            flat[i] = entry.clone()  # the stage above may work in place
        h = tree_unflatten(flat, spec)
    F.cross_entropy(tops[-1][0], y).backward()
    for below, predicted in zip(tops[:-1], predictions, strict=True):
        pairs = [(t, p) for t, p in zip(below, predicted, strict=True) if t.requires_grad]
        if pairs:
            torch.autograd.backward([t for t, _ in pairs], [p.detach() / len(y) for _, p in pairs])
    for predicted, above in zip(predictions, entries, strict=True):
        for p, entry in zip(predicted, above, strict=True):
            ((p - entry.grad * len(y)).square().sum() / len(y)).backward()


def _is_float(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


@pytest.mark.parametrize("release", ["backward", "forward"])
@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_it_equals_the_complete_unlock_by_hand(specimen, release):
    x, y = specimen.batch()
    net = decoupled(specimen, release=release)
    model = specimen.model()
    synthesizers, inputs = (
        copy.deepcopy(list(found.values())) for found in (net.synthesizers, net.synthetic_inputs)
    )
    torch.manual_seed(5)
    train(net, specimen=specimen)
    torch.manual_seed(5)
    train_by_hand(model, synthesizers, inputs, x, y)
    # Sums are taken in another order.
    close = {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(gradients(net.model), gradients(model), **close)
    for found, expected in [
        (net.synthesizers, synthesizers),
        (net.synthetic_inputs, inputs),
    ]:
        pairs = zip(found.values(), expected, strict=True)
        for mine, other in pairs:
            torch.testing.assert_close(gradients(mine), gradients(other), **close)
            assert all(g is not None for g in gradients(mine))


def stages_of(net):
    """The parameters of each stage, bottom first."""
    return [list(stage.parameters()) for stage in net.model.children()]


def gradient_of_stage(net, k):
    net.zero_grad()
    train(net)
    return [p.grad.clone() for p in stages_of(net)[k]]


@pytest.mark.parametrize("signal", [CDNI, LOCAL, CRITIC], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("specimen", [MLP, BATCH_NORM], ids=lambda s: s.name)
def test_an_update_depends_on_input_labels_and_own_state_alone(specimen, signal):
    """Whatever the other stages' weights are, synthesizers and synthetic inputs included."""
    net = decoupled(specimen, signal=signal)
    num_stages = net.num_stages
    assert num_stages >= 3
    for k in range(num_stages):
        before = gradient_of_stage(net, k)
        other = copy.deepcopy(net)
        interfaces = list(other.ordered_interfaces())
        own = [*stages_of(other)[k]]
        own += interfaces[k].synthesizers.parameters() if k < len(interfaces) else []
        own += interfaces[k - 1].synthetic_inputs.parameters() if k else []
        with torch.no_grad():
            for p in set(other.parameters()) - set(own):
                p.normal_()
        assert any(g.any() for g in before)
        torch.testing.assert_close(gradient_of_stage(other, k), before, rtol=0, atol=0)


def test_without_synthetic_inputs_an_update_depends_on_the_stages_below():
    net = decoupled(synthetic_input=None)
    before = gradient_of_stage(net, 2)
    with torch.no_grad():
        stages_of(net)[0][0].normal_()
    assert not torch.equal(gradient_of_stage(net, 2)[0], before[0])


@pytest.mark.parametrize("signal", [CDNI, LOCAL, CRITIC, sg.NoSignal()], ids=str)
def test_the_stage_above_runs_on_the_prediction(signal):
    x, y = MLP.batch()
    net = decoupled(signal=signal, synthetic_input=sg.SyntheticInput(model="linear"))
    came = {}
    net.model.b.register_forward_pre_hook(lambda m, args: came.update(b=args[0].detach()))
    with torch.no_grad():
        predicted, true = net.synthetic_inputs["a"][0](x), net.model.a(x)
    net(x, condition=y)
    torch.testing.assert_close(came["b"], predicted, rtol=0, atol=0)
    for model in (net.eval(), net.train()):
        with torch.no_grad():
            model(x)
        torch.testing.assert_close(came["b"], true, rtol=0, atol=0)


def test_nothing_flows_into_the_network_input():
    x, y = MLP.batch()
    x.requires_grad_()
    net = decoupled(signal=sg.NoSignal())
    F.cross_entropy(net(x, condition=y), y).backward()
    assert x.grad is None


def test_only_some_interfaces():
    net = decoupled(synthetic_input={"b": sg.SyntheticInput()})
    assert list(net.synthetic_inputs) == ["b"]
    train(net)
    assert all(g is not None and g.any() for g in gradients(net))
    # The second stage is still fed by the first one.
    before = gradient_of_stage(net, 1)
    with torch.no_grad():
        stages_of(net)[0][0].normal_()
    assert not torch.equal(gradient_of_stage(net, 1)[0], before[0])


@pytest.mark.parametrize("release", ["backward", "forward"])
@pytest.mark.parametrize("signal", [CDNI, LOCAL, CRITIC], ids=lambda s: type(s).__name__)
def test_it_is_fitted_in_the_steps_of_the_stage_above(signal, release):
    net = decoupled(signal=signal, update_probability=0.5, seed=2, release=release)
    seen = set()
    for number in range(12):
        net.zero_grad()
        train(net, number)
        for k, (stage, model) in enumerate(
            zip(stages_of(net)[1:], net.synthetic_inputs.values(), strict=True), 1
        ):
            assert all((p.grad is not None) == net.updated[k] for p in stage)
            assert all((g is not None) == net.updated[k] for g in gradients(model))
        seen.add(net.updated)
    assert len(seen) > 6


def test_the_state_reloads():
    net, other = decoupled(CONV), decoupled(CONV)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1)
    train(net, specimen=CONV)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for each in (net, other):
        each.zero_grad()
        train(each, 1, CONV)
    torch.testing.assert_close(gradients(other), gradients(net), rtol=0, atol=0)


def test_its_parameters_are_with_the_synthesizers():
    net = decoupled()
    own = {p for m in net.synthetic_inputs.values() for p in m.parameters()}
    assert own
    assert own <= set(net.synthesizer_parameters())
    assert not own & set(net.stage_parameters())


def test_the_report_has_its_errors():
    x, _ = MLP.batch()
    net = decoupled(report_every=1)
    with torch.no_grad():
        guess = net.synthetic_inputs["a"][0](x)
        true = net.model.a(x)
    train(net)
    found = net.report()["a"]
    loss = (guess - true).square().sum(1).mean()
    torch.testing.assert_close(found["input_regression_loss"], loss)
    error = (guess - true).norm() / true.norm()
    torch.testing.assert_close(found["input_relative_error"], error)
    assert "cosine" in found, "the synthesizer's measures stand beside it"
    net = decoupled(report_every=1, signal=sg.NoSignal())
    train(net)
    # Only the top stage is updated then.
    assert set(net.report()) == {"c"}
    assert set(net.report()["c"]) == {"input_regression_loss", "input_relative_error"}


def test_it_learns():
    """The stages, each trained on predictions, work together on the true activations."""
    torch.manual_seed(0)
    net = sg.decouple(
        MLP.make(),
        list(MLP.at),
        example_inputs=torch.randn(4, 6),
        signal=CDNI,
        synthetic_input=sg.SyntheticInput(),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)

    def batch():
        x = torch.randn(64, 6)
        return x, x[:, :CLASSES].argmax(1)

    def loss():
        x, y = batch()
        with torch.no_grad():
            return float(F.cross_entropy(net.eval()(x), y))

    before = loss()
    for _ in range(300):
        x, y = batch()
        F.cross_entropy(net.train()(x, condition=y), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss() < 0.5 * before


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_compiled_stages_train_as_eager_ones():
    nets = [decoupled(update_probability=0.6, seed=1) for _ in range(2)]
    for part in nets[1].model.children():
        part.compile(backend="aot_eager")
    for net in nets:
        for number in range(4):
            train(net, number)
    # A compiler may round differently.
    torch.testing.assert_close(gradients(nets[0]), gradients(nets[1]), rtol=1e-9, atol=1e-12)
    torch._dynamo.reset()


def kinds(module):
    return [type(m) for m in module]


def test_the_default_model_suits_the_shapes():
    shape, dense = torch.Size((3, 8, 8)), torch.Size((10,))
    maps, larger = torch.Size((4, 4, 4)), torch.Size((4, 9, 9))
    assert nn.Conv2d in kinds(synthetic_input.automatic(shape, maps))
    for inputs, activation in [(shape, dense), (dense, dense), (dense, maps), (shape, larger)]:
        model = synthetic_input.automatic(inputs, activation)
        assert nn.Conv2d not in kinds(model)
        assert nn.BatchNorm1d in kinds(model)
        assert model(torch.randn(5, *inputs)).shape == (5, *activation)
    assert kinds(synthetic_input.linear(shape, maps)) == [nn.Flatten, nn.Linear, nn.Unflatten]
    assert synthetic_input.mlp(shape, dense, hidden=7)[1].out_features == 7
    assert synthetic_input.mlp(dense, torch.Size((64, 8, 8)))[1].out_features == 1024


def test_a_model_of_ones_own():
    own = sg.SyntheticInput(model=lambda x, h: nn.Linear(x[-1], h[-1]))
    net = decoupled(synthetic_input=own)
    train(net)
    assert isinstance(net.synthetic_inputs["a"][0], nn.Linear)
    assert all(g is not None and g.any() for g in gradients(net))


@pytest.mark.parametrize(
    "signal", [sg.Backprop(), sg.SyntheticGradient(mix=0.1), sg.SyntheticGradient(mix=1.0)], ids=str
)
def test_a_signal_that_needs_the_gradient_from_above_is_refused(signal):
    with pytest.raises(ConfigError, match=r"'a'.*another point.*mix=0"):
        decoupled(signal=signal)
    # Where that signal's interface hands up the true activation, it works.
    signals = {"a": signal, "b": CDNI, "c": CDNI}
    train(decoupled(signal=signals, synthetic_input={"b": sg.SyntheticInput()}))


def test_what_cannot_work_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"model='deep'.*linear, mlp, conv"):
        sg.SyntheticInput(model="deep")
    with pytest.raises(ConfigError, match=r"\['d'\].*\['a', 'b', 'c'\]"):
        decoupled(synthetic_input={"d": sg.SyntheticInput()})
    with pytest.raises(ConfigError, match=r"'a'.*\(6,\).*\(10,\).*model='mlp'"):
        decoupled(synthetic_input=sg.SyntheticInput(model="conv"))
    with pytest.raises(ConfigError, match=r"'a'.*returns shape \(8, 6\).*\(8, 10\)"):
        decoupled(synthetic_input=sg.SyntheticInput(model=lambda x, h: nn.Identity()))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.top = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x, extra):
        return self.top(self.a(x) + extra)


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.top = nn.Embedding(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.top(self.a(x))


class Merged(nn.Module):
    """Pairs of examples become one."""

    def __init__(self):
        super().__init__()
        self.a, self.top = nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.top(self.a(x.reshape(-1, 8)))


@pytest.mark.parametrize(
    ("make", "inputs", "problem"),
    [
        (Two, (torch.zeros(4, 4), torch.zeros(4, 4)), "hold 2 floating-point tensors"),
        (Embedded, torch.zeros(4, dtype=torch.int64), "hold 0 floating-point tensors"),
        (Merged, torch.zeros(4, 4), r"input has shape \(4, 4\) and the activation \(2, 4\)"),
    ],
)
def test_a_network_without_one_input_an_example_is_refused(make, inputs, problem):
    options = {"synthetic_input": sg.SyntheticInput(), "example_inputs": inputs}
    with pytest.raises(ConfigError, match=problem):
        sg.decouple(make(), ["a"], **options)


def test_other_inputs_than_the_example_are_refused():
    torch.manual_seed(0)
    net = sg.decouple(
        Two(),
        ["a"],
        example_inputs={"x": torch.randn(4, 4), "extra": 1},
        synthetic_input=sg.SyntheticInput(),
    )
    net(torch.randn(4, 4), extra=1)
    with pytest.raises(InterfaceError, match="hold 2 floating-point tensors"):
        net(torch.randn(4, 4), extra=torch.ones(4, 4))
    places = sg.decouple(
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)),
        ["0"],
        example_inputs=torch.randn(4, 5, 4),
        synthetic_input=sg.SyntheticInput(model=lambda x, h: FirstPlaces(4, 4)),
    )
    with pytest.raises(InterfaceError, match=r"'0' has shape \(4, 5, 4\).*\(4, 6, 4\)"):
        places(torch.randn(4, 6, 4))


class FirstPlaces(nn.Linear):
    def forward(self, x):
        return super().forward(x[:, :5])


def test_an_engine_refuses_it():
    x, _ = MLP.batch()
    model = nn.Sequential(*MLP.model().children())
    net = sg.decouple(model, "every", example_inputs=x, synthetic_input=sg.SyntheticInput())
    with pytest.raises(UnsupportedModelError, match=r"at 0, 1, 2.*sg\.decouple"):
        sg.Chain.from_decoupled(net)


def test_recoupled_it_is_the_plain_model():
    x, _ = MLP.batch()
    net = decoupled()
    torch.testing.assert_close(net.recouple()(x), MLP.model()(x), rtol=0, atol=0)
    assert net(x).shape == (BATCH, CLASSES)
