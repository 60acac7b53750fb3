"""How the experiments build what they train: a network, its interfaces, and one Adam for all."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

import synthgrad as sg
from synthgrad.bench.running.learner import Learner
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Dataset
from synthgrad.signals import ErrorSignal

Signals = ErrorSignal | Mapping[str, ErrorSignal]


def make_learner(
    make_network: Callable[[], nn.Sequential],
    signal: Signals | None,
    *,
    seed: int,
    data: Dataset,
    learning_rate: float,
    synthesizer_rate_factor: float = 1.0,
    at: Any = "every",
    num_stages: int | None = None,
    compile_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Learner:
    """Return a fresh network with the way it is trained.

    The same seed gives the stages the same initial weights, whatever the signal.

    Args:
        make_network: draws the weights from torch's global generator, on the CPU.
        signal: what the interfaces hand down; None for backprop, without interfaces.
        seed: of weights, synthesizers and skipped stages, each derived for its own purpose.
        data: on the device to train on.
        learning_rate: of Adam, for stages and synthesizers.
        synthesizer_rate_factor: the synthesizers' learning rate over that of the stages.
        at: where to cut.
        num_stages: for backprop: into how many stages the other arms cut the network, if not
            each child is one, so that updates are counted in the same unit.
        compile_options: as `Learner` takes them.
        **options: further arguments of `sg.decouple`.
    """
    device = data.train.labels.device
    torch.manual_seed(derive_seed(seed, "weights"))
    network = make_network().to(device)
    num_stages = num_stages or len(network)
    net: nn.Module = network
    synthesizers = list[nn.Parameter]()
    if signal is not None:
        torch.manual_seed(derive_seed(seed, "synthesizers"))
        net = sg.decouple(
            network,
            at=at,
            example_inputs=torch.zeros(2, *data.input_shape, device=device),
            signal=signal,
            seed=derive_seed(seed, "updates"),
            **options,
        )
        num_stages = net.num_stages
        synthesizers = list(net.synthesizer_parameters())
    return Learner(
        net,
        adam(
            network.parameters(),
            synthesizers,
            learning_rate=learning_rate,
            synthesizer_rate=synthesizer_rate_factor * learning_rate,
        ),
        num_stages=num_stages,
        compile_options=compile_options,
    )


def adam(
    own: Iterable[nn.Parameter],
    synthesizers: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    synthesizer_rate: float,
    fused: bool = True,
) -> torch.optim.Adam:
    """Return one Adam for all, with a rate of its own for synthesizers.

    Args:
        own: what is trained by a signal or by the loss.
        synthesizers: what is fitted to targets; may be none.
        learning_rate: of `own`.
        synthesizer_rate: of `synthesizers`.
        fused: whether one kernel updates all.
    """
    groups: list[dict[str, Any]] = [{"params": list(own)}]
    if fitted := list(synthesizers):
        groups.append({"params": fitted, "lr": synthesizer_rate})
    return torch.optim.Adam(groups, lr=learning_rate, fused=fused)
