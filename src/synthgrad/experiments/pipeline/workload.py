"""What every method of a pipeline experiment trains: one network, cut at the same places."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

import synthgrad as sg
from synthgrad.bench.seeds import derive_seed
from synthgrad.synthesizers import Builder

Batch = tuple[Tensor, Tensor]
LOSS: Callable[[Any, Tensor], Tensor] = F.cross_entropy
SGD: Callable[..., Optimizer] = partial(torch.optim.SGD, fused=True)
ADAM: Callable[..., Optimizer] = partial(torch.optim.Adam, fused=True)


@dataclass(frozen=True, kw_only=True)
class Workload(ABC):
    """A network, its data and its optimizer; built anew, and alike, on every rank.

    Args:
        seed: of weights and batches, each derived for its own purpose.
        batch_size: examples in a batch, of all ranks together.
        num_classes: that the labels name.
        optimizer: makes one for some parameters; on module level, or a partial of such.
        learning_rate: given to it as `lr`.
        synthesizer: of the interfaces.
        cut_at: children at which a new stage begins; empty for as equal numbers of them as can be.
    """

    seed: int
    batch_size: int
    num_classes: int
    optimizer: Callable[..., Optimizer] = SGD
    learning_rate: float = 1e-3
    synthesizer: str | Builder = "linear"
    cut_at: tuple[int, ...] = ()

    @property
    def is_recurrent(self) -> bool:
        """Whether it has cuts in time, and so signals there."""
        return False

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is, in a few words."""

    @abstractmethod
    def network(self, signal_in_time: bool = True) -> nn.Sequential:
        """Make the network; its weights come from torch's global generator.

        Args:
            signal_in_time: for a recurrent one, whether its cuts in time hand a synthetic gradient
                down; without meaning for others.
        """

    @abstractmethod
    def batches(self) -> Iterator[Batch]:
        """Return inputs and labels without end."""

    def come_in_parts(self, network: nn.Module, number: int) -> None:
        """Tell a network, or a stage of it, that its batches come in so many parts; once."""
        return

    def begin_anew(self, network: nn.Module) -> None:
        """Let a network, or a stage of it, forget what it carries from batch to batch."""
        return

    def judged(self) -> Sequence[Batch]:
        """Return validation batches."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to be judged on")

    def cuts(self, num_stages: int) -> list[int]:
        """Return the children at which a new stage begins."""
        if len(self.cut_at) == num_stages - 1:
            return list(self.cut_at)
        count = len(self.network())
        return [count * k // num_stages for k in range(1, num_stages)]

    @property
    def make_optimizer(self) -> Callable[[list[nn.Parameter]], Optimizer]:
        """Make the optimizer of some parameters."""
        return partial(self.optimizer, lr=self.learning_rate)

    def build(self, *, signal_in_time: bool = True) -> nn.Sequential:
        """Make the network with the weights that the seed names."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "weights"))
            return self.network(signal_in_time)

    def stages(self, num_stages: int) -> list[nn.Module]:
        """Make the network in parts, for methods without interfaces."""
        network, bounds = self.build(signal_in_time=False), self._bounds(num_stages)
        return [network[a:b] for a, b in bounds]

    def chain(
        self,
        num_stages: int,
        signal: sg.ErrorSignal | None = None,
        *,
        signal_in_time: bool = True,
    ) -> sg.Chain:
        """Make the network as a chain of stages, by default with conditioned DNI."""
        network = self.build(signal_in_time=signal_in_time)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "synthesizers"))
            return sg.Chain.from_sequential(
                network,
                cuts=[start for start, _ in self._bounds(num_stages)[1:]],
                example_inputs=next(self.batches())[0],
                signal=signal or self.cdni(),
            )

    def cdni(self) -> sg.ErrorSignal:
        """Return a synthetic gradient that sees the labels."""
        return sg.SyntheticGradient(
            synthesizer=self.synthesizer, condition=sg.OneHot(self.num_classes)
        )

    def _bounds(self, num_stages: int) -> Sequence[tuple[int, int]]:
        places = [0, *self.cuts(num_stages), len(self.network())]
        return list(itertools.pairwise(places))
