"""Each head equals its layers written out, in float64."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import synthgrad as sg
from synthgrad.errors import ConfigError, InterfaceError
from synthgrad.signals import heads

CLASSES = 3


def norm(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Batch norm in training, a feature (or a channel) at a time."""
    over = [d for d in range(h.dim()) if d != 1]
    shape = [-1 if d == 1 else 1 for d in range(h.dim())]
    mean, variance = h.mean(over, keepdim=True), h.var(over, unbiased=False, keepdim=True)
    return (h - mean) / (variance + 1e-5).sqrt() * weight.view(shape) + bias.view(shape)


def averaged(h: Tensor, rows: int, columns: int) -> Tensor:
    """Means over a grid's cells, which overlap where the sides do not divide."""
    height, width = h.shape[-2:]

    def cell(i: int, j: int) -> Tensor:
        top, left = i * height // rows, j * width // columns
        bottom, right = math.ceil((i + 1) * height / rows), math.ceil((j + 1) * width / columns)
        return h[..., top:bottom, left:right].mean((-2, -1))

    cells = [[cell(i, j) for j in range(columns)] for i in range(rows)]
    return torch.stack([torch.stack(row, -1) for row in cells], -2)


def by_hand(name: str, h: Tensor, parameters: list[Tensor]) -> Tensor:
    """Run a head from its parameters, in the order of its layers."""
    left = iter(parameters)

    def dense(h: Tensor) -> Tensor:
        h = h.flatten(1)
        for _ in range(3):
            h = F.relu(norm(h @ next(left).T, next(left), next(left)))
        return h

    if name == "auto":
        name = "conv" if h.dim() == 4 else "linear"
    if name == "pooled" and h.dim() == 4:
        h = averaged(h, 3, 2)
    if name == "mlp":
        h = dense(averaged(h, 2, 2) if h.dim() == 4 else h)
    if name == "mlp_sr":
        h = averaged(h, 2, 1)
        for _ in range(3):
            h = torch.einsum("bchw,dc->bdhw", h, next(left).flatten(1))
            h = F.relu(norm(h, next(left), next(left)))
        h = dense(h)  # 2 x 1 is smaller than the grid
    if name == "conv":
        for _ in range(2):
            h = F.conv2d(h, next(left), padding=1)
            h = F.relu(norm(h, next(left), next(left)))
        h = norm(averaged(h, 2, 2), next(left), next(left))
    scores = h.flatten(1) @ next(left).T + next(left)
    assert next(left, None) is None, "every parameter is used"
    return scores


SHAPES = {"features": (6,), "sequence": (3, 4), "maps": (2, 5, 4)}
HEADS = heads.HEADS | {"pooled": partial(heads.pooled, max_features=12)}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param(name, shape, id=f"{name} on {kind}")
        for name in HEADS
        for kind, shape in SHAPES.items()
        if kind == "maps" or name not in ("conv", "mlp_sr")
    ],
)
def test_a_head_equals_its_layers_by_hand(name: str, shape: tuple[int, ...]) -> None:
    head = HEADS[name](torch.Size(shape), CLASSES).double()
    for p in head.parameters():
        torch.nn.init.normal_(p, std=0.5)
    h = torch.randn(7, *shape, dtype=torch.float64)
    expected = by_hand(name, h, list(head.parameters()))
    # The same sums in another order.
    torch.testing.assert_close(head(h), expected, rtol=1e-10, atol=1e-12)
    assert expected.shape == (7, CLASSES)


def test_maps_are_pooled_only_where_they_are_too_many_features() -> None:
    fits, too_many = torch.Size([16, 16, 16]), torch.Size([16, 32, 32])
    for shape in (fits, too_many):
        assert heads.pooled(shape, CLASSES)[-1].in_features == 4096
    alone = heads.pooled(torch.Size([5000, 4, 4]), CLASSES)
    assert alone[-1].in_features == 5000, "one position remains"


def test_other_sizes() -> None:
    shape = torch.Size([4, 8, 8])
    small = heads.mlp(shape, CLASSES, hidden=(5,))
    assert [tuple(p.shape) for p in small.parameters()] == [(5, 16), (5,), (5,), (3, 5), (3,)]
    wide = heads.conv(shape, CLASSES, channels=(9,), kernel_size=5)
    assert next(tuple(p.shape) for p in wide.parameters()) == (9, 4, 5, 5)
    cheap = heads.mlp_sr(shape, CLASSES, channels=(7,), hidden=())
    assert [tuple(p.shape) for p in cheap.parameters()][-2:] == [(3, 28), (3,)]


@pytest.mark.parametrize("name", ["conv", "mlp_sr"])
@pytest.mark.parametrize("shape", [(6,), (3, 4)])
def test_heads_of_maps_refuse_anything_else(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=f"a {name} head takes"):
        sg.LocalLoss(num_classes=CLASSES, head=name).build(torch.zeros(2, *shape))


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match="kernel_size=4 must be odd"):
        heads.conv(torch.Size([2, 4, 4]), CLASSES, kernel_size=4)


@pytest.mark.parametrize("name", ["mlp", "mlp_sr", "conv"])
def test_one_example_alone_is_refused_where_the_batch_is_normalized(name: str) -> None:
    head = heads.HEADS[name](torch.Size([2, 4, 4]), CLASSES)
    with pytest.raises(InterfaceError, match=r"one example alone, of shape \(1, 2, 4, 4\)"):
        head(torch.zeros(1, 2, 4, 4))
    assert head.eval()(torch.zeros(1, 2, 4, 4)).shape == (1, CLASSES)


def test_the_refusal_names_the_interface() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3))
    signal = sg.LocalLoss(num_classes=3, head="mlp")
    net = sg.decouple(model, ["0"], example_inputs=torch.zeros(2, 6), signal=signal)
    with pytest.raises(InterfaceError, match=r"'0'.*one example alone"):
        net(torch.zeros(1, 6), condition=torch.tensor([1]))
