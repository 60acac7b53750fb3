"""A network with the way it is trained: the thing whose steps the clock times.

Backprop, compiled or not, and every decoupled form go through the same few lines, so the arms of an
experiment differ in what they are and not in how they are driven.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgrad.decoupled import DecoupledModel

Loss = Callable[[Tensor, Tensor], Tensor]


class Learner:
    """One network in training.

    Args:
        net: a model, trained by backprop, or a `DecoupledModel`; already on its device.
        optimizer: of all its parameters; the learning rates it has now are the base of the
            schedule.
        num_stages: into how many stages the arms of the experiment cut the network, so that
            backprop's updates are counted in the same unit.
        compile_options: compile the forward pass and the loss, and so their backward, with these
            options of torch's compiler; None leaves them as they are.
        loss: from (outputs, labels) to a mean over the batch.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        num_stages: int,
        compile_options: Mapping[str, Any] | None = None,
        loss: Loss = F.cross_entropy,
    ) -> None:
        """Take the network as it is; compile it where asked, at its first step."""
        self.net = net
        self.optimizer = optimizer
        self.num_stages = num_stages
        self.compiled = compile_options is not None
        self.loss = loss
        self.decoupled = net if isinstance(net, DecoupledModel) else None
        self._base_rates = [group["lr"] for group in optimizer.param_groups]
        # None in place of a bound method, which would keep this and its processes in a cycle.
        self._compiled_loss: Loss | None = None
        if compile_options is not None:
            # A limit on recompilations counts over all networks that share this code.
            torch.compiler.reset()
            options = dict(compile_options)
            self._compiled_loss = torch.compile(self.eager_loss, dynamic=False, options=options)

    @property
    def model(self) -> nn.Module:
        """The network without its interfaces, for evaluation."""
        return self.decoupled.model if self.decoupled else self.net

    @property
    def counted(self) -> "Learner":
        """The learner whose operations and memory are counted for this one."""
        return self

    @property
    def carried_bytes(self) -> int | None:
        """What is kept between two steps beside what `counted` needs; None if nobody knows."""
        return 0

    @property
    def num_updated(self) -> int:
        """How many stages the latest step updated."""
        return sum(self.decoupled.updated) if self.decoupled else self.num_stages

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Train on one batch.

        Returns:
            The loss, a 0-dim tensor on the device; nothing waits for it.
        """
        loss = (self._compiled_loss or self.eager_loss)(inputs, labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def settle(self) -> None:
        """Wait until what the steps so far began elsewhere is done; here nothing is elsewhere."""
        return

    def eager_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss of one batch, with its graph, never compiled."""
        if self.decoupled:
            return self.loss(self.decoupled(inputs, condition=labels), labels)
        return self.loss(self.net(inputs), labels)

    def scale_learning_rates(self, factor: float) -> None:
        """Set every learning rate to `factor` times what it was at the start."""
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, buffers and the optimizer's state; tensors are not copied."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
