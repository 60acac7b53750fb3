"""`decouple`: options and their checks, an unedited model, and a clean way back."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import synthgrad as sg
from synthgrad.errors import ConfigError, InterfaceError, UnsupportedModelError
from zoo import CLASSES, ZOO

MLP = ZOO[0]
EXACT = {"rtol": 0, "atol": 0}


def decoupled(specimen=MLP, **options):
    x, _ = specimen.batch()
    options = {"at": list(specimen.at), "example_inputs": x, **options}
    return sg.decouple(specimen.model(), **options)


# The model is not edited -------------------------------------------------------------------------


@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_state_dict_and_eval_output_stay_what_they_were(specimen):
    plain, net = specimen.model(), decoupled(specimen)
    assert list(net.model.state_dict()) == list(plain.state_dict())
    assert [type(m) for m in net.model.modules()] == [type(m) for m in plain.modules()]
    assert [sorted(vars(m)) for m in net.model.modules()] == [
        sorted(vars(m)) for m in plain.modules()
    ]
    x, _ = specimen.batch()
    with torch.no_grad():
        expected = plain.eval()(x.clone())
        torch.testing.assert_close(net.eval()(x.clone()), expected, **EXACT)


@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_recouple_gives_the_model_back_clean(specimen):
    plain, net = specimen.model(), decoupled(specimen)
    x, y = specimen.batch()
    torch.manual_seed(0)
    F.cross_entropy(net(x.clone()), y).backward()
    net.zero_grad()
    model = net.recouple()
    assert model is net.model is net.recouple()
    for a, b in zip(model.modules(), plain.modules(), strict=True):
        assert len(a._forward_hooks) == len(b._forward_hooks)
        assert vars(a).keys() == vars(b).keys()
    torch.manual_seed(0)
    plain(x.clone())  # so that buffers are where those of `net` are
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), **EXACT)
    torch.manual_seed(1)
    F.cross_entropy(net(x.clone(), condition=y), y).backward()  # passes the call straight on
    torch.manual_seed(1)
    F.cross_entropy(plain(x.clone()), y).backward()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, **EXACT)


def test_a_recoupled_model_can_be_decoupled_anew():
    net = decoupled()
    net = sg.decouple(net.recouple(), ["b"], example_inputs=MLP.batch()[0])
    assert [i.name for i in net.ordered_interfaces()] == ["b"]


def test_decoupling_twice_is_refused():
    net = decoupled()
    x, _ = MLP.batch()
    for model in (net, net.model, nn.Sequential(net, nn.Linear(CLASSES, 2).double())):
        with pytest.raises(UnsupportedModelError, match="decoupled already; call recouple"):
            sg.decouple(model, lambda name, m: name.endswith("a"), example_inputs=x)


def test_the_training_flag_follows_the_model():
    x, y = MLP.batch()
    net = sg.decouple(MLP.model().eval(), list(MLP.at), example_inputs=x)
    assert not any(m.training for m in net.modules())
    F.cross_entropy(net(x), y).backward()
    assert net.num_forwards == 0
    assert all(m.training for m in net.train().modules())


def test_module_names_that_a_module_dict_forbids():
    """`nn.ModuleDict` has methods `keys` and `values`, and forbids dots."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.values, self.inner = nn.Linear(6, 6), nn.Module()
            self.inner.keys, self.top = nn.Linear(6, 6), nn.Linear(6, CLASSES)

        def forward(self, x):
            return self.top(self.inner.keys(self.values(x)))

    x = torch.zeros(2, 6)
    net = sg.decouple(Net(), ["values", "inner.keys"], example_inputs=x)
    assert list(net.synthesizers) == ["values", "inner.keys"]
    assert list(net.interfaces) == ["values/", "inner/keys"]
    net(x).sum().backward()


# What it offers ----------------------------------------------------------------------------------


def test_names_and_counts():
    net = decoupled()
    assert net.num_stages == 4
    assert list(net.synthesizers) == ["a", "b", "c"]
    assert list(net.interfaces) == ["a", "b", "c"]
    assert all(len(s) == 1 for s in net.synthesizers.values())
    assert [i.name for i in net.ordered_interfaces()] == ["a", "b", "c"]


def test_an_interface_with_several_tensors_has_a_synthesizer_each():
    net = decoupled(next(s for s in ZOO if s.name == "Trees"))
    assert {k: len(v) for k, v in net.synthesizers.items()} == {"a": 2, "b": 2}


def test_synthesizers_have_dtype_and_shape_of_their_activation():
    net = decoupled()
    shapes = [s[0].last.weight.shape for s in net.synthesizers.values()]
    assert shapes == [(10, 10), (9, 9), (8, 8)]
    assert {p.dtype for p in net.synthesizer_parameters()} == {torch.float64}


def test_training_passes_are_counted_from_the_first():
    net = decoupled()
    x, y = MLP.batch()
    for _ in range(3):
        F.cross_entropy(net(x), y).backward()
    assert net.num_forwards == 3
    assert [i.num_fits for i in net.ordered_interfaces()] == [3, 3, 3]
    assert net.updated == (True,) * 4


def test_keyword_arguments_reach_the_model():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.top = nn.Linear(6, 6), nn.Linear(6, CLASSES)

        def forward(self, x, *, scale=1.0):
            return self.top(self.a(x) * scale)

    x = torch.randn(4, 6)
    net = sg.decouple(Net(), ["a"], example_inputs={"x": x, "scale": 2.0})
    torch.testing.assert_close(net(x, scale=3.0), net.model(x, scale=3.0), **EXACT)


# Options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "none"}, "reduction='none' must be 'mean' or 'sum'"),
        ({"release": "never"}, "release='never' must be"),
        ({"accumulate": 0}, "accumulate=0 must be 1 or more"),
        ({"report_every": -1}, "report_every=-1 0 or more"),
        ({"update_probability": 0}, "update_probability is 0"),
        ({"update_probability": (1, 1)}, "2 values and the network has 4 stages"),
        ({"signal": {"a": sg.NoSignal()}}, r"entries for \['a'\] and the interfaces are"),
        (
            {"signal": sg.Backprop(), "update_probability": 0.5},
            "needs the gradient from the stage above.*use update_probability=1",
        ),
        ({"signal": sg.SyntheticGradient(mix=0.5), "update_probability": 0.5}, "mix=0"),
        (
            {"signal": sg.SyntheticGradient(mix=0.5), "release": "forward"},
            "does not exist yet when release='forward'",
        ),
        ({"signal": sg.Backprop(), "release": "forward"}, "use release='backward'"),
        (
            {"signal": {"a": sg.Backprop(), "b": sg.NoSignal(), "c": sg.Backprop()}},
            r"Backprop\(\) needs the gradient from the stage above, which does not train",
        ),
        (
            {"signal": sg.SyntheticGradient(synthesizer="conv")},
            r"'a': a conv synthesizer takes[\s\S]*'b': a conv[\s\S]*'c': a conv",
        ),
    ],
    ids=str,
)
def test_options_are_checked_before_anything_happens(options, message):
    model = MLP.model()
    x, _ = MLP.batch()
    with pytest.raises(ConfigError, match=message):
        sg.decouple(model, list(MLP.at), example_inputs=x, **options)
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("at", [["a", "bb"], "nothing", []])
def test_a_place_that_does_not_exist(at):
    with pytest.raises(UnsupportedModelError, match="cannot be decoupled as asked"):
        decoupled(at=at)


# Wrappers that cannot work -----------------------------------------------------------------------


def test_release_forward_takes_no_loss_scale():
    net = decoupled(release="forward")
    with pytest.raises(InterfaceError, match="release='forward' cannot take a loss scale"):
        net(MLP.batch()[0], loss_scale=2.0)


def test_data_parallel_is_refused():
    """Without a GPU it copies nothing, so a copy is made as it makes them."""
    net = decoupled()
    replica = net._replicate_for_data_parallel()
    with pytest.raises(InterfaceError, match=r"DataParallel.*use torch.nn.parallel.Distributed"):
        replica(MLP.batch()[0])


def test_an_output_that_no_longer_leads_to_a_skipped_stage():
    class Net(nn.Sequential):
        opaque = False

        def forward(self, x):
            output = super().forward(x)
            return {output} if self.opaque else output

    x = torch.randn(4, 6)
    model = Net(nn.Linear(6, 6), nn.Linear(6, CLASSES))
    net = sg.decouple(model, "0", example_inputs=x, update_probability=1e-9)
    model.opaque = True
    with pytest.raises(InterfaceError, match="returned set without a floating-point tensor"):
        net(x)
