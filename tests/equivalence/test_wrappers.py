"""Everything that people put around a model: a decoupled one trains under it as it should."""

import copy
import threading
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

import synthgrad as sg
from synthgrad.errors import InterfaceError
from zoo import CLASSES, ZOO

CDNI = sg.SyntheticGradient(condition=sg.OneHot(CLASSES))
CRITIC = sg.Critic(loss=partial(F.cross_entropy, reduction="none"), condition=sg.OneHot(CLASSES))
OPTIONS = {
    "CDNI": {"signal": CDNI},
    "local": {"signal": sg.LocalLoss(num_classes=CLASSES)},
    "critic": {"signal": CRITIC},
    "DFA": {"signal": sg.DirectFeedbackAlignment()},
    "synthetic input": {"signal": CDNI, "synthetic_input": sg.SyntheticInput()},
}
# The critic and the synthetic input that are the defaults keep statistics of each batch.
WITHOUT_STATISTICS = OPTIONS | {
    "critic": {"signal": replace(CRITIC, critic="quadratic")},
    "synthetic input": {"signal": CDNI, "synthetic_input": sg.SyntheticInput(model="linear")},
}
MLP, BATCH_NORM = ZOO[0], ZOO[1]
RESIDUALS = next(s for s in ZOO if s.name == "Residuals")
EXACT = {"rtol": 0, "atol": 0}


def decoupled(specimen=MLP, model=None, **options):
    options = {"signal": CDNI, **options}
    model = specimen.model() if model is None else model
    net = sg.decouple(model, list(specimen.at), example_inputs=specimen.batch()[0], **options)
    source = torch.Generator().manual_seed(5)
    for p in net.synthesizer_parameters():
        nn.init.normal_(p, std=0.3, generator=source)
    return net


def loss_of(net, number=0, specimen=MLP):
    x, y = specimen.batch(number)
    torch.manual_seed(number)
    return F.cross_entropy(net(x, condition=y), y)


def optimizer_of(net, kind=torch.optim.Adam, **options):
    return kind(net.parameters(), lr=0.02, **options)


def train(net, steps=4, optimizer=None, specimen=MLP):
    optimizer = optimizer or optimizer_of(net)
    for number in range(steps):
        loss_of(net, number, specimen).backward()
        optimizer.step()
        optimizer.zero_grad()
    return net


def gradients(net):
    return [None if p.grad is None else p.grad.clone() for p in net.parameters()]


def assert_equal_state(a, b):
    torch.testing.assert_close(a.state_dict(), b.state_dict(), **EXACT)


# The loop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_zero_grad_at_any_point_of_the_loop(options):
    expected = train(decoupled(**options))
    for place in range(3):
        net = decoupled(**options)
        optimizer = optimizer_of(net)
        for number in range(4):
            if place == 0:
                optimizer.zero_grad()
            loss = loss_of(net, number)
            if place == 1:
                optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if place == 2:
                optimizer.zero_grad(set_to_none=False)
        optimizer.zero_grad()
        assert_equal_state(net, expected)


RELEASED = {"released": {"release": "forward"}}


@pytest.mark.parametrize(
    "options", (WITHOUT_STATISTICS | RELEASED).values(), ids=WITHOUT_STATISTICS | RELEASED
)
def test_gradients_accumulate(options):
    net = decoupled(**options)
    single = []
    for number in range(3):
        net.zero_grad()
        loss_of(net, number).backward()
        single.append(gradients(net))
    net.zero_grad()
    for number in range(3):
        loss_of(net, number).backward()
    sums = [sum(parts[1:], parts[0].clone()) for parts in zip(*single, strict=True)]
    torch.testing.assert_close(gradients(net), sums, **EXACT)


@pytest.mark.parametrize("options", WITHOUT_STATISTICS.values(), ids=WITHOUT_STATISTICS)
def test_chunks_with_their_share_as_loss_scale_equal_the_whole_batch(options):
    x, y = MLP.batch()
    nets = []
    for count in (1, 4):
        torch.manual_seed(1)
        net = decoupled(accumulate=count, **options)
        for chunk, labels in zip(x.chunk(count), y.chunk(count), strict=True):
            loss = F.cross_entropy(net(chunk, condition=labels, loss_scale=1 / count), labels)
            (loss / count).backward()
        nets.append(net)
    # The same terms, added up in another order.
    torch.testing.assert_close(gradients(nets[1]), gradients(nets[0]), rtol=1e-9, atol=1e-12)


def test_gradients_can_be_clipped():
    net = decoupled()
    loss_of(net).backward()
    before = gradients(net)
    norm = nn.utils.clip_grad_norm_(net.parameters(), 0.1)
    torch.testing.assert_close(
        gradients(net), [g * (0.1 / (norm + 1e-6)) for g in before], rtol=1e-12, atol=0
    )
    assert norm > 0.1


def test_schedulers_step():
    net, group_rates = decoupled(), []
    groups = [{"params": net.stage_parameters()}, {"params": net.synthesizer_parameters(), "lr": 1}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    for number in range(2):
        group_rates.append([g["lr"] for g in optimizer.param_groups])
        loss_of(net, number).backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    assert group_rates == [[0.1, 1], [0.05, 0.5]]


def test_the_two_groups_are_all_parameters_and_disjoint():
    net = decoupled()
    stages, synthesizers = set(net.stage_parameters()), set(net.synthesizer_parameters())
    assert stages | synthesizers == set(net.parameters())
    assert not stages & synthesizers
    assert stages == set(net.model.parameters())


# Precision --------------------------------------------------------------------------------------


MIXED = {"mixed": {"signal": sg.SyntheticGradient(mix=0.4, scale=0.5)}}


@pytest.mark.parametrize("options", (OPTIONS | MIXED).values(), ids=OPTIONS | MIXED)
@pytest.mark.parametrize("as_tensor", [False, True], ids=["float", "tensor"])
def test_gradients_with_a_loss_scale_are_those_without_times_the_scale(options, as_tensor):
    net, scale = decoupled(**options), 1024.0  # a power of two: exact
    loss_of(net).backward()
    expected = [g * scale for g in gradients(net)]
    net.zero_grad()
    x, y = MLP.batch()
    given = torch.tensor(scale, dtype=torch.float64) if as_tensor else scale
    loss = F.cross_entropy(net(x, condition=y, loss_scale=given), y)
    (loss * scale).backward()
    torch.testing.assert_close(gradients(net), expected, **EXACT)


def test_report_does_not_depend_on_the_loss_scale():
    net = decoupled(report_every=1)
    loss_of(net).backward()
    expected = net.report()
    x, y = MLP.batch()
    (F.cross_entropy(net(x, condition=y, loss_scale=64.0), y) * 64.0).backward()
    torch.testing.assert_close(net.report(), expected, **EXACT)


def test_a_grad_scaler_trains_as_no_scaler():
    expected = train(decoupled())
    net = decoupled()
    optimizer = optimizer_of(net)
    # Growth at every step, so that the scale is another one each time.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1)
    for number in range(4):
        x, y = MLP.batch(number)
        loss = F.cross_entropy(net(x, condition=y, loss_scale=scaler.get_scale()), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert scaler.get_scale() == 2.0**14
    assert_equal_state(net, expected)


def test_an_overflow_skips_the_step_of_stages_and_synthesizers():
    net = decoupled()
    optimizer = optimizer_of(net)
    before = copy.deepcopy(list(net.parameters()))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    x, y = MLP.batch()
    loss = F.cross_entropy(net(x, condition=y, loss_scale=scaler.get_scale()), y)
    scaler.scale(loss * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    torch.testing.assert_close(list(net.parameters()), before, **EXACT)
    assert scaler.get_scale() == 2.0**9


def single_precision(specimen=BATCH_NORM, **options):
    x, y = specimen.batch()
    x = x.float()
    torch.manual_seed(3)
    model = specimen.model().float()
    net = sg.decouple(model, list(specimen.at), example_inputs=x, signal=CDNI, **options)
    for p in net.synthesizer_parameters():
        nn.init.normal_(p, std=0.3)
    return net, x, y


@pytest.mark.parametrize("release", ["backward", "forward"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype, release):
    """Forward under autocast, gradients in the parameters' dtype and close to single precision."""
    net, x, y = single_precision(release=release)
    F.cross_entropy(net(x, condition=y), y).backward()
    expected = gradients(net)
    net.zero_grad()
    kinds = []
    net.model.a.register_forward_pre_hook(
        lambda m, args: kinds.append(torch.is_autocast_enabled("cpu"))
    )
    with torch.autocast("cpu", dtype=dtype):
        output = net(x, condition=y)
        loss = F.cross_entropy(output.float(), y)
    loss.backward()
    assert output.dtype is dtype
    assert kinds == [True]
    for found, exact in zip(gradients(net), expected, strict=True):
        assert found.dtype is torch.float32
        # bfloat16 keeps 8 bits of a number; batch norm's sums lose a few more.
        torch.testing.assert_close(found, exact, rtol=0.1, atol=0.1 * float(exact.abs().max()))


def test_autocast_with_a_scaler_has_the_gradients_of_the_unscaled_run():
    net, x, y = single_precision()
    found = []
    for scale in (1.0, 2.0**8):
        net.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = F.cross_entropy(net(x, condition=y, loss_scale=scale).float(), y)
        (loss * scale).backward()
        found.append([g / scale for g in gradients(net)])
    # Without a scale some half-precision gradients are subnormal, which is what a scaler is for.
    torch.testing.assert_close(found[1], found[0], rtol=2e-3, atol=2e-6)


# Compilation and checkpoints --------------------------------------------------------------------


@pytest.fixture
def compiler():
    with warnings.catch_warnings():
        # Dynamo looks at `.grad` of activations, and imports modules that torch itself deprecates.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")
        warnings.filterwarnings("ignore", message=".*torch.jit")
        yield torch.compiler
    torch._dynamo.reset()


BACKEND = "aot_eager"


def stages_before(**options):
    model = MLP.model()
    for name in (*MLP.at, "top"):
        setattr(model, name, torch.compile(getattr(model, name), backend=BACKEND))
    net = decoupled(model=model, **options)
    return net, net


def stages_after(**options):
    net = decoupled(**options)
    for name in (*MLP.at, "top"):
        getattr(net.model, name).compile(backend=BACKEND)
    return net, net


def model_alone(**options):
    net = decoupled(**options)
    net.model.compile(backend=BACKEND)
    return net, net


def whole_net(**options):
    net = decoupled(**options)
    net.compile(backend=BACKEND)
    return net, net


def wrapped_net(**options):
    net = decoupled(**options)
    return net, torch.compile(net, backend=BACKEND)


@pytest.mark.parametrize("options", [{}, {"update_probability": 0.6, "seed": 3}], ids=str)
@pytest.mark.parametrize("form", [stages_before, stages_after, model_alone, whole_net, wrapped_net])
def test_torch_compile(form, options, compiler):
    expected = train(decoupled(**options), steps=8)
    net, called = form(**options)
    train(called, steps=8, optimizer=optimizer_of(net))
    for a, b in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)  # a compiler may fuse


def test_stages_are_compiled_and_interfaces_are_not(compiler):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    net = decoupled(RESIDUALS)
    for name in RESIDUALS.at:
        getattr(net.model, name).compile(backend=backend)
    train(net, steps=3, specimen=RESIDUALS)
    assert graphs
    assert not any("synthgrad" in str(node.stack_trace) for g in graphs for node in g.graph.nodes)


class Checkpointed(nn.Module):
    def __init__(self, inner, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("release", ["backward", "forward"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_inside_stages(reentrant, release):
    specimen = ZOO[2]  # dropout: a checkpoint has to draw the same mask again
    expected = train(decoupled(specimen, release=release), specimen=specimen)
    model = specimen.model()
    model.b = Checkpointed(model.b, reentrant)
    model.top = Checkpointed(model.top, reentrant)
    net = train(decoupled(specimen, model, release=release), specimen=specimen)
    torch.testing.assert_close(list(net.parameters()), list(expected.parameters()), **EXACT)


# Copies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_copy_trains_on_its_own(options):
    net = train(decoupled(update_probability=0.7, **options), steps=2)
    twin = copy.deepcopy(net)
    kept = copy.deepcopy(net.state_dict())
    train(twin)
    torch.testing.assert_close(net.state_dict(), kept, **EXACT)
    train(net)
    assert_equal_state(net, twin)
    assert not torch.equal(net.model.a[0].weight, kept["model.a.0.weight"])


def test_recoupling_a_copy_leaves_the_original_decoupled():
    net = decoupled()
    twin = copy.deepcopy(net)
    plain = twin.recouple()
    assert not any(m._forward_hooks for m in plain.modules())
    assert [n for n, m in net.model.named_modules() if m._forward_hooks] == list(MLP.at)
    train(net, steps=2)
    assert net.updated == (True,) * 4


def test_a_copy_of_a_recoupled_model_is_plain():
    model = decoupled().recouple()
    twin = copy.deepcopy(model)
    plain = MLP.model()
    for m in (twin, plain):
        loss = F.cross_entropy(m(MLP.batch()[0]), MLP.batch()[1])
        loss.backward()
    torch.testing.assert_close(gradients(twin), gradients(plain), **EXACT)


@pytest.mark.parametrize("options", [{}, {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}], ids=str)
def test_averaged_models(options):
    net = decoupled(BATCH_NORM)
    average = AveragedModel(net, use_buffers=True, **options)
    optimizer = optimizer_of(net)
    history = []
    for number in range(3):
        loss_of(net, number, BATCH_NORM).backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(net)
        history.append(net.model.a[0].weight.detach().clone())
    expected = history[0]
    for n, new in enumerate(history[1:], 2):
        share = 0.1 if options else 1 / n
        expected = expected + (new - expected) * share
    found = average.module.model.a[0].weight
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)  # lerp rounds differently
    average.eval()
    x, _ = BATCH_NORM.batch()
    torch.testing.assert_close(average(x), average.module.model(x), **EXACT)
    average.train()
    loss_of(average, 0, BATCH_NORM).backward()  # the copy can train too, by its own interfaces
    assert all(p.grad is not None for p in average.parameters())
    assert all(p.grad is None for p in net.parameters())


# torch.func -------------------------------------------------------------------------------------


def test_functional_call():
    net = decoupled()
    loss_of(net).backward()
    given = {n: p.detach().clone().requires_grad_() for n, p in net.named_parameters()}
    x, y = MLP.batch()
    output = torch.func.functional_call(net, given, (x,), {"condition": y})
    before = gradients(net)
    F.cross_entropy(output, y).backward()
    torch.testing.assert_close([p.grad for p in given.values()], before, **EXACT)
    torch.testing.assert_close(gradients(net), before, **EXACT)


@pytest.mark.parametrize(
    "transform",
    [
        lambda f, x: torch.func.grad(lambda x: f(x).sum())(x),
        lambda f, x: torch.func.vmap(lambda row: f(row[None]))(x),
        lambda f, x: torch.func.jvp(f, (x,), (x,)),
    ],
    ids=["grad", "vmap", "jvp"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit")  # inside torch.func.jvp
def test_transforms_are_refused(transform):
    net = decoupled(signal=sg.SyntheticGradient())
    with pytest.raises(InterfaceError, match=r"torch.func.*transform `net.model` instead"):
        transform(net, MLP.batch()[0])
    transform(net.model, MLP.batch()[0])


# Modes and threads ------------------------------------------------------------------------------


def test_train_mode_under_no_grad_is_a_plain_forward_pass():
    net, plain = decoupled(BATCH_NORM), BATCH_NORM.model()
    x, _ = BATCH_NORM.batch()
    with torch.no_grad():
        torch.testing.assert_close(net(x), plain(x), **EXACT)  # no condition is asked for
    assert net.num_forwards == 0
    assert_equal_state(net.model, plain)


def test_eval_mode_with_gradients_is_plain_backprop():
    net, plain = decoupled().eval(), MLP.model().eval()
    x, y = MLP.batch()
    for model in (net.model, plain):
        F.cross_entropy(model(x), y).backward()
    torch.testing.assert_close(gradients(net.model), gradients(plain), **EXACT)
    assert all(p.grad is None for p in net.synthesizer_parameters())


def test_the_inner_model_called_on_its_own_is_plain_backprop():
    net, plain = decoupled(), MLP.model()
    x, y = MLP.batch()
    for model in (net.model, plain):
        F.cross_entropy(model(x), y).backward()
    torch.testing.assert_close(gradients(net.model), gradients(plain), **EXACT)


def test_inside_a_larger_model():
    """A decoupled encoder under a plain head gets the head's true gradient at its output."""
    net = decoupled()
    head = nn.Linear(CLASSES, 2).double()
    x, y = MLP.batch()
    head(net(x, condition=y)).sum().backward()
    assert all(p.grad is not None for p in [*net.parameters(), *head.parameters()])


def test_frozen_stages_stay_and_can_be_thawed():
    net = decoupled()
    net.model.b.requires_grad_(False)
    before = copy.deepcopy(net.model.b.state_dict())
    optimizer = optimizer_of(net)
    train(net, optimizer=optimizer)
    torch.testing.assert_close(net.model.b.state_dict(), before, **EXACT)
    net.model.b.requires_grad_(True)
    train(net, optimizer=optimizer)
    assert not torch.equal(net.model.b[0].weight, before["0.weight"])


def test_two_models_in_two_threads():
    expected = [train(decoupled(update_probability=p, seed=1), steps=20) for p in (1.0, 0.5)]
    nets = [decoupled(update_probability=p, seed=1) for p in (1.0, 0.5)]
    barrier = threading.Barrier(2)
    errors = []

    def work(net):
        try:
            optimizer = optimizer_of(net)
            for number in range(20):
                barrier.wait(30)
                x, y = MLP.batch(number)
                F.cross_entropy(net(x, condition=y), y).backward()
                optimizer.step()
                optimizer.zero_grad()
        except Exception as error:
            barrier.abort()
            errors.append(error)

    threads = [threading.Thread(target=work, args=(net,)) for net in nets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for net, other in zip(nets, expected, strict=True):
        assert_equal_state(net, other)


def test_saved_tensors_can_be_kept_elsewhere():
    expected = decoupled()
    loss_of(expected).backward()
    net = decoupled()
    with torch.autograd.graph.save_on_cpu():
        loss = loss_of(net)
    loss.backward()
    torch.testing.assert_close(gradients(net), gradients(expected), **EXACT)
