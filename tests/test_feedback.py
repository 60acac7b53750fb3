"""What the signals with a way down of their own refuse, and the wrappers that they work under."""

import copy
import io
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._functorch import config as functorch_config
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import synthgrad as sg
from synthgrad.errors import ConfigError, InterfaceError, UnsupportedModelError
from zoo import ZOO

MLP = ZOO[0]
EXACT = {"rtol": 0, "atol": 0}
DFA, KICKBACK = sg.DirectFeedbackAlignment(), sg.Kickback()
FA, SIGNS = sg.FeedbackAlignment(), sg.SignSymmetric()
ALL = [DFA, KICKBACK, FA, SIGNS]


def decoupled(signal, specimen=MLP, model=None, **options):
    x, _ = specimen.batch()
    model = specimen.model() if model is None else model
    return sg.decouple(model, list(specimen.at), example_inputs=x, signal=signal, **options)


def gradients(module):
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


def trained(net, number=0, specimen=MLP):
    x, y = specimen.batch(number)
    F.cross_entropy(net(x), y).backward()
    return gradients(net.model)


# Places that cannot give what a signal needs ------------------------------------------------------


class Outputs(nn.Sequential):
    """Its output is what `form` makes of it."""

    def __init__(self, form):
        super().__init__(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
        self.form = form

    def forward(self, x):
        return self.form(super().forward(x))


@pytest.mark.parametrize(
    ("form", "given"),
    [
        (lambda out: (out, out.sum(1)), "not one floating-point tensor"),
        (lambda out: out.sum(), r"\(\)"),
        (lambda out: out.T, r"\(3, 4\)"),
    ],
    ids=["two tensors", "scalar", "no batch axis"],
)
@pytest.mark.parametrize("signal", [DFA, KICKBACK], ids=str)
def test_an_output_without_an_error_for_each_example_is_refused(signal, form, given):
    with pytest.raises(ConfigError, match=rf"'1': .*output is {given} where the activation is"):
        sg.decouple(Outputs(form), ["1"], signal=signal, example_inputs=torch.randn(4, 6))


@pytest.mark.parametrize(
    "form", [lambda out: {"logits": out, "label": out.argmax(1)}, lambda out: out[:, 0]]
)
@pytest.mark.parametrize("signal", [DFA, KICKBACK], ids=str)
def test_one_tensor_in_a_tree_and_one_number_an_example_are_outputs(signal, form):
    x = torch.randn(4, 6)
    net = sg.decouple(Outputs(form), ["0", "1"], signal=signal, example_inputs=x)
    output = net(x)
    (output["logits"] if isinstance(output, dict) else output).square().sum().backward()
    assert all(g.any() for g in gradients(net.model))


def test_an_output_of_another_size_than_the_examples_is_named_in_backward():
    model = Outputs(lambda out: out)
    x = torch.randn(4, 6)
    net = sg.decouple(model, ["1"], signal=DFA, example_inputs=x)
    for form, message in [
        (lambda out: out[:, :2], r"output has shape \(4, 2\).*2 values an example"),
        (lambda out: out[:2], r"output has shape \(2, 3\) and an activation \(4, 6\)"),
    ]:
        model.form = form
        with pytest.raises(InterfaceError, match=message):
            net(x).sum().backward()


@pytest.mark.parametrize("signal", ALL, ids=str)
def test_backward_inside_forward_is_refused(signal):
    with pytest.raises(ConfigError, match="does not exist yet when release='forward'"):
        decoupled(signal, release="forward")


@pytest.mark.parametrize("signal", [KICKBACK, FA, SIGNS], ids=str)
def test_skipped_stages_are_refused_where_the_stage_above_is_needed(signal):
    with pytest.raises(ConfigError, match="stage that is not updated"):
        decoupled(signal, update_probability=0.5)


def test_kickback_under_a_stage_that_does_not_train_is_refused():
    with pytest.raises(ConfigError, match=r"Kickback\(\) needs .*which does not train because"):
        decoupled({"a": KICKBACK, "b": sg.NoSignal(), "c": KICKBACK})


@pytest.mark.parametrize("signal", ALL, ids=str)
def test_engines_name_what_to_use_instead(signal):
    x = torch.randn(4, 6)
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    with pytest.raises(ConfigError, match=r"cannot work in a chain of stages.*sg\.decouple"):
        sg.Chain.from_sequential(model, signal=signal, example_inputs=x)
    net = sg.decouple(model, ["0"], signal=signal, example_inputs=x)
    with pytest.raises(ConfigError, match=r"cannot work in a chain of stages.*sg\.decouple"):
        sg.Chain.from_decoupled(net)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sg.DirectFeedbackAlignment(scale=0),
        lambda: sg.SignSymmetric(magnitude=-1.0),
    ],
)
def test_values_that_cannot_work(make):
    with pytest.raises(ConfigError, match="must be positive"):
        make()


# Layers that no other transpose is known for ------------------------------------------------------


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Top(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.scaled = nn.BatchNorm1d(6), Scaled(6, 6)
        self.gain = nn.Parameter(torch.ones(6))
        self.used = nn.Linear(6, 6)
        self.act = nn.PReLU()
        self.conv = nn.Conv1d(6, 3, 3, padding=1, padding_mode="circular")

    def forward(self, h):
        h = self.act(self.scaled(self.norm(h)) * self.gain)
        return self.conv(F.linear(h, self.used.weight)[:, :, None]).flatten(1)


@pytest.mark.parametrize("signal", [FA, SIGNS], ids=str)
def test_layers_that_it_does_not_know_are_all_named(signal):
    bottom = nn.Sequential(nn.MultiheadAttention(6, 2), nn.PReLU())
    bottom.forward = lambda x: bottom[1](bottom[0](x, x, x)[0])
    model = nn.Sequential(bottom, Top())
    with pytest.raises(UnsupportedModelError) as caught:
        sg.decouple(model, ["0"], signal=signal, example_inputs=torch.randn(4, 6))
    message = str(caught.value)
    for place in ("'1' (Top)", "'1.scaled' (Scaled)", "'1.act' (PReLU)", "'1.conv' (Conv1d)"):
        assert f"{place} has parameters." in message
    assert "'1.used' (Linear) has parameters and is not called as a module" in message
    assert "'0" not in message.partition("\n")[2], "the bottom stage keeps its own way down"
    assert "norm" not in message.partition("\n")[2]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


CONVS = [
    nn.Conv1d(4, 6, 3, padding=1, groups=2),
    nn.Conv1d(4, 6, 3, padding="same", dilation=2),
    nn.Conv2d(4, 6, 3, stride=2, dilation=2, padding=(1, 2)),
    nn.Conv2d(4, 6, (3, 1), padding="valid", bias=False),
    parametrizations.weight_norm(nn.Conv2d(4, 6, 1)),
]


@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_every_kind_of_convolution_with_its_own_weight_is_backprop(conv):
    conv = copy.deepcopy(conv).double()
    bottom = type(conv)(2, 4, 1).double() if "Param" not in type(conv).__name__ else None
    bottom = bottom or nn.Conv2d(2, 4, 1).double()
    model = nn.Sequential(bottom, conv)
    plain = copy.deepcopy(model)
    shape = (3, 2, 8) if isinstance(conv, nn.Conv1d) else (3, 2, 8, 7)
    x = torch.randn(shape, dtype=torch.float64)
    if "Param" in type(conv).__name__:
        with pytest.raises(UnsupportedModelError, match=r"'1\.parametrizations\.weight'"):
            sg.decouple(model, ["0"], signal=FA, example_inputs=x)
        return
    net = sg.decouple(model, ["0"], signal=FA, example_inputs=x)
    net.feedback["1"].fixed.copy_(conv.weight)
    for m in (net, plain):
        m(x).square().sum().backward()
    torch.testing.assert_close(gradients(model), gradients(plain), **EXACT)


def test_a_layer_that_the_bottom_stage_uses_too_keeps_its_own_way_down_there():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.top = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.end = nn.Identity()

        def forward(self, x):
            h = self.end(self.b(torch.tanh(self.a(x))))
            return self.top(torch.tanh(self.b(h)))

    x, y = MLP.batch()
    model = Net().double()
    net = sg.decouple(model, ["end"], signal=FA, example_inputs=x)
    output = net(x)
    F.cross_entropy(output, y).backward()
    with torch.no_grad():
        low = torch.tanh(model.a(x))
        high = torch.tanh(model.b(model.b(low)))
        error = (output.softmax(1) - F.one_hot(y, 3)) / len(y)
        error = (error @ net.feedback["top"].fixed) * (1 - high**2) @ net.feedback["b"].fixed
        error = (error @ model.b.weight) * (1 - low**2)
    # The same sums in another order, in float64.
    torch.testing.assert_close(model.a.weight.grad, error.T @ x, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_an_even_kernel_with_same_padding_is_refused():
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.Conv1d(4, 4, 2, padding="same"))
    with pytest.raises(UnsupportedModelError, match=r"'1' \(Conv1d\)"):
        sg.decouple(model, ["0"], signal=FA, example_inputs=torch.randn(3, 2, 8))


def test_an_input_by_keyword_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.b(input=self.a(x))

    x = torch.randn(4, 6)
    net = sg.decouple(Net(), ["a"], signal=FA, example_inputs=x)
    with pytest.raises(InterfaceError, match="'b' was called with its input as a keyword"):
        net(x)


# Several signals in one model ---------------------------------------------------------------------


def test_another_transpose_is_for_all_interfaces_alike():
    for other in (sg.SyntheticGradient(), SIGNS, sg.FeedbackAlignment(seed=1)):
        with pytest.raises(ConfigError, match="all interfaces of a model must have the same"):
            decoupled({"a": other, "b": FA, "c": FA})
    decoupled({"a": FA, "b": FA, "c": FA})


@pytest.mark.parametrize("other", [DFA, KICKBACK, sg.LocalLoss(num_classes=3)], ids=str)
def test_output_errors_stand_beside_other_signals(other):
    """What an interface hands down does not depend on the signals elsewhere."""
    x, y = MLP.batch()
    alone = decoupled({"a": other, "b": other, "c": other})
    mixed = decoupled({"a": sg.SyntheticGradient(), "b": other, "c": sg.Backprop()})
    for k in range(len(mixed.synthesizers["b"])):
        mixed.synthesizers["b"][k].load_state_dict(alone.synthesizers["b"][k].state_dict())
    nn.init.normal_(mixed.synthesizers["a"][0].last.weight)
    for net in (alone, mixed):
        F.cross_entropy(net(x, condition=y), y).backward()
    torch.testing.assert_close(gradients(mixed.model.b), gradients(alone.model.b), **EXACT)
    assert all(g.any() for g in gradients(mixed))


# In the loop --------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", [DFA, KICKBACK], ids=str)
def test_a_second_backward_is_refused(signal):
    x, y = MLP.batch()
    loss = F.cross_entropy(decoupled(signal)(x), y)
    loss.backward(retain_graph=True)
    with pytest.raises(InterfaceError, match="second time"):
        loss.backward()


def test_stages_under_direct_feedback_need_no_input_gradient():
    net = decoupled(DFA)
    came = {}
    for name in ("b", "c", "top"):
        net.model.get_submodule(name).register_forward_pre_hook(
            lambda m, args, name=name: came.update({name: args[0].requires_grad})
        )
    trained(net)
    assert came == {"b": False, "c": False, "top": False}


def test_matrices_differ_between_interfaces_and_seeds_and_are_alike_in_every_net():
    def matrices(seed):
        x, _ = MLP.batch()
        model = nn.Sequential(*[nn.Linear(6, 6) for _ in range(4)])
        signal = sg.DirectFeedbackAlignment(seed=seed)
        net = sg.decouple(model, "every", signal=signal, example_inputs=x.float())
        return [modules[0].matrix for modules in net.synthesizers.values()]

    first, again, other = matrices(0), matrices(0), matrices(1)
    torch.testing.assert_close(first, again, **EXACT)
    every = [*first, *other]
    assert not any(torch.equal(a, b) for k, a in enumerate(every) for b in every[:k])
    bound = 6**-0.5
    assert all(0.7 * bound < float(m.abs().max()) <= bound for m in every)


def test_feedback_weights_are_the_layers_own_whatever_the_cut():
    x, _ = MLP.batch()
    few = sg.decouple(MLP.model(), ["b"], signal=FA, example_inputs=x)
    many = decoupled(FA)
    assert {f.name for f in few.feedback.values()} == {"c.0", "top"}
    assert {f.name for f in many.feedback.values()} == {"b.0", "c.0", "top"}
    for key, f in few.feedback.items():
        torch.testing.assert_close(many.feedback[key].fixed, f.fixed, **EXACT)
        weight = few.model.get_submodule(f.name).weight
        assert f.fixed.shape == weight.shape
        assert float(f.fixed.abs().max()) <= weight.shape[1] ** -0.5


def test_signs_are_those_of_the_moment_at_which_the_error_goes_down():
    net = decoupled(sg.SignSymmetric(magnitude=0.5))
    x, y = MLP.batch()
    came = {}
    net.model.c.register_forward_hook(lambda m, args, output: came.update(h=output.detach()))
    output = net(x)
    loss = F.cross_entropy(output, y)
    with torch.no_grad():
        net.model.top.weight.neg_()
    loss.backward()
    error = (output.detach().softmax(1) - F.one_hot(y, 3)) / len(y)
    expected = (error @ net.model.top.weight.sign() * 0.5 * (1 - came["h"] ** 2)).sum(0)
    # The same sums in another order, in float64.
    torch.testing.assert_close(net.model.c[0].bias.grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("signal", ALL, ids=str)
def test_it_pickles(signal):
    net = decoupled(signal)
    trained(net)
    net.zero_grad()
    twin = pickle.loads(pickle.dumps(net))
    torch.testing.assert_close(trained(twin), trained(net), **EXACT)


@pytest.mark.parametrize("signal", ALL, ids=str)
def test_a_recoupled_copy_leaves_the_original_alone(signal):
    net = decoupled(signal)
    expected = trained(net)
    net.zero_grad()
    copy.deepcopy(net).recouple()
    torch.testing.assert_close(trained(net), expected, **EXACT)


@pytest.mark.parametrize("signal", ALL, ids=str)
def test_autocast(signal):
    """Gradients in the parameters' dtype and close to single precision."""
    x, y = MLP.batch()
    net = sg.decouple(MLP.model().float(), list(MLP.at), example_inputs=x.float(), signal=signal)
    F.cross_entropy(net(x.float()), y).backward()
    expected = gradients(net.model)
    net.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(net(x.float()).float(), y)
    loss.backward()
    for found, exact in zip(gradients(net.model), expected, strict=True):
        assert found.dtype is torch.float32
        # bfloat16 keeps 8 bits of a number.
        torch.testing.assert_close(found, exact, rtol=0.1, atol=0.1 * float(exact.abs().max()))


class Checkpointed(nn.Module):
    def __init__(self, inner, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("signal", ALL, ids=str)
def test_a_checkpoint_inside_a_stage(signal, reentrant):
    model = MLP.model()
    model.b = Checkpointed(model.b, reentrant)
    net = decoupled(signal, model=model)
    if signal in (FA, SIGNS):
        with pytest.raises(InterfaceError, match="inside an activation checkpoint"):
            trained(net)
    elif signal is KICKBACK and reentrant:
        with pytest.raises(InterfaceError, match=r"Kickback.*to the activations alone.*=False"):
            trained(net)
    elif reentrant:  # torch's own rule: one of its inputs must need a gradient, and none does here
        with (
            pytest.warns(UserWarning, match="Gradients will be None"),
            pytest.raises(InterfaceError, match=r"interface 'b' has parameters to train.*=False"),
        ):
            trained(net)
    else:
        torch.testing.assert_close(trained(net), trained(decoupled(signal)), **EXACT)


@pytest.fixture
def compiler():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")
        warnings.filterwarnings("ignore", message=".*torch.jit")
        yield torch.compiler
    torch._dynamo.reset()


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("signal", ALL, ids=str)
def test_torch_compile_of_the_stages(signal, before, compiler):
    def stages(model):
        return [model.get_submodule(name) for name in (*MLP.at, "top")]

    expected = decoupled(signal)
    model = MLP.model()
    if before:
        for name in (*MLP.at, "top"):
            setattr(model, name, torch.compile(getattr(model, name), backend="aot_eager"))
    net = decoupled(signal, model=model)
    for stage in [] if before else stages(net.model):
        stage.compile(backend="aot_eager")
    for f, other in zip(net.feedback.values(), expected.feedback.values(), strict=True):
        if f.fixed is not None:
            f.fixed.copy_(other.fixed)
    for number in range(3):
        for each in (net, expected):
            each.zero_grad()
            trained(each, number)
        # A compiler may fuse.
        torch.testing.assert_close(
            gradients(net.model), gradients(expected.model), rtol=1e-9, atol=1e-12
        )


def stage_with_buffers():
    return nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 6)).double()


@pytest.mark.parametrize("signal", [KICKBACK, sg.SyntheticGradient(trace_decay=0.5)], ids=str)
def test_a_second_pass_through_a_stage_that_was_compiled_for_one(signal, compiler):
    x, _ = MLP.batch()
    torch.manual_seed(2)
    model = nn.Sequential(*(stage_with_buffers() for _ in range(3)), nn.Linear(6, 3).double())

    def run(model, *, compiled):
        net = sg.decouple(model, ["0", "1", "2"], example_inputs=x, signal=signal)
        for p in net.synthesizer_parameters():
            nn.init.constant_(p, 0.1)
        for stage in model[:3] if compiled else ():
            stage.compile(backend="aot_eager")
        net.model(x).square().sum().backward()  # torch compiles backward in its first pass
        net.zero_grad()
        net(x).square().sum().backward()
        return gradients(net)

    with pytest.raises(InterfaceError, match=r"two backward passes.*donated_buffer = False"):
        run(copy.deepcopy(model), compiled=True)
    compiler.reset()
    with functorch_config.patch(donated_buffer=False):
        found = run(copy.deepcopy(model), compiled=True)
    # A compiler may fuse.
    torch.testing.assert_close(found, run(model, compiled=False), rtol=1e-9, atol=1e-12)


def test_after_a_failed_pass_nothing_is_left_in_a_layer():
    """Its input would lead the next plain pass down through other weights."""
    net = decoupled(FA)
    x, _ = MLP.batch()

    def fail(module, args):
        raise KeyError("the user's own")

    handle = net.model.b[0].register_forward_pre_hook(fail)
    with pytest.raises(KeyError):
        net(x)
    handle.remove()
    copy.deepcopy(net)
    net.model(x).square().sum().backward()
    found = gradients(net.model)
    plain = MLP.model()
    plain(x).square().sum().backward()
    torch.testing.assert_close(found, gradients(plain), **EXACT)


@pytest.mark.parametrize("signal", [DFA, KICKBACK], ids=str)
def test_an_output_with_more_tensors_than_before_is_refused(signal):
    model = Outputs(lambda out: out).double()
    x, _ = MLP.batch()
    net = sg.decouple(model, ["1"], example_inputs=x, signal=signal)
    model.form = lambda out: (out, out.sum(1))
    with pytest.raises(InterfaceError, match=r"returned 2 floating-point tensors.*there was one"):
        net(x)
    model.eval()
    assert len(net.eval()(x)) == 2


def test_another_default_device_changes_no_matrix():
    x, _ = MLP.batch()
    expected = decoupled(DFA).interfaces.state_dict()
    model = MLP.model()
    with torch.device("meta"):
        found = sg.decouple(model, list(MLP.at), example_inputs=x, signal=DFA)
    torch.testing.assert_close(found.interfaces.state_dict(), expected, **EXACT)


def test_state_is_loaded_with_weights_only():
    file = io.BytesIO()
    net = decoupled(FA)
    torch.save(net.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert {k for k in state if k.startswith("feedback")} == {
        "feedback.b/0.fixed",
        "feedback.c/0.fixed",
        "feedback.top.fixed",
    }
    assert set(net.model.state_dict()) == set(MLP.model().state_dict())
