"""Ranks as threads: the same work with a pipeline on each, and a small network for it."""

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import synthgrad as sg

ADAM = partial(torch.optim.Adam, lr=1e-2)
LABELED = sg.SyntheticGradient(condition=sg.OneHot(3))


def network(stages: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(stages - 1)]
    return nn.Sequential(*layers, nn.Linear(6, 3)).double()


def batches(count: int, size: int = 5) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 6, dtype=torch.float64, generator=generator),
            torch.randint(0, 3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def chain_of(signal: sg.ErrorSignal = LABELED, stages: int = 4) -> sg.Chain:
    example = torch.zeros(2, 6, dtype=torch.float64)
    return sg.Chain.from_sequential(network(stages), signal=signal, example_inputs=example)


def options(**others: Any) -> dict[str, Any]:
    given = {"loss": F.cross_entropy, "optimizer": ADAM, "synthesizer_optimizer": ADAM}
    return given | others


def on_ranks(work: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Run the work on one thread for each of the arguments; raise what the first one raised."""
    results: list[Any] = [None] * len(arguments)
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(*arguments[rank])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(arguments))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a rank hangs"
    if errors:
        raise errors[0]
    return results


def pipelines(
    work: Callable[[sg.engines.Pipeline], Any],
    chain: sg.Chain,
    num_ranks: int,
    *,
    wrap: Callable[[Any], Any] = lambda transport: transport,
    **given: Any,
) -> list[Any]:
    """Run the work with a pipeline on every rank, each over its own copy of the chain."""

    def run(transport: Any, own: sg.Chain) -> Any:
        with sg.engines.Pipeline(
            own, **{"timeout_s": 20, **options(**given)}, transport=wrap(transport)
        ) as engine:
            return work(engine)

    transports = sg.engines.pipeline.in_process(num_ranks)
    return on_ranks(run, [(t, copy.deepcopy(chain)) for t in transports])
