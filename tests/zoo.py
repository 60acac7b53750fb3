"""Awkward networks in float64, cut into parts, that every equivalence must hold for.

A specimen is a module whose forward pass is its `parts` one after the other, so that a test can
also run it by hand. Its cuts are the modules in `at`, at the end of each part but the last.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH, CLASSES = 8, 3


class InParts(nn.Module):
    """A module that runs its parts in order; specimens say what the parts are."""

    def parts(self) -> list[Callable[[Any], Any]]:
        return list(self.children())

    def forward(self, x: Any) -> Tensor:
        for part in self.parts():
            x = part(x)
        return x


def block(width_in: int, width_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width_in, width_out), nn.Tanh())


class Mlp(InParts):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = block(6, 10), block(10, 9), block(9, 8)
        self.top = nn.Linear(8, CLASSES)


class BatchNorm(InParts):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(6, 10, bias=False), nn.BatchNorm1d(10), nn.ReLU())
        self.b = nn.Sequential(nn.Linear(10, 10, bias=False), nn.BatchNorm1d(10), nn.ReLU())
        self.top = nn.Linear(10, CLASSES)


class Dropout(InParts):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Dropout(0.2), block(6, 10), nn.Dropout(0.5))
        self.b = nn.Sequential(block(10, 10), nn.Dropout(0.3))
        self.top = nn.Linear(10, CLASSES)


class Conv(InParts):
    """Feature maps, batch norm, and an operation in place right after an interface."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.b = nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.top = nn.Linear(5, CLASSES)

    def parts(self) -> list[Callable[[Any], Any]]:
        return [
            self.a,
            lambda h: self.b(F.relu(h, inplace=True)),
            lambda h: self.top(F.relu(h, inplace=True).mean((2, 3))),
        ]


class InPlaceView(InParts):
    """The next stage writes into a view of what came up."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.top = nn.Linear(6, 10), block(10, 10), nn.Linear(10, CLASSES)

    def parts(self) -> list[Callable[[Any], Any]]:
        def mask(h: Tensor) -> Tensor:
            h[:, :3] *= 0.5
            return self.b(h)

        return [self.a, mask, self.top]


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return x + self.out(weights @ v)


class Transformer(InParts):
    """Activations [batch, time, features]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 8)
        self.a, self.b = Attention(8), Attention(8)
        self.head = nn.Linear(8, CLASSES)

    def parts(self) -> list[Callable[[Any], Any]]:
        return [
            lambda x: self.a(self.embed(x.reshape(BATCH, 3, 2))),
            self.b,
            lambda h: self.head(h.mean(1)),
        ]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = block(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(self.inner(x))


class Residuals(InParts):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(6, 10), Residual(10))
        self.b, self.c = Residual(10), Residual(10)
        self.top = nn.Linear(10, CLASSES)


class Reused(InParts):
    """A stage calls the same layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.loop, self.end = nn.Linear(6, 10), nn.Linear(10, 10), nn.Identity()
        self.b, self.top = block(10, 10), nn.Linear(10, CLASSES)

    def parts(self) -> list[Callable[[Any], Any]]:
        def bottom(x: Tensor) -> Tensor:
            return self.end(self.loop(torch.tanh(self.loop(torch.tanh(self.up(x))))))

        return [bottom, self.b, self.top]


class Shared(InParts):
    """The same weights in two stages."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.a, self.b = nn.Linear(6, 10), block(10, 10), block(10, 10)
        self.b[0].weight = self.a[0].weight
        self.top = nn.Linear(10, CLASSES)

    def parts(self) -> list[Callable[[Any], Any]]:
        return [lambda x: self.a(self.up(x)), self.b, self.top]


class Frozen(InParts):
    """Some parameters of a stage are frozen, and the whole of another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = block(6, 10), block(10, 10), block(10, 10)
        self.top = nn.Linear(10, CLASSES)
        self.a[0].bias.requires_grad_(False)
        self.b.requires_grad_(False)


class FrozenBottom(InParts):
    """Nothing below the first interface needs a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.top = block(6, 10), block(10, 10), nn.Linear(10, CLASSES)
        self.a.requires_grad_(False)


class Pair(NamedTuple):
    left: Tensor
    note: str
    right: Tensor


class Fork(nn.Module):
    """Returns a named tuple with something in it that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = block(6, 10), block(6, 7)

    def forward(self, x: Tensor) -> Pair:
        return Pair(self.left(x), "between", self.right(x))


class ToDict(nn.Module):
    """Returns a dict with a nested list and integers in it."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = block(10, 9), block(7, 5)

    def forward(self, pair: Pair) -> dict[str, Any]:
        indices = torch.arange(BATCH)
        return OrderedDict(
            nested=[self.left(pair.left), (self.right(pair.right), None)], indices=indices
        )


class FromDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(9, CLASSES), nn.Linear(5, CLASSES)

    def forward(self, h: dict[str, Any]) -> Tensor:
        assert type(h) is OrderedDict
        left, (right, _) = h["nested"]
        return (self.left(left) * self.right(right))[h["indices"]]


class Trees(InParts):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.top = Fork(), ToDict(), FromDict()


class NoGradBranch(InParts):
    """Half of a stage runs under no_grad."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.side, self.b = block(6, 10), block(10, 10), block(10, 10)
        self.end, self.top = nn.Identity(), nn.Linear(10, CLASSES)

    def parts(self) -> list[Callable[[Any], Any]]:
        def middle(h: Tensor) -> Tensor:
            with torch.no_grad():
                side = self.side(h)
            return self.end(self.b(h) + side + self.b(h).detach())

        return [self.a, middle, self.top]


class Hooked(InParts):
    """Hooks of the user's own on modules with an interface, and on an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.top = block(6, 10), block(10, 10), nn.Linear(10, CLASSES)
        self.a.register_forward_hook(_double)
        self.b.register_forward_pre_hook(_negate)
        self.b[1].register_full_backward_hook(_halve)


def _double(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output * 2


def _negate(module: nn.Module, args: tuple[Tensor]) -> Tensor:
    return -args[0]


def _halve(module: nn.Module, grad_input: Any, grad_output: Any) -> Any:
    return tuple(None if g is None else g / 2 for g in grad_input)


class Counting(InParts):
    """Keeps a running mean in a buffer that every forward pass replaces by a new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.top = block(6, 10), block(10, 10), nn.Linear(10, CLASSES)
        self.register_buffer("mean", torch.zeros(10))

    def parts(self) -> list[Callable[[Any], Any]]:
        def centered(h: Tensor) -> Tensor:
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
            return self.b(h - self.mean)

        return [self.a, centered, self.top]


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """One awkward network: how to make it, and after which modules its parts end."""

    make: Callable[[], InParts]
    at: tuple[str, ...]
    shape: tuple[int, ...] = (6,)

    @property
    def name(self) -> str:
        return self.make.__name__

    def model(self) -> InParts:
        """The same weights at every call, in float64."""
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return self.make().double()

    def batch(self, number: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the batch of that number."""
        source = torch.Generator().manual_seed(number)
        x = torch.randn(BATCH, *self.shape, generator=source, dtype=torch.float64)
        return x, torch.randint(0, CLASSES, (BATCH,), generator=source)


ZOO = (
    Specimen(make=Mlp, at=("a", "b", "c")),
    Specimen(make=BatchNorm, at=("a", "b")),
    Specimen(make=Dropout, at=("a", "b")),
    Specimen(make=Conv, at=("a", "b"), shape=(1, 6, 6)),
    Specimen(make=InPlaceView, at=("a", "b")),
    Specimen(make=Transformer, at=("a", "b")),
    Specimen(make=Residuals, at=("a", "b", "c")),
    Specimen(make=Reused, at=("end", "b")),
    Specimen(make=Shared, at=("a", "b")),
    Specimen(make=Frozen, at=("a", "b", "c")),
    Specimen(make=FrozenBottom, at=("a", "b")),
    Specimen(make=Trees, at=("a", "b")),
    Specimen(make=NoGradBranch, at=("a", "end")),
    Specimen(make=Hooked, at=("a", "b")),
    Specimen(make=Counting, at=("a", "b")),
)
