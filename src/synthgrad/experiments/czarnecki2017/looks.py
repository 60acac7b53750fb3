"""A network trained inside a task of a study, and stopped a few times to be looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from synthgrad.bench.running.learner import Learner
from synthgrad.bench.running.training import advance, first_bad_loss
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Batches, Dataset, Split, load
from synthgrad.errors import ConfigError, DivergedError
from synthgrad.experiments.grid import Method
from synthgrad.experiments.networks import fcn


@dataclass(frozen=True, kw_only=True)
class Training:
    """A fully connected network on a data set, and when its training is looked at.

    Args:
        dataset: Name of the data.
        depth: Layers, the last of them linear.
        width: Units of a hidden layer.
        stops: Iterations after which it is looked at; the last is the end.
        num_seeds: So many of the seeds; 0 leaves it out.
        batch_size: Examples in a batch.
        learning_rate: Of Adam, for stages and synthesizers alike.

    Raises:
        ConfigError: A value cannot work.
    """

    dataset: str = "mnist"
    depth: int = 6
    width: int = 256
    stops: tuple[int, ...] = (50, 1_000)
    num_seeds: int = 3
    batch_size: int = 256
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        if not self.stops or sorted(set(self.stops)) != list(self.stops) or self.stops[0] < 0:
            raise ConfigError(f"stops={self.stops} are iterations from 0 on, each after the other")
        if not self.learning_rate > 0 or self.num_seeds < 0:
            raise ConfigError(
                f"learning_rate={self.learning_rate} must be above 0 and "
                f"num_seeds={self.num_seeds} 0 or more"
            )


@dataclass(frozen=True, kw_only=True)
class Look:
    """A network in mid-training, or at its end."""

    iteration: int
    learner: Learner
    data: Dataset
    is_last: bool


def looks(
    method: Method, training: Training, *, seed: int, device: str, data_dir: Path | None
) -> Iterator[Look]:
    """Train a network and yield at each of its stops.

    The same seed gives the same initial weights and batches, whatever the method.

    Args:
        method: how it is trained.
        training: what, and for how long.
        seed: of weights, batches and skipped stages.
        device: where.
        data_dir: where to look for the data first.

    Raises:
        DataNotFoundError: the data are not here.
        DivergedError: the loss is not finite.
    """
    data = _load(training.dataset, data_dir).to(device)
    network = partial(fcn, depth=training.depth, width=training.width)
    learner = method.build(network, training.learning_rate, seed, data)
    learner.net.train()
    torch.manual_seed(derive_seed(seed, "training"))
    order = derive_seed(seed, "batches")
    batches = Batches(data.train, batch_size=training.batch_size, seed=order)
    done = 0
    for stop in training.stops:
        losses, _ = advance(learner, batches, stop - done)
        if losses and (bad := first_bad_loss(losses)):
            raise DivergedError(f"loss is {bad[1]} at iteration {done + bad[0] + 1}")
        done = stop
        yield Look(iteration=stop, learner=learner, data=data, is_last=stop == training.stops[-1])


def by_class(split: Split, num_per_class: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the first examples of each class as they lie on disk, sorted by class.

    Args:
        split: where they come from.
        num_per_class: so many of each class, or all that there are.
        num_classes: labels are 0 to `num_classes` - 1.

    Returns:
        Inputs and labels, as `Split.take` returns them.
    """
    places = [
        (split.labels == label).nonzero().flatten()[:num_per_class] for label in range(num_classes)
    ]
    return split.take(torch.cat(places))


# The tasks of a study follow each other in one process, most of them on the same data.
_load = lru_cache(maxsize=1)(load)
