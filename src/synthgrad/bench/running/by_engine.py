"""What a network trained by an engine has in common with others, as far as the clock can tell."""

import torch
from torch import nn

from synthgrad.bench.running.learner import Learner
from synthgrad.stage import Chain


class EngineLearner(Learner):
    """A chain in training by an engine.

    Args:
        chain: what the engine trains.
        optimizer: one of the engine's.
        loop: the same arm trained by the ordinary loop: its operations and its memory are counted,
            for an engine does not change what a batch needs.
    """

    def __init__(self, chain: Chain, optimizer: torch.optim.Optimizer, loop: Learner) -> None:
        """Take the stages as one network, without their interfaces."""
        network = nn.Sequential(*(stage.module for stage in chain))
        super().__init__(network, optimizer, num_stages=len(chain))
        self.loop = loop

    @property
    def counted(self) -> Learner:
        """The learner whose operations and memory are counted in place of this one's."""
        return self.loop
