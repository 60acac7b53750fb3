"""A network trained by the wavefront engine, driven by the clock like any other learner."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synthgrad.bench.running.by_engine import EngineLearner
from synthgrad.bench.running.learner import Learner
from synthgrad.engines import Wavefront
from synthgrad.updates import draw_updates


class WavefrontLearner(EngineLearner):
    """A chain in training by the wavefront engine.

    A step takes a batch in; the batches of the last steps are still under way when a snapshot is
    taken, and at the end of a run, where a handful of updates among thousands are not made.

    Args:
        engine: over the chain, not begun.
        loop: as `EngineLearner` takes it.
        inputs: of one batch, for the shapes.
        labels: likewise.
    """

    def __init__(self, engine: Wavefront, loop: Learner, inputs: Tensor, labels: Tensor) -> None:
        """Take the engine, and let it lay itself out for batches of this shape."""
        super().__init__(engine.chain, engine.optimizer, loop)
        self.engine = engine
        self._rates = [o.param_groups[0]["lr"] for o in self._optimizers()]
        self._begin(inputs, labels)

    @property
    def carried_bytes(self) -> int:
        """What the batches under way keep from one step to the next."""
        return self.engine.carried_bytes()

    @property
    def num_updated(self) -> int:
        """How many stages the latest step updated: none of those that no batch had reached."""
        latest = self.engine.num_batches - 1
        return sum(
            _drawn(self.engine.probabilities, self.engine.seed, latest - stage, stage)
            for stage in range(self.num_stages)
            if stage <= latest
        )

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Take a batch in, and return the loss of the one that came to its end; 0 before any."""
        loss = self.engine.step(inputs, labels)
        return torch.zeros((), device=inputs.device) if loss is None else loss

    def scale_learning_rates(self, factor: float) -> None:
        """Set every learning rate to `factor` times what it was at the start."""
        for optimizer, rate in zip(self._optimizers(), self._rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor

    def state_dict(self) -> dict[str, Any]:
        """Return the engine's state; tensors are not copied."""
        return self.engine.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.engine.load_state_dict(state)

    def _optimizers(self) -> Sequence[torch.optim.Optimizer]:
        both = self.engine.optimizer, self.engine.synthesizer_optimizer
        return [optimizer for optimizer in both if optimizer is not None]

    def _begin(self, inputs: Tensor, labels: Tensor) -> None:
        """Let the engine lay itself out, and undo the training of the batch that this takes.

        An engine that has begun cannot load the state of one that has not, so the state before any
        batch is made here: the first weights, and moments of zero.
        """
        before = copy.deepcopy(self.engine.chain.state_dict())
        empty = copy.deepcopy(self.engine.state_dict())
        self.engine.step(inputs, labels)
        begun = copy.deepcopy(self.engine.state_dict())
        moments = {
            name: [torch.zeros_like(t) for t in own] for name, own in begun["moments"].items()
        }
        kept = {key: empty[key] for key in ("steps", "fit_steps", "num_batches", "line")}
        self.engine.load_state_dict({**begun, **kept, "chain": before, "moments": moments})


def _drawn(probabilities: Sequence[float], seed: int, batch: int, stage: int) -> bool:
    return draw_updates(tuple(probabilities), seed=seed, step=batch)[stage]
