"""Optimizers on stacked parameters, where every stage has its own number of steps.

While the line fills, and wherever updates are skipped, stages have taken different numbers of
steps, so torch's Adam on a stacked tensor would correct the bias of all but one of them wrongly.
These updates take a vector of steps instead; they are pure functions of tensors, so a compiled tick
fuses them with the gradients. Equal to torch's own optimizer on each stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from synthgrad.engines.wavefront.slots import lift

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An update rule with its constants; the learning rate comes with each call.

    Attributes:
        kind: "adam", "adamw" or "sgd".
        betas: Adam's.
        eps: Adam's.
        weight_decay: decoupled for "adamw", else added to the gradient.
        momentum: of SGD.
        dampening: of SGD's momentum.
        nesterov: of SGD's momentum.
    """

    kind: str
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    @classmethod
    def of(cls, optimizer: Optimizer) -> "Rule | None":
        """Return the rule that equals a torch optimizer, or None if there is none."""
        if len(optimizer.param_groups) != 1:
            return None
        given: dict[str, Any] = optimizer.param_groups[0]
        if given.get("maximize") or given.get("amsgrad"):
            return None
        if type(optimizer) in (Adam, AdamW):
            decoupled = type(optimizer) is AdamW or given.get("decoupled_weight_decay", False)
            return cls(
                kind="adamw" if decoupled else "adam",
                betas=given["betas"],
                eps=given["eps"],
                weight_decay=given["weight_decay"],
            )
        if type(optimizer) is SGD:
            names = ("weight_decay", "momentum", "dampening", "nesterov")
            return cls(kind="sgd", **{name: given[name] for name in names})
        return None

    def moments(self) -> tuple[str, ...]:
        """Return the names of the running averages that the rule keeps a parameter."""
        if self.kind == "sgd":
            return ("momentum_buffer",) if self.momentum else ()
        return ("exp_avg", "exp_avg_sq")

    def corrections(self, steps: Tensor) -> Tensor:
        """Return the two factors a stage that depend on its number of steps, [2, stages].

        Of Adam: those that correct the bias of its averages. Of SGD: 1 in the first step, else 0;
        and nothing.

        Args:
            steps: [stages], how many each stage will have taken after the step in question.
        """
        if self.kind == "sgd":
            return torch.stack([(steps <= 1).to(steps.dtype), torch.zeros_like(steps)])
        beta1, beta2 = self.betas
        return torch.stack([1 / (1 - beta1**steps), (1 - beta2**steps).rsqrt()])

    def step(
        self,
        parameter: Tensor,
        gradient: Tensor,
        moments: Sequence[Tensor],
        *,
        rate: Tensor,
        corrections: tuple[Tensor, Tensor],
    ) -> list[Tensor]:
        """Return the parameter and its running averages after one step.

        Args:
            parameter: [stages, ...], or without that axis for one stage.
            gradient: the same shape.
            moments: the running averages, as `moments` names them.
            rate: the learning rate a stage, [stages] or 0-dim.
            corrections: as `corrections` gives them, each of the shape of `rate`.
        """

        def lifted(v: Tensor) -> Tensor:
            # Computed in double precision a stage, then used in the parameter's own.
            return lift(v.to(parameter.dtype), parameter)

        if self.kind == "adamw":
            parameter = parameter * lifted(1 - rate * self.weight_decay)
        elif self.weight_decay:
            gradient = gradient + self.weight_decay * parameter
        if self.kind == "sgd":
            if not self.momentum:
                return [parameter - lifted(rate) * gradient]
            (buffer,) = moments
            fresh = self.momentum * buffer + (1 - self.dampening) * gradient
            buffer = torch.where(lifted(corrections[0]) > 0, gradient, fresh)
            gradient = gradient + self.momentum * buffer if self.nesterov else buffer
            return [parameter - lifted(rate) * gradient, buffer]
        average, square = moments
        beta1, beta2 = self.betas
        average = average.lerp(gradient, 1 - beta1)
        square = (square * beta2).addcmul(gradient, gradient, value=1 - beta2)
        root = square.sqrt() * lifted(corrections[1]) + self.eps
        return [parameter - lifted(rate * corrections[0]) * average / root, average, square]
