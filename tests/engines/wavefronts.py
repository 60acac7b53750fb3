"""What the tests of the wavefront engine share: networks, batches, and pairs of engines."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import synthgrad as sg
from synthgrad.engines.wavefront.plan import Outcome

# Adam blows up the rounding noise of a bias in front of a batch norm; a larger eps keeps it small.
ADAM = partial(torch.optim.Adam, lr=1e-2, eps=1e-3)
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": ADAM,
    "adam, weight decay": partial(ADAM, weight_decay=0.1),
    "adamw": partial(torch.optim.AdamW, lr=1e-2, eps=1e-3),
    "sgd": partial(torch.optim.SGD, lr=0.05),
    "sgd, nesterov": partial(
        torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "rmsprop, which is not stacked": partial(torch.optim.RMSprop, lr=1e-3, eps=1e-3),
}
LABELED = sg.SyntheticGradient(condition=sg.OneHot(3))
Network = Callable[[], list[nn.Module]]


def mlp() -> list[nn.Module]:
    def block(fan_in: int) -> nn.Module:
        return nn.Sequential(nn.Linear(fan_in, 6), nn.BatchNorm1d(6), nn.Tanh())

    # An odd first layer, and a classifier that only the last stage has.
    hidden = [nn.Sequential(block(6), block(6)) for _ in range(3)]
    return [nn.Sequential(block(5), block(6)), *hidden, nn.Sequential(block(6), nn.Linear(6, 3))]


def cnn() -> list[nn.Module]:
    def block(channels: int) -> nn.Module:
        convolution = nn.Conv2d(channels, 4, 3, padding=1)
        return nn.Sequential(convolution, nn.BatchNorm2d(4), nn.ReLU())

    top = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    return [block(1), block(4), block(4), top]


def unequal() -> list[nn.Module]:
    """No two stages alike, one of them frozen, one not an nn.Sequential."""
    frozen = nn.Linear(7, 8).requires_grad_(False)
    return [nn.Linear(5, 7), nn.Sequential(frozen, nn.Tanh()), nn.GELU(), nn.Linear(8, 3)]


def batches(
    count: int, shape: tuple[int, ...] = (8, 5), device: str = "cpu"
) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(shape, dtype=torch.float64, generator=generator).to(device),
            torch.randint(0, 3, shape[:1], generator=generator).to(device),
        )
        for _ in range(count)
    ]


def chain(network: Network, signal: sg.ErrorSignal, example: Tensor) -> sg.Chain:
    torch.manual_seed(0)
    modules = [module.to(example) for module in network()]
    return sg.Chain.from_modules(modules, signal=signal, example_inputs=example)


def pair(
    network: Network = mlp,
    signal: sg.ErrorSignal = LABELED,
    optimizer: Callable[..., torch.optim.Optimizer] = ADAM,
    shape: tuple[int, ...] = (8, 5),
    device: str = "cpu",
    compile: bool = False,
    cuda_graph: bool = False,
    **options: Any,
) -> tuple[sg.engines.Sequential, sg.engines.Wavefront]:
    options |= {
        "loss": F.cross_entropy,
        "optimizer": optimizer,
        "synthesizer_optimizer": optimizer,
    }
    example = torch.zeros(shape, dtype=torch.float64, device=device)
    reference = sg.engines.Sequential(chain(network, signal, example), target_delays=1, **options)
    return reference, sg.engines.Wavefront(
        chain(network, signal, example), compile=compile, cuda_graph=cuda_graph, **options
    )


def assert_equal(reference: sg.engines.Sequential, wavefront: sg.engines.Wavefront) -> None:
    # Batched products add in another order than single ones.
    torch.testing.assert_close(
        dict(wavefront.chain.state_dict()),
        dict(reference.chain.state_dict()),
        rtol=1e-9,
        atol=1e-12,
    )


def train(engines: tuple[Any, Any], data: list[tuple[Tensor, Tensor]]) -> None:
    for engine in engines:
        for x, y in data:
            engine.step(x, y)
        engine.flush()


def set_rate(
    reference: sg.engines.Sequential, wavefront: sg.engines.Wavefront, rate: float
) -> None:
    for optimizer in (
        *reference.optimizers,
        *reference.synthesizer_optimizers,
        wavefront.optimizer,
        wavefront.synthesizer_optimizer,
    ):
        if optimizer is not None:
            optimizer.param_groups[0]["lr"] = rate


class Tape:
    """A recorder without a device: what it has recorded runs anew, and writes to the same place.

    Like a CUDA graph it runs nothing while recording, and sees the tensors of that time only.
    """

    def __init__(self) -> None:
        self.recordings = 0
        self._last: Outcome | None = None

    def warm_up(self, function: Callable[[], Outcome]) -> None:
        state = torch.get_rng_state()
        self._last = function()
        torch.set_rng_state(state)

    def record(self, function: Callable[[], Outcome]) -> tuple[Callable[[], object], Outcome]:
        self.recordings += 1
        place = pytree.tree_map(torch.zeros_like, self._last)

        def replay() -> None:
            found = function()
            for ours, new in zip(pytree.tree_leaves(place), pytree.tree_leaves(found), strict=True):
                ours.copy_(new)

        return replay, place
