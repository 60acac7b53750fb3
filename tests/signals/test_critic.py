"""A critic equals stages trained by the gradient of a predicted loss, written out by hand."""

import copy
import io
from dataclasses import dataclass
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

import synthgrad as sg
from synthgrad.errors import ConditionError, ConfigError, EngineError, InterfaceError
from synthgrad.synthesizers.critics import Standardize
from zoo import BATCH, CLASSES, ZOO, Mlp

MLP = ZOO[0]
assert MLP.make is Mlp
LOSS = partial(F.cross_entropy, reduction="none")
CRITIC = sg.Critic(loss=LOSS, condition=sg.OneHot(CLASSES), scale=0.7)


def decoupled(specimen=MLP, **options):
    x, _ = specimen.batch()
    torch.manual_seed(3)
    options = {"signal": CRITIC, "at": list(specimen.at)} | options
    net = sg.decouple(specimen.model(), example_inputs=x, **options)
    for p in net.synthesizer_parameters():
        nn.init.normal_(p, std=0.3)
    return net


def gradients(module):
    return [p.grad for p in module.parameters()]


def train(net, number=0, specimen=MLP, **options):
    x, y = specimen.batch(number)
    loss = F.cross_entropy(net(x, condition=y, **options), y)
    (loss * options.get("loss_scale", 1.0)).backward()


def train_by_hand(model, critics, x, y, *, mean=True, scale=1.0, updated=None):
    """The stages one by one, each with its critics; nothing here is the library's."""
    parts = model.parts()
    updated = [True] * len(parts) if updated is None else updated
    code, weight = F.one_hot(y, CLASSES).double(), 1 / len(y) if mean else 1.0
    tops = []
    for part, trained in zip(parts, updated, strict=True):
        with torch.set_grad_enabled(trained):
            flat, spec = tree_flatten(part(x))
        tops.append([h for h in flat if isinstance(h, torch.Tensor) and h.is_floating_point()])
        up = [h.detach().clone() if isinstance(h, torch.Tensor) else h for h in flat]
        x = tree_unflatten(up, spec)
    output = tops[-1][0]
    losses = LOSS(output.detach(), y)
    if updated[-1]:
        F.cross_entropy(output, y, reduction="mean" if mean else "sum").backward()
    for modules, below, trained in zip(critics, tops, updated, strict=False):
        for module, h in zip(modules, below, strict=True) if trained else ():
            leaf = h.detach().requires_grad_()
            values = module(leaf, code)
            (slope,) = torch.autograd.grad(values.sum(), leaf, retain_graph=True)
            if h.requires_grad:
                h.backward(slope * scale * weight, retain_graph=True)
            (values - losses).square().mean().backward()


@pytest.mark.parametrize("release", ["backward", "forward"])
@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_it_equals_critics_by_hand(specimen, release):
    x, y = specimen.batch()
    net = decoupled(specimen, release=release)
    model, critics = specimen.model(), copy.deepcopy(list(net.synthesizers.values()))
    torch.manual_seed(5)
    train(net, specimen=specimen)
    torch.manual_seed(5)
    train_by_hand(model, critics, x, y, scale=0.7)
    # The losses come out of another kernel than their mean, and sums are taken in another order.
    close = {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(gradients(net.model), gradients(model), **close)
    torch.testing.assert_close(
        [gradients(c) for c in net.synthesizers.values()], [gradients(c) for c in critics], **close
    )
    assert any(g is not None and g.any() for g in gradients(model)[:2]) or "Frozen" in specimen.name


def test_a_sum_needs_no_batch_size():
    x, y = MLP.batch()
    net = decoupled(reduction="sum")
    model, critics = MLP.model(), copy.deepcopy(list(net.synthesizers.values()))
    F.cross_entropy(net(x, condition=y), y, reduction="sum").backward()
    train_by_hand(model, critics, x, y, scale=0.7, mean=False)
    torch.testing.assert_close(gradients(net.model), gradients(model), rtol=1e-10, atol=1e-13)


def linear_above():
    """A net whose stages above the interface are linear, with the squared error to one-hot labels.

    The loss is then a quadratic form of activation and labels.
    """
    torch.manual_seed(0)
    bottom = nn.Sequential(nn.Linear(6, 4), nn.Tanh())
    model = nn.Sequential(bottom, nn.Linear(4, 5), nn.Linear(5, CLASSES)).double()

    def loss(output, labels):
        return (output - F.one_hot(labels, CLASSES)).square().sum(1)

    signal = sg.Critic(loss=loss, condition=sg.OneHot(CLASSES), critic="quadratic")
    net = sg.decouple(model, ["0"], example_inputs=MLP.batch()[0], signal=signal)
    return net, copy.deepcopy(model), loss


def equals_backprop(net, model, loss):
    x, y = MLP.batch()
    loss(net(x, condition=y), y).mean().backward()
    loss(model(x), y).mean().backward()
    # The same polynomial, its terms taken in another order.
    torch.testing.assert_close(gradients(net.model), gradients(model), rtol=1e-9, atol=1e-11)
    assert gradients(model[0])[0].abs().max() > 1e-3


def test_a_quadratic_critic_set_by_hand_is_exact():
    net, model, loss = linear_above()
    with torch.no_grad():
        weight = model[2].weight @ model[1].weight
        bias = model[2].weight @ model[1].bias + model[2].bias
        to_error = torch.cat([weight, -torch.eye(CLASSES)], dim=1)  # output - labels = to_error z
        critic = net.synthesizers["0"][0]
        critic.form.weight.copy_(to_error.T @ to_error)
        critic.last.weight.copy_(2 * bias @ to_error)
        critic.last.bias.copy_(bias @ bias)
    equals_backprop(net, model, loss)


def test_a_fitted_quadratic_critic_is_exact():
    net, model, loss = linear_above()
    h = torch.randn(300, 4, dtype=torch.float64)
    y = torch.randint(0, CLASSES, (300,))
    z = torch.cat([h, F.one_hot(y, CLASSES)], dim=1)
    # V is linear in its weights, so least squares finds them in one step.
    products = (z[:, :, None] * z[:, None, :]).flatten(1)
    features = torch.cat([products, z, torch.ones(300, 1)], dim=1)
    with torch.no_grad():
        losses = loss(model[2](model[1](h)), y)
        found = torch.linalg.pinv(features) @ losses
        critic = net.synthesizers["0"][0]
        critic.form.weight.copy_(found[:49].reshape(7, 7))
        critic.last.weight.copy_(found[49:56][None])
        critic.last.bias.copy_(found[56:])
    equals_backprop(net, model, loss)


def test_the_fit_finds_the_loss():
    """The regression gradients lead to the quadratic, and its slope becomes the true one."""
    net, _, loss = linear_above()
    optimizer = torch.optim.LBFGS(net.synthesizer_parameters(), max_iter=300)
    batches = [MLP.batch(n) for n in range(20)]
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))

    def closure():
        optimizer.zero_grad()
        loss(net(x, condition=y), y).mean().backward()
        verdict = net.synthesizers["0"][0](net.model[0](x), F.one_hot(y, CLASSES).double())
        return (verdict - loss(net.model(x), y)).square().mean()

    before = float(closure().detach())
    for _ in range(5):
        optimizer.step(closure)
    assert float(closure().detach()) < 1e-6 * before


@pytest.mark.parametrize("critic", ["auto", "quadratic"])
@pytest.mark.parametrize("specimen", ZOO[:4], ids=lambda s: s.name)
def test_an_untrained_critic_hands_down_exactly_zero_and_learns(specimen, critic):
    x, y = specimen.batch()
    signal = sg.Critic(loss=LOSS, condition=sg.OneHot(CLASSES), critic=critic)
    net = sg.decouple(specimen.model(), list(specimen.at), example_inputs=x, signal=signal)
    F.cross_entropy(net(x, condition=y), y).backward()
    assert not any(g.any() for g in gradients(net.model.a))
    assert all(g.any() for s in net.synthesizers.values() for g in gradients(s[0])[-2:])


def test_no_stage_computes_the_gradient_of_its_input():
    x, y = MLP.batch()
    net = decoupled()
    came = {}
    for name in ("b", "c", "top"):
        net.model.get_submodule(name).register_forward_pre_hook(
            lambda m, args, name=name: came.update({name: args[0].requires_grad})
        )
    net(x, condition=y)
    assert came == {"b": False, "c": False, "top": False}


def test_the_fit_leaks_into_no_stage():
    """Without the critics' own loss the stages' gradients are the same, bit for bit."""
    net, without = decoupled(), decoupled()
    for p in without.synthesizer_parameters():
        p.requires_grad_(False)
    train(net)
    train(without)
    torch.testing.assert_close(gradients(net.model), gradients(without.model), rtol=0, atol=0)
    assert all(p.grad is None for p in without.synthesizer_parameters())


def test_the_loss_is_asked_once_a_step_and_sees_no_graph():
    calls = []

    def loss(output, labels):
        calls.append(output.requires_grad or torch.is_grad_enabled())
        return LOSS(output, labels)

    train(decoupled(signal=sg.Critic(loss=loss)))
    assert calls == [False]


@pytest.mark.parametrize("release", ["backward", "forward"])
def test_a_skipped_stage_and_its_critic_stay_untouched(release):
    net = decoupled(update_probability=0.5, seed=2, release=release)
    seen = set()
    for number in range(12):
        x, y = MLP.batch(number)
        net.zero_grad()
        model, critics = copy.deepcopy(net.model), copy.deepcopy(list(net.synthesizers.values()))
        train(net, number)
        by_hand = MLP.model()
        by_hand.load_state_dict(model.state_dict())
        train_by_hand(by_hand, critics, x, y, scale=0.7, updated=net.updated)
        torch.testing.assert_close(gradients(net.model), gradients(by_hand), rtol=1e-9, atol=1e-12)
        for k, critic in enumerate(net.synthesizers.values()):
            assert all((g is not None) == net.updated[k] for g in gradients(critic))
        seen.add(net.updated[-1])
    assert seen == {True, False}, "the top stage should have been skipped, and updated"


def test_a_saved_run_goes_on_exactly():
    def steps(net, optimizer, numbers):
        for number in numbers:
            train(net, number)
            optimizer.step()
            optimizer.zero_grad()

    whole, first, second = (decoupled(update_probability=0.7, seed=3) for _ in range(3))
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.05) for net in (whole, first, second)]
    steps(whole, optimizers[0], range(8))
    steps(first, optimizers[1], range(4))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    steps(second, optimizers[2], range(4, 8))
    torch.testing.assert_close(second.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_it_trains_the_stages_below():
    """On fresh batches, which the top stage alone could not learn as well."""

    def last_loss(signal):
        torch.manual_seed(0)
        net = sg.decouple(Mlp(), list(MLP.at), example_inputs=torch.randn(4, 6), signal=signal)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(250):
            x = torch.randn(64, 6)
            y = x[:, :CLASSES].argmax(1)
            loss = F.cross_entropy(net(x, condition=y), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return float(loss.detach())

    learned = last_loss(sg.Critic(loss=LOSS, condition=sg.OneHot(CLASSES)))
    assert learned < 0.5 * last_loss(sg.NoSignal())


def test_activations_are_standardized_as_constants():
    """By the mean and variance of what was seen, the newest batch included."""
    net = decoupled()
    critic = net.synthesizers["a"][0]
    seen = []
    net.model.a.register_forward_hook(lambda m, args, out: seen.append(out.detach()))
    for number in range(3):
        train(net, number)
    standard = critic.hidden[0]
    for found, of_batch in [
        (standard.mean, lambda h: h.mean(0)),
        (standard.variance, lambda h: h.var(0, correction=0)),
    ]:
        torch.testing.assert_close(found, torch.stack([of_batch(h) for h in seen]).mean(0))
    for _ in range(20):
        standard(seen[0])
    before = standard.mean.clone()
    standard(seen[1])
    torch.testing.assert_close(standard.mean, 0.9 * before + 0.1 * seen[1].mean(0))
    before = standard.mean.clone()
    h = standard.eval()(seen[2])
    assert torch.equal(standard.mean, before)
    expected = (seen[2] - before) / (standard.variance + 1e-5).sqrt()
    torch.testing.assert_close(h, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_statistics_are_in_single_precision_in_any_model(dtype, after):
    """Counted in bfloat16, batches would stop at 256; squared in half precision, 300 overflows."""
    x = torch.randn(8, 6)
    model, signal = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)), sg.Critic(loss=LOSS)
    if after:
        net = sg.decouple(model, ["0"], example_inputs=x, signal=signal).to(dtype)
    else:
        net = sg.decouple(model.to(dtype), ["0"], example_inputs=x.to(dtype), signal=signal)
    critic = net.synthesizers["0"][0]
    standard = critic.hidden[0]
    standard.num_batches.fill_(256)
    standard.mean.fill_(1.0)
    h = (500 + 300 * torch.randn(8, 6)).to(dtype)
    assert critic(h, None).dtype is dtype
    assert {b.dtype for b in standard.buffers()} == {torch.float32}
    assert float(standard.num_batches) == 257
    torch.testing.assert_close(standard.mean, 0.9 + 0.1 * h.float().mean(0))
    expected = 0.9 + 0.1 * h.float().var(0, correction=0)
    torch.testing.assert_close(standard.variance, expected)


def test_statistics_move_and_widen_with_the_model():
    standard = Standardize(3)
    assert standard.to(torch.float64).mean.dtype is torch.float64
    assert standard.to("meta").mean.device.type == "meta"


def test_the_report_measures_the_predicted_losses():
    x, y = MLP.batch()
    net = decoupled(report_every=1)
    train(net)
    found = net.report()["a"]
    with torch.no_grad():
        h, code = net.model.a(x), F.one_hot(y, CLASSES).double()
        values, losses = net.synthesizers["a"][0](h, code), LOSS(net.model(x), y)
    torch.testing.assert_close(found["regression_loss"], (values - losses).square().mean())
    torch.testing.assert_close(found["relative_error"], (values - losses).norm() / losses.norm())


def test_what_it_offers_a_diagnostic():
    """`predict` gives the per-example gradient, and `emit` the signal, also under no_grad."""
    x, y = MLP.batch()
    net = decoupled()
    h, code = net.model.a(x).detach().requires_grad_(), F.one_hot(y, CLASSES).double()
    critic = net.synthesizers["a"][0]
    critic(h, code).sum().backward()
    with torch.no_grad():
        found = CRITIC.predict(critic, h, code)
    torch.testing.assert_close(found, h.grad, rtol=0, atol=0)
    assert not found.requires_grad


def test_it_stands_beside_other_signals():
    for below in (sg.SyntheticGradient(), sg.Backprop(), sg.LocalLoss(num_classes=CLASSES)):
        net = decoupled(signal={"a": below, "b": CRITIC, "c": sg.SyntheticGradient()})
        train(net)
        assert all(g is not None and g.any() for g in gradients(net))


def test_second_backward_is_refused():
    x, y = MLP.batch()
    loss = F.cross_entropy(decoupled()(x, condition=y), y)
    loss.backward(retain_graph=True)
    with pytest.raises(InterfaceError, match="second time"):
        loss.backward()


def test_a_critic_of_ones_own():
    class Own(nn.Module):
        def __init__(self, shape, condition_size):
            super().__init__()
            self.layer = nn.Linear(shape[-1] + condition_size, 5)

        def forward(self, h, code):
            return self.layer(torch.cat([h, code], 1)).square().sum(1)

    net = decoupled(signal=sg.Critic(loss=LOSS, condition=sg.OneHot(CLASSES), critic=Own))
    train(net)
    assert all(g is not None and g.any() for g in gradients(net))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_compiled_stages_train_as_eager_ones():
    nets = [decoupled(update_probability=0.6, seed=1) for _ in range(2)]
    for part in nets[1].model.children():
        part.compile(backend="aot_eager")
    for net in nets:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for number in range(5):
            train(net, number)
            optimizer.step()
            optimizer.zero_grad()
    # A compiler may round differently.
    torch.testing.assert_close(
        list(nets[0].parameters()), list(nets[1].parameters()), rtol=1e-9, atol=1e-12
    )
    torch._dynamo.reset()


@pytest.mark.parametrize("order", [[3, 2, 1, 0], [1, 0, 3, 2]])
def test_the_sequential_engine_equals_the_ordinary_loop(order):
    x, _ = MLP.batch()
    sgd = partial(torch.optim.SGD, lr=0.05)
    net = sg.decouple(
        nn.Sequential(*MLP.model().children()), "every", example_inputs=x, signal=CRITIC
    )
    for p in net.synthesizer_parameters():
        nn.init.normal_(p, std=0.3)
    twin = copy.deepcopy(net)
    chain = sg.Chain.from_decoupled(twin)
    twin.recouple()
    engine = sg.engines.Sequential(
        chain, loss=F.cross_entropy, optimizer=sgd, synthesizer_optimizer=sgd, order=order
    )
    optimizer = sgd(net.parameters())
    for number in range(4):
        train(net, number)
        optimizer.step()
        optimizer.zero_grad()
        engine.step(*MLP.batch(number))
    torch.testing.assert_close(list(twin.parameters()), list(net.parameters()), rtol=0, atol=0)


def test_the_wavefront_engine_refuses_it():
    x, _ = MLP.batch()
    chain = sg.Chain.from_sequential(
        nn.Sequential(*MLP.model().children()), example_inputs=x, signal=CRITIC
    )
    sgd = partial(torch.optim.SGD, lr=0.05)
    with pytest.raises(EngineError, match=r"stage 0.*sg\.decouple"):
        sg.engines.Wavefront(chain, loss=F.cross_entropy, optimizer=sgd, synthesizer_optimizer=sgd)


def test_an_engine_refuses_a_delay():
    x, _ = MLP.batch()
    layers = nn.Sequential(*MLP.model().children())
    chain = sg.Chain.from_sequential(layers, example_inputs=x, signal=CRITIC)
    sgd = partial(torch.optim.SGD, lr=0.05)
    options = {"loss": F.cross_entropy, "optimizer": sgd, "synthesizer_optimizer": sgd}
    sg.engines.Sequential(chain, target_delays=0, **options)
    with pytest.raises(ConfigError, match=r"target_delays=\[0, 2, 0\].*only a delay of 0"):
        sg.engines.Sequential(chain, target_delays=[0, 2, 0], **options)


@dataclass
class Unhashable:
    """A loss with settings: a dataclass that compares by value has no hash."""

    weight: float = 1.0

    def __call__(self, output, labels):
        return self.weight * LOSS(output, labels)


def test_a_loss_need_not_be_hashable():
    one, other = (
        decoupled(signal=sg.Critic(loss=loss, condition=sg.OneHot(CLASSES)))
        for loss in (LOSS, Unhashable())
    )
    train(one)
    train(other)
    torch.testing.assert_close(gradients(other), gradients(one), rtol=0, atol=0)
    mixed = {"a": sg.Critic(loss=Unhashable()), "b": sg.FeedbackAlignment(), "c": CRITIC}
    with pytest.raises(ConfigError, match="the same signal"):
        decoupled(signal=mixed)


def test_what_cannot_work_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"loss=None.*reduction='none'"):
        sg.Critic()
    with pytest.raises(ConfigError, match="loss='cross_entropy'"):
        sg.Critic(loss="cross_entropy")
    with pytest.raises(ConfigError, match=r"critic='linear'.*quadratic"):
        sg.Critic(loss=LOSS, critic="linear")
    with pytest.raises(ConfigError, match="scale=0 must be positive"):
        sg.Critic(loss=LOSS, scale=0)
    with pytest.raises(ConfigError, match=r"'a'.*\(10,\).*critic='mlp'"):
        decoupled(signal=sg.Critic(loss=LOSS, critic="conv"))
    with pytest.raises(ConfigError, match="without a hidden layer is linear"):
        decoupled(
            signal=sg.Critic(loss=LOSS, critic=partial(sg.synthesizers.mlp_critic, hidden=()))
        )
    with pytest.raises(ConfigError, match="kernel_size=2"):
        sg.synthesizers.conv_critic(torch.Size((2, 5, 5)), 0, kernel_size=2)


def test_what_cannot_work_is_refused_in_the_forward_pass():
    x, y = MLP.batch()
    with pytest.raises(ConditionError, match="'a'"):
        decoupled()(x)
    unconditioned = decoupled(signal=sg.Critic(loss=LOSS))
    with pytest.raises(ConditionError, match=r"no condition: .*call net"):
        unconditioned(x)
    own = decoupled(signal=sg.Critic(loss=lambda output, labels: output.nonsense))
    with pytest.raises(ConditionError, match=r"AttributeError: .*'nonsense'.*if the loss needs"):
        own(x)
    train(unconditioned)  # the failed pass left nothing behind
    for loss, problem in [
        (F.cross_entropy, r"shape \(\).*reduction='none'"),
        (lambda output, labels: LOSS(output, labels)[1:], f"losses of {BATCH} .* {BATCH - 1}"),
    ]:
        with pytest.raises(InterfaceError, match=problem):
            decoupled(signal=sg.Critic(loss=loss))(x, condition=y)
    with pytest.raises(InterfaceError, match=rf"\({BATCH}, 1\).*one loss an example"):
        decoupled(signal=sg.Critic(loss=LOSS, critic=lambda s, c: Wide(s[0])))(x, condition=y)
    with pytest.raises(TypeError):  # what a loss raises with a condition is the user's own
        decoupled(signal=sg.Critic(loss=lambda output: output))(x, condition=y)


class Wide(nn.Linear):
    def __init__(self, features):
        super().__init__(features, 1)

    def forward(self, h, code):
        return super().forward(h)
