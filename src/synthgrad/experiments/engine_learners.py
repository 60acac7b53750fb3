"""What `make_learner` gives, trained by an engine in place of a loop: wavefront or pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

import synthgrad as sg
from synthgrad.bench.running.by_pipeline import PipelineLearner
from synthgrad.bench.running.by_wavefront import WavefrontLearner
from synthgrad.bench.running.randomness import forked_random
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Dataset
from synthgrad.engines.pipeline import Driver, Transport
from synthgrad.experiments.training import make_learner
from synthgrad.signals import ErrorSignal


def make_wavefront_learner(
    make_network: Callable[[], nn.Sequential],
    signal: ErrorSignal,
    *,
    seed: int,
    data: Dataset,
    batch_size: int,
    learning_rate: float,
    compile: bool,
    update_probability: float = 1.0,
) -> WavefrontLearner:
    """Return a fresh network, every child a stage, with the wavefront engine that trains it.

    Weights and synthesizers are those that `make_learner` gives for the same seed; on CUDA a tick
    is recorded as CUDA graphs.

    Args:
        make_network: draws the weights from torch's global generator, on the CPU.
        signal: what the interfaces hand down.
        seed: as in `make_learner`.
        data: on the device to train on.
        batch_size: examples in a batch.
        learning_rate: of Adam, for stages and synthesizers.
        compile: whether to compile the tick.
        update_probability: with which a stage is updated.
    """
    loop = make_learner(
        make_network,
        signal,
        seed=seed,
        data=data,
        learning_rate=learning_rate,
        update_probability=update_probability,
    )
    device = data.train.labels.device
    chain = _make_chain(make_network, signal, seed, data.input_shape, device)
    inputs = torch.zeros(batch_size, *data.input_shape, device=device)
    optimizer = partial(torch.optim.Adam, lr=learning_rate, fused=True)
    engine = sg.engines.Wavefront(
        chain,
        loss=F.cross_entropy,
        optimizer=optimizer,
        synthesizer_optimizer=optimizer,
        update_probability=update_probability,
        seed=derive_seed(seed, "updates"),
        compile=compile,
        cuda_graph=device.type == "cuda",
    )
    labels = torch.arange(batch_size, device=device) % data.num_classes
    return WavefrontLearner(engine, loop, inputs, labels)


def make_pipeline_learner(
    make_network: Callable[[], nn.Sequential],
    signal: ErrorSignal,
    *,
    seed: int,
    data: Dataset,
    learning_rate: float,
    num_ranks: int,
    update_probability: float = 1.0,
) -> PipelineLearner:
    """Return a fresh network, every child a stage, with the processes that train it.

    Weights and synthesizers are those that `make_learner` gives for the same seed. Interfaces
    within a rank are fitted in the same step, those between two ranks two batches later.

    Args:
        make_network: draws the weights from torch's global generator; it goes to other processes.
        signal: what the interfaces hand down; it goes there too.
        seed: as in `make_learner`.
        data: on the CPU.
        learning_rate: of Adam, for stages and synthesizers.
        num_ranks: processes, of one thread each; this one is the first.
        update_probability: with which a stage is updated.
    """
    loop = make_learner(
        make_network,
        signal,
        seed=seed,
        data=data,
        learning_rate=learning_rate,
        update_probability=update_probability,
    )
    line = _Line(
        make_network=make_network,
        signal=signal,
        seed=seed,
        input_shape=tuple(data.input_shape),
        learning_rate=learning_rate,
        update_probability=update_probability,
    )
    return PipelineLearner(Driver(_make_pipeline, line, num_ranks=num_ranks), loop)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """What every rank of a pipeline is made from."""

    make_network: Callable[[], nn.Sequential]
    signal: ErrorSignal
    seed: int
    input_shape: tuple[int, ...]
    learning_rate: float
    update_probability: float


def _make_pipeline(transport: Transport, line: _Line) -> sg.engines.Pipeline:
    with forked_random(torch.device("cpu")):
        chain = _make_chain(line.make_network, line.signal, line.seed, line.input_shape)
    starts = {len(chain) * k // transport.num_ranks for k in range(1, transport.num_ranks)}
    optimizer = partial(torch.optim.Adam, lr=line.learning_rate, fused=True)
    return sg.engines.Pipeline(
        chain,
        loss=F.cross_entropy,
        optimizer=optimizer,
        synthesizer_optimizer=optimizer,
        target_delays=[2 if above in starts else 0 for above in range(1, len(chain))],
        update_probability=line.update_probability,
        seed=derive_seed(line.seed, "updates"),
        transport=transport,
    )


def _make_chain(
    make_network: Callable[[], nn.Sequential],
    signal: ErrorSignal,
    seed: int,
    input_shape: Sequence[int],
    device: torch.device | str = "cpu",
) -> sg.Chain:
    torch.manual_seed(derive_seed(seed, "weights"))
    network = make_network().to(device)
    torch.manual_seed(derive_seed(seed, "synthesizers"))
    examples = torch.zeros(2, *input_shape, device=device)
    return sg.Chain.from_sequential(network, signal=signal, example_inputs=examples)
