"""Training stage by stage, in an order drawn anew for every batch, under the same clock.

The reference engine runs the stages; it steps the very optimizer that an ordinary loop would, so
an arm trained so differs from that loop in nothing but the order of its updates.
"""

import random
from functools import partial
from typing import Any

from torch import Tensor

import synthgrad as sg
from synthgrad.bench.running.learner import Learner
from synthgrad.bench.seeds import derive_seed


class AnyOrderLearner(Learner):
    """A decoupled network whose stages are updated one after the other in random order.

    Args:
        learner: with a decoupled `nn.Sequential` and its optimizer, whose place this one takes.
        seed: of the run, from which that of the orders is derived.
    """

    def __init__(self, learner: Learner, seed: int) -> None:
        assert learner.decoupled is not None
        super().__init__(
            learner.net, learner.optimizer, num_stages=learner.num_stages, loss=learner.loss
        )
        # One optimizer for all stages: it passes over parameters without a gradient, and at any
        # time only those of the stage or synthesizer at work have one.
        self.engine = sg.engines.Sequential(
            sg.Chain.from_decoupled(learner.decoupled),
            loss=learner.loss,
            optimizer=lambda _: learner.optimizer,
            synthesizer_optimizer=lambda _: learner.optimizer,
            order=partial(draw_order, derive_seed(seed, "orders"), learner.num_stages),
        )

    @property
    def num_updated(self) -> int:
        """Every stage, in every step."""
        return self.num_stages

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Train on one batch, a stage at a time."""
        return self.engine.step(inputs, labels)

    def state_dict(self) -> dict[str, Any]:
        """Return what a learner's holds, and the number of steps, which decides the next order."""
        return {**super().state_dict(), "num_steps": self.engine.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.engine.num_steps = state["num_steps"]


def draw_order(seed: int, num_stages: int, step: int) -> list[int]:
    """Return the order of the stages in a step; any permutation is as likely as any other.

    Example:
        >>> sorted(draw_order(0, 4, step=7))
        [0, 1, 2, 3]
    """
    return random.Random(f"synthgrad order {seed} {step}").sample(range(num_stages), num_stages)
