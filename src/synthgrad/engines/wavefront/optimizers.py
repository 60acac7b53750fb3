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

from synthgrad.engines.wavefront.slots import lift, pick

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

    def step_all(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        moments: Sequence[Sequence[Tensor]],
        slots: Sequence[tuple[int, ...]],
        *,
        rates: Tensor,
        corrections: Tensor,
        together: bool,
    ) -> list[list[Tensor]]:
        """Return what `step` returns, for each of many parameters.

        Args:
            parameters: each stacked over its stages.
            gradients: the same shapes.
            moments: a list of running averages each.
            slots: the stages of each.
            rates: [stages], of all of them.
            corrections: [2, stages], of all of them.
            together: whether Adam takes a few kernels for all of them; not for a compiler, which
                makes better kernels of single ones.
        """
        if not together or self.kind == "sgd" or len({p.dtype for p in parameters}) > 1:
            return [
                self.step(
                    parameter,
                    gradient,
                    own,
                    rate=pick(rates, at),
                    corrections=(pick(corrections[0], at), pick(corrections[1], at)),
                )
                for parameter, gradient, own, at in zip(
                    parameters, gradients, moments, slots, strict=True
                )
            ]

        def lifted(vector: Tensor) -> list[Tensor]:
            narrow = vector.to(parameters[0].dtype)
            return [lift(pick(narrow, at), p) for at, p in zip(slots, parameters, strict=True)]

        if self.kind == "adamw":
            kept = lifted(1 - rates * self.weight_decay)
            parameters = [p * k for p, k in zip(parameters, kept, strict=True)]
        elif self.weight_decay:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=self.weight_decay))
        beta1, beta2 = self.betas
        averages = torch._foreach_lerp([m[0] for m in moments], gradients, 1 - beta1)
        squares = torch._foreach_mul([m[1] for m in moments], beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        roots = torch._foreach_sqrt(squares)
        roots = [r * c for r, c in zip(roots, lifted(corrections[1]), strict=True)]
        torch._foreach_add_(roots, self.eps)
        steps = lifted(rates * corrections[0])
        ways = [a * s for a, s in zip(averages, steps, strict=True)]
        torch._foreach_div_(ways, roots)
        moved = torch._foreach_sub(parameters, ways)
        return [list(three) for three in zip(moved, averages, squares, strict=True)]
