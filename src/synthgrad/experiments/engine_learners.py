"""What `make_learner` gives, trained by an engine in place of a loop: wavefront or pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

import synthgrad as sg
from synthgrad.bench.running.by_pipeline import PipelineLearner
from synthgrad.bench.running.by_wavefront import WavefrontLearner
from synthgrad.bench.running.learner import Learner
from synthgrad.bench.running.randomness import forked_random
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Dataset
from synthgrad.engines.pipeline import Driver, Transport
from synthgrad.experiments.training import make_learner
from synthgrad.signals import ErrorSignal


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network in which every child is a stage, and how it is trained, on any rank alike.

    Weights and synthesizers are those that `make_learner` gives for the same seed.

    Args:
        make_network: draws the weights from torch's global generator, on the CPU.
        signal: what the interfaces hand down.
        seed: as in `make_learner`.
        learning_rate: of Adam, for stages and synthesizers.
        update_probability: with which a stage is updated.
    """

    make_network: Callable[[], nn.Sequential]
    signal: ErrorSignal
    seed: int
    learning_rate: float
    update_probability: float = 1.0

    @property
    def optimizer(self) -> Callable[[list[nn.Parameter]], Optimizer]:
        """Make the optimizer of some parameters."""
        return partial(Adam, lr=self.learning_rate, fused=True)

    def loop(self, data: Dataset) -> Learner:
        """Return it trained by the ordinary loop."""
        return make_learner(
            self.make_network,
            self.signal,
            seed=self.seed,
            data=data,
            learning_rate=self.learning_rate,
            update_probability=self.update_probability,
        )

    def chain(self, input_shape: Sequence[int], device: torch.device | str = "cpu") -> sg.Chain:
        """Return it as a chain."""
        torch.manual_seed(derive_seed(self.seed, "weights"))
        network = self.make_network().to(device)
        torch.manual_seed(derive_seed(self.seed, "synthesizers"))
        examples = torch.zeros(2, *input_shape, device=device)
        return sg.Chain.from_sequential(network, signal=self.signal, example_inputs=examples)


def make_wavefront_learner(
    recipe: Recipe, data: Dataset, *, batch_size: int, compile: bool
) -> WavefrontLearner:
    """Return a fresh network with the wavefront engine that trains it.

    On CUDA a tick is recorded as CUDA graphs.

    Args:
        recipe: of the network.
        data: on the device to train on.
        batch_size: examples in a batch.
        compile: whether to compile the tick.
    """
    loop = recipe.loop(data)
    device = data.train.labels.device
    engine = sg.engines.Wavefront(
        recipe.chain(data.input_shape, device),
        loss=F.cross_entropy,
        optimizer=recipe.optimizer,
        synthesizer_optimizer=recipe.optimizer,
        update_probability=recipe.update_probability,
        seed=derive_seed(recipe.seed, "updates"),
        compile=compile,
        cuda_graph=device.type == "cuda",
    )
    inputs = torch.zeros(batch_size, *data.input_shape, device=device)
    labels = torch.arange(batch_size, device=device) % data.num_classes
    return WavefrontLearner(engine, loop, inputs, labels)


def make_pipeline_learner(recipe: Recipe, data: Dataset, *, num_ranks: int) -> PipelineLearner:
    """Return a fresh network with the processes that train it.

    Interfaces within a rank are fitted in the same step, those between ranks two batches later.

    Args:
        recipe: of the network; it goes to other processes.
        data: on the CPU.
        num_ranks: processes; this one is the first, the others have one thread.
    """
    shape = tuple(data.input_shape)
    driver = Driver(_make_pipeline, recipe, shape, num_ranks=num_ranks)
    return PipelineLearner(driver, recipe.loop(data))


def _make_pipeline(
    transport: Transport, recipe: Recipe, input_shape: Sequence[int]
) -> sg.engines.Pipeline:
    with forked_random(torch.device("cpu")):
        chain = recipe.chain(input_shape)
    starts = {len(chain) * k // transport.num_ranks for k in range(1, transport.num_ranks)}
    return sg.engines.Pipeline(
        chain,
        loss=F.cross_entropy,
        optimizer=recipe.optimizer,
        synthesizer_optimizer=recipe.optimizer,
        target_delays=[2 if above in starts else 0 for above in range(1, len(chain))],
        update_probability=recipe.update_probability,
        seed=derive_seed(recipe.seed, "updates"),
        transport=transport,
    )
