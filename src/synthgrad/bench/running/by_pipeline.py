"""A network trained by the pipeline engine, driven by the clock like any other learner.

This process is the lowest rank; the others follow it. A stretch of the timed loop ends when every
rank is done, so the seconds hold all of the work, and a snapshot finds nothing under way.
"""

from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.bench.running.by_engine import EngineLearner
from synthgrad.bench.running.learner import Learner
from synthgrad.engines.pipeline import Driver
from synthgrad.updates import draw_updates


class PipelineLearner(EngineLearner):
    """A chain in training by the pipeline engine.

    Args:
        driver: of the ranks.
        loop: as `EngineLearner` takes it.
    """

    def __init__(self, driver: Driver, loop: Learner) -> None:
        """Take the ranks as they are."""
        super().__init__(driver.engine.chain, driver.engine.optimizers[0], loop)
        self.driver = driver
        self._collected = 0

    @property
    def model(self) -> nn.Module:
        """The network, with what every rank has learned by now."""
        if self._collected != self.driver.engine.num_steps:
            self.driver.collect()
            self._collected = self.driver.engine.num_steps
        return self.net

    @property
    def carried_bytes(self) -> None:
        """Nobody adds up what several processes keep."""
        return None

    @property
    def num_updated(self) -> int:
        """How many stages the latest batch updates, on all ranks."""
        engine = self.driver.engine
        return sum(draw_updates(engine.probabilities, seed=engine.seed, step=engine.num_steps - 1))

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Train on one batch; the loss stays on the topmost rank, and 0 is returned for it."""
        self.driver.step(inputs, labels)
        return torch.zeros(())

    def settle(self) -> None:
        """Wait until every rank is done."""
        self.driver.flush()

    def scale_learning_rates(self, factor: float) -> None:
        """Set every learning rate to `factor` times what it was at the start."""
        self.driver.scale_learning_rates(factor)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all ranks."""
        return self.driver.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.driver.load_state_dict(state)
        self._collected = -1
