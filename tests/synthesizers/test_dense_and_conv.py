"""The networks that predict: shapes, the zero start, what they are built of, and refusals."""

from functools import partial

import pytest
import torch
from torch import nn

from synthgrad import synthesizers
from synthgrad.errors import ConfigError, InterfaceError

FEATURES, SEQUENCE, MAPS = torch.Size([5]), torch.Size([4, 5]), torch.Size([3, 6, 7])
BUILT = [
    ("linear", FEATURES),
    ("linear", SEQUENCE),
    ("mlp", FEATURES),
    ("mlp", SEQUENCE),
    ("mirror", FEATURES),
    ("mirror", SEQUENCE),
    ("conv", MAPS),
    ("low-rank", FEATURES),
    ("low-rank", MAPS),
    ("auto", FEATURES),
    ("auto", SEQUENCE),
    ("auto", MAPS),
]


def built(name, shape, size):
    return synthesizers.resolve(name)(shape, size)


@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.parametrize(("name", "shape"), BUILT)
def test_an_untrained_synthesizer_predicts_exactly_zero_in_the_shape_of_the_activation(
    name, shape, size
):
    module = built(name, shape, size)
    code = torch.eye(8, size) if size else None
    prediction = module(torch.randn(8, *shape), code)
    assert prediction.shape == (8, *shape)
    assert not prediction.any()
    assert not module.last.weight.any()
    assert not module.last.bias.any()


@pytest.mark.parametrize(("name", "shape"), BUILT)
def test_the_condition_changes_the_prediction(name, shape):
    module = built(name, shape, 3)
    nn.init.normal_(module.last.weight)
    h = torch.randn(1, *shape).expand(6, *shape)
    prediction = module(h, torch.eye(3).repeat(2, 1))
    assert not torch.allclose(prediction[0], prediction[1], atol=1e-3)
    torch.testing.assert_close(prediction[0], prediction[3])


@pytest.mark.parametrize(("name", "shape"), BUILT)
def test_after_one_step_every_parameter_can_learn(name, shape):
    """A zero last layer must not hold the hidden ones back for ever."""
    module = built(name, shape, 3)
    h, code = torch.randn(8, *shape), torch.eye(8, 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (module(h, code) - 1).square().mean().backward()
        optimizer.step()
    assert all(p.grad.any() for p in module.parameters())


def layers(module, kind):
    return [m for m in module.modules() if isinstance(m, kind)]


def test_the_networks_of_the_papers():
    mlp = built("mlp", FEATURES, 2)
    sizes = [(m.in_features, m.out_features) for m in layers(mlp, nn.Linear)]
    assert sizes == [(7, 1024), (1024, 1024), (1024, 5)]
    assert len(layers(mlp, nn.BatchNorm1d)) == len(layers(mlp, nn.ReLU)) == 2
    mirror = built("mirror", FEATURES, 2)
    assert [(m.in_features, m.out_features) for m in layers(mirror, nn.Linear)] == [(7, 5), (5, 5)]
    assert len(layers(mirror, nn.BatchNorm1d)) == 1
    conv = built("conv", MAPS, 2)
    kernels = [(m.in_channels, m.out_channels, m.kernel_size) for m in layers(conv, nn.Conv2d)]
    assert kernels == [(5, 3, (5, 5)), (3, 3, (5, 5)), (3, 3, (5, 5))]
    linear = built("linear", FEATURES, 0)
    assert [(m.in_features, m.out_features) for m in layers(linear, nn.Linear)] == [(5, 5)]


def test_sizes_can_be_chosen():
    mlp = synthesizers.mlp(FEATURES, 0, hidden=(8,))
    assert [m.out_features for m in layers(mlp, nn.Linear)] == [8, 5]
    conv = partial(synthesizers.conv, hidden=(), kernel_size=3)(MAPS, 0)
    assert [m.kernel_size for m in layers(conv, nn.Conv2d)] == [(3, 3)]


@pytest.mark.parametrize(
    ("build", "shape", "message"),
    [
        (synthesizers.linear, MAPS, r"\(3, 6, 7\).*synthesizer='low-rank'"),
        (synthesizers.mlp, torch.Size([]), r"\[batch, features\]"),
        (synthesizers.mirror, MAPS, "mirror synthesizer takes"),
        (synthesizers.conv, FEATURES, r"\(5,\).*synthesizer='linear'"),
        (partial(synthesizers.conv, kernel_size=4), MAPS, "kernel_size=4 must be odd"),
        (partial(synthesizers.conv, kernel_size=-1), MAPS, "kernel_size=-1 must be odd"),
    ],
)
def test_a_shape_that_does_not_suit_is_refused(build, shape, message):
    with pytest.raises(ConfigError, match=message):
        build(shape, 0)


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="'lineer' is unknown; choose one of auto, linear"):
        synthesizers.resolve("lineer")


def test_a_callable_is_taken_as_it_is():
    assert synthesizers.resolve(synthesizers.mlp) is synthesizers.mlp


def test_low_rank_tells_places_apart_by_the_label_and_is_of_its_rank():
    module = synthesizers.low_rank(MAPS, 3, rank=2)
    nn.init.normal_(module.last.weight)
    zero = torch.zeros(1, *MAPS)
    of_label = module(zero, torch.eye(3)[:1])[0]
    assert of_label.std(dim=(1, 2)).min() > 0.1, "not the same at every place"
    h = torch.randn(20, *MAPS)
    predicted = module(h, torch.zeros(20, 3)) - module(zero, torch.zeros(1, 3))
    assert torch.linalg.matrix_rank(predicted.flatten(1)) == 2


def test_a_rank_of_none_is_refused():
    with pytest.raises(ConfigError, match="rank=0"):
        synthesizers.low_rank(MAPS, 3, rank=0)


def test_another_size_of_feature_map_is_refused_by_name():
    module = synthesizers.low_rank(MAPS, 0)
    with pytest.raises(InterfaceError, match=r"\(3, 6, 7\).*has \(3, 7, 6\).*'conv'"):
        module(torch.randn(2, 3, 7, 6), None)
