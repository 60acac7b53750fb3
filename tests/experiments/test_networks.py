"""The networks of the papers: what they are made of, and that they can be cut as promised."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

import synthgrad as sg
from synthgrad.errors import ConfigError
from synthgrad.experiments.networks import cnn, deep, even, fcn, middle, resnet

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
NETWORKS = {
    "fcn": (lambda: fcn(MNIST, 10, depth=4, width=16), MNIST, 4),
    "fcn of features": (lambda: fcn((7,), 3, depth=2, width=5), (7,), 2),
    "cnn on mnist": (lambda: cnn(MNIST, 10, depth=4, filters=6), MNIST, 4),
    "cnn on cifar": (lambda: cnn(CIFAR, 10, depth=3, filters=6, kernel=3), CIFAR, 3),
    "resnet": (lambda: resnet(CIFAR, 10, blocks_per_stage=2, width=4), CIFAR, 5),
    "resnet on mnist": (lambda: resnet(MNIST, 10, blocks_per_stage=1, width=4), MNIST, 5),
    "even": (lambda: even(MNIST, 10, depth=5, width=8), MNIST, 7),
    "deep": (lambda: deep(MNIST, 10, num_hidden=12, width=8), MNIST, 13),
}


def num_parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("make", "shape", "num_children"), NETWORKS.values(), ids=NETWORKS)
def test_every_child_but_the_last_ends_in_an_interface(make, shape, num_children):
    network, example = make(), torch.rand(2, *shape)
    found = sg.validate(network, "every", example)
    assert found.ok, found.problems
    names = [name for name, _ in network.named_children()]
    assert [cut.name for cut in found.cuts] == names[:-1]
    assert len(names) == num_children
    num_classes = 3 if shape == (7,) else 10
    assert network(example).shape == (2, num_classes)


def kinds(network, *wanted):
    return [type(m).__name__ for m in network.modules() if isinstance(m, wanted)]


def test_even_layers_are_alike_and_add_to_what_comes_in():
    network = even(MNIST, 10, depth=3, width=8)
    layers = [network.get_submodule(f"layer{i}") for i in range(1, 4)]
    shapes = [{name: p.shape for name, p in layer.named_parameters()} for layer in layers]
    assert shapes[0] == shapes[1] == shapes[2]
    h = torch.randn(4, 8)
    torch.nn.init.zeros_(layers[0].norm.weight)
    torch.testing.assert_close(layers[0](h), h, rtol=0, atol=0)
    torch.nn.init.ones_(layers[0].norm.bias)
    torch.testing.assert_close(layers[0](h), h + 1)


def test_fcn():
    network = fcn(MNIST, 10, depth=5, width=20)
    assert kinds(network, nn.Linear, nn.BatchNorm1d, nn.ReLU) == [
        *4 * ["Linear", "BatchNorm1d", "ReLU"],
        "Linear",
    ]
    hidden = 3 * (20 * 20 + 20)
    norms = 4 * 2 * 20
    assert num_parameters(network) == (784 * 20 + 20) + hidden + norms + (20 * 10 + 10)
    assert [name for name, _ in network.named_children()] == [
        *[f"layer{i}" for i in range(1, 5)],
        "output",
    ]


def test_fcn_draws_the_weights_of_the_records():
    """The committed records of bisong2017 were made by these lines."""
    torch.manual_seed(3)
    layers = OrderedDict(
        layer1=nn.Sequential(nn.Flatten(), nn.Linear(784, 9), nn.BatchNorm1d(9), nn.ReLU()),
        layer2=nn.Sequential(nn.Linear(9, 9), nn.BatchNorm1d(9), nn.ReLU()),
        output=nn.Linear(9, 10),
    )
    recorded = nn.Sequential(layers).state_dict()
    torch.manual_seed(3)
    state = fcn(MNIST, 10, depth=3, width=9).state_dict()
    assert list(state) == list(recorded)
    torch.testing.assert_close(state, recorded, rtol=0, atol=0)


@pytest.mark.parametrize(("shape", "places"), [(MNIST, 4 * 4), (CIFAR, 4 * 4), ((2, 9, 20), 2 * 3)])
def test_cnn(shape, places):
    network = cnn(shape, 10, depth=4, filters=6)
    block = ["Conv2d", "BatchNorm2d", "ReLU"]
    wanted = nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Linear
    assert kinds(network, *wanted) == [
        *block,
        "MaxPool2d",
        *2 * [*block, "AvgPool2d"],
        "Linear",
    ]
    filters = (shape[0] * 25 * 6 + 6) + 2 * (6 * 25 * 6 + 6)
    norms = 3 * 2 * 6
    assert num_parameters(network) == filters + norms + (6 * places * 10 + 10)


def test_cnn_convolves_at_full_resolution_and_halves_it_by_pooling():
    shapes = []
    network = cnn(CIFAR, 10, depth=3, filters=2)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
            module.register_forward_hook(lambda m, args, out: shapes.append(tuple(out.shape[2:])))
    network(torch.rand(2, *CIFAR))
    assert shapes == [(32, 32), (16, 16), (16, 16), (8, 8)]


@pytest.mark.parametrize(("n", "width"), [(1, 4), (3, 16)])
def test_resnet(n, width):
    network = resnet(CIFAR, 10, blocks_per_stage=n, width=width)
    stages = [(2 * n - 1) * 9 * (k * width) ** 2 for k in (1, 2, 4)]
    first = [9 * a * b * width * width for a, b in ((1, 1), (1, 2), (2, 4))]
    norms = 2 * width * (1 + 2 * n * (1 + 2 + 4))
    expected = 9 * 3 * width + sum(stages) + sum(first) + norms + (4 * width * 10 + 10)
    assert num_parameters(network) == expected
    assert len(kinds(network, nn.Conv2d, nn.Linear)) == 6 * n + 2
    heights = []
    for child in list(network)[:-1]:
        child.register_forward_hook(lambda m, args, out: heights.append(tuple(out.shape[1:])))
    network(torch.rand(2, *CIFAR))
    assert heights == [
        (width, 32, 32),
        (width, 32, 32),
        (2 * width, 16, 16),
        (4 * width, 8, 8),
    ]


def test_a_residual_block_without_a_body_passes_its_input_on():
    stage2 = resnet(CIFAR, 10, blocks_per_stage=1, width=4).stage2.eval()
    for p in stage2.parameters():
        p.detach().zero_()
    x = torch.rand(2, 4, 8, 8)
    out = stage2(x)
    torch.testing.assert_close(out[:, :4], x[:, :, ::2, ::2], rtol=0, atol=0)
    assert not out[:, 4:].any()


@pytest.mark.parametrize(
    ("num_hidden", "below"), [(1, "layer1"), (2, "layer1"), (3, "layer2"), (50, "layer25")]
)
def test_one_interface_in_the_middle(num_hidden, below):
    network = deep(MNIST, 10, num_hidden=num_hidden, width=4)
    assert len(kinds(network, nn.ReLU)) == num_hidden
    assert middle(network) == below
    assert sg.validate(network, middle(network), torch.rand(2, *MNIST)).ok


@pytest.mark.parametrize(
    "make",
    [
        lambda: fcn(MNIST, 10, depth=1, width=8),
        lambda: fcn(MNIST, 10, depth=2, width=0),
        lambda: cnn((784,), 10, depth=3, filters=8),
        lambda: cnn(MNIST, 10, depth=1, filters=8),
        lambda: cnn(MNIST, 10, depth=3, filters=8, kernel=4),
        lambda: resnet((784,), 10),
        lambda: resnet(MNIST, 10, blocks_per_stage=0),
        lambda: even(MNIST, 10, depth=0, width=8),
        lambda: even(MNIST, 10, depth=4, width=0),
        lambda: middle(nn.Sequential(nn.Linear(2, 2))),
    ],
)
def test_what_cannot_be_built_is_refused(make):
    with pytest.raises(ConfigError):
        make()
