"""The reference engine: one stage after the other, in any order, with any target delays.

Every later engine must give the numbers of this one at the same delays, so it is written for
clarity: the training step of a stage is `Work`, a method a line of its equations.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from synthgrad.engines.evaluation import Evaluation, evaluate
from synthgrad.engines.late_fit import LateFit
from synthgrad.engines.rules import (
    OptimizerFactory,
    check_delays,
    is_local,
    is_trained,
    make_optimizer,
    take_step,
    traces,
    waits,
    wants_target,
)
from synthgrad.engines.work import Work
from synthgrad.errors import ConfigError, EngineError
from synthgrad.interface import Interface, critics_losses
from synthgrad.stage import Chain
from synthgrad.updates import Probability, check_probability, draw_updates

Order = Sequence[int] | Callable[[int], Sequence[int]]


class Sequential:
    """Train a chain one stage after the other, on one device.

    Use it as the reference for other engines and to study delays and orders; for training alone,
    `decouple` and an ordinary loop do the same work in one backward.

    With `target_delays=0` it equals the ordinary loop over the decoupled model bit for bit, in any
    order. With delay D the synthesizer of an interface is fitted to the target of batch t only
    after its emission for batch t + D, as in an engine whose stages run at the same time.

    Args:
        chain: the stages.
        loss: from (outputs, labels) to a scalar, reduced as the chain was told.
        optimizer: makes the optimizer of one stage from its parameters, such as
            `functools.partial(torch.optim.Adam, lr=1e-3)`.
        synthesizer_optimizer: the same for the synthesizers of one interface.
        order: in which order stages run their backward and update within a batch: a permutation
            of the stages, or a function from the number of the batch to one. Results do not depend
            on it, which is the point of decoupling; a signal that needs the gradient from above
            restricts it. By default from the top down.
        target_delays: number of batches between an emission and the fit to its target, one for all
            interfaces or one each, bottom first.
        late_fit: with a delay, fit "stored": the prediction that was emitted, with the weights of
            that time (a delayed gradient), or "again": a prediction evaluated anew.
        update_probability: with which a stage is updated in a batch, one for all or one a stage.
        seed: of those draws.

    Raises:
        ConfigError: an option does not fit the chain.

    Example:
        >>> from functools import partial
        >>> import synthgrad as sg, torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> x, y = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 1, 0])
        >>> chain = sg.Chain.from_sequential(model, cuts=[2], example_inputs=x)
        >>> adam = partial(torch.optim.Adam, lr=1e-3)
        >>> engine = sg.engines.Sequential(
        ...     chain, loss=nn.functional.cross_entropy, optimizer=adam, synthesizer_optimizer=adam
        ... )
        >>> loss = engine.step(x, y)
        >>> engine.evaluate([(x, y)]).num_examples
        6
    """

    def __init__(
        self,
        chain: Chain,
        *,
        loss: Callable[[Any, Tensor], Tensor],
        optimizer: OptimizerFactory,
        synthesizer_optimizer: OptimizerFactory,
        order: Order | None = None,
        target_delays: int | Sequence[int] = 0,
        late_fit: Literal["stored", "again"] = "stored",
        update_probability: Probability = 1.0,
        seed: int = 0,
    ) -> None:
        num_stages = len(chain)
        self.chain = chain
        self.loss = loss
        self.order: Order = tuple(reversed(range(num_stages))) if order is None else order
        self.late_fit: Literal["stored", "again"] = late_fit
        self.seed = seed
        self.num_steps = 0
        self.probabilities = check_probability(update_probability, num_stages)
        self.target_delays = check_delays(target_delays, chain)
        if late_fit not in ("stored", "again"):
            raise ConfigError(f"late_fit={late_fit!r} must be 'stored' or 'again'.")
        if min(self.probabilities) < 1 and any(map(waits, chain)):
            raise ConfigError(
                "update_probability < 1 with a signal that needs the gradient from above: a stage "
                "that is not updated gives none. Use mix=0."
            )
        self.optimizers = [make_optimizer(optimizer, s.stage_parameters()) for s in chain]
        self.synthesizer_optimizers = [
            make_optimizer(synthesizer_optimizer, s.synthesizer_parameters()) for s in chain
        ]
        self._late: list[deque[LateFit | None]] = [deque() for _ in chain]

    def step(self, inputs: Any, labels: Tensor, *, condition: Tensor | None = None) -> Tensor:
        """Take one batch through every stage and update what is to be updated.

        Args:
            inputs: of the first stage: a tensor, or a tuple of arguments.
            labels: what the loss compares the outputs with.
            condition: for conditioned signals; by default the labels.

        Returns:
            The loss, a detached 0-dim tensor.

        Raises:
            EngineError: the order is no permutation, or has a stage before the one it waits for.
            ConditionError: the condition does not suit a signal.
        """
        shared = self.chain.step
        shared.condition = labels if condition is None else condition
        drawn = draw_updates(self.probabilities, seed=self.seed, step=self.num_steps)
        updated = [u and is_trained(stage) for u, stage in zip(drawn, self.chain, strict=True)]
        order = self._order_of_this_step()
        try:
            works = self._forward(inputs, updated)
            with torch.set_grad_enabled(updated[-1]):
                loss = self.loss(works[-1].output, labels)
            works[-1].loss = loss
            interfaces = [s.interface for s in self.chain if s.interface is not None]
            for _, regression_loss in critics_losses(interfaces, shared, works[-1].output):
                regression_loss.backward()
            for index in order:
                if updated[index]:
                    self._update(works, index)
            self._fit_late(works)
        except BaseException:
            for optimizer in (*self.optimizers, *self.synthesizer_optimizers):
                if optimizer is not None:
                    optimizer.zero_grad()  # or the next batch would add to half of this one
            raise
        finally:
            shared.clear()
        self.num_steps += 1
        return loss.detach()

    def flush(self) -> None:
        """Fit every target that is still waiting because of its delay."""
        for index, waiting in enumerate(self._late):
            while waiting:
                self._fit(index, waiting.popleft())

    def evaluate(self, batches: Iterable[tuple[Any, Tensor]]) -> Evaluation:
        """Return loss and accuracy over batches of (inputs, labels), in eval mode."""
        return evaluate(self.chain, batches, self.loss, mean=self.chain.mean)

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides the following steps, targets that wait for their fit included.

        It holds tensors, numbers, lists and dicts only, so `torch.load(weights_only=True)` reads
        it back.
        """
        return {
            "chain": self.chain.state_dict(),
            "optimizers": [o and o.state_dict() for o in self.optimizers],
            "synthesizer_optimizers": [o and o.state_dict() for o in self.synthesizer_optimizers],
            "num_steps": self.num_steps,
            "late": [[fit and fit.state() for fit in waiting] for waiting in self._late],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of an engine over an equal chain with equal options.

        Raises:
            EngineError: the state is of a chain with another number of stages.
        """
        self.chain.check_state(len(state["optimizers"]))
        self.chain.load_state_dict(state["chain"])
        ours = [*self.optimizers, *self.synthesizer_optimizers]
        theirs = [*state["optimizers"], *state["synthesizer_optimizers"]]
        for optimizer, saved in zip(ours, theirs, strict=True):
            if optimizer is not None:
                optimizer.load_state_dict(saved)
        self.num_steps = int(state["num_steps"])
        self._late = [deque(fit and LateFit(**fit) for fit in waiting) for waiting in state["late"]]

    def _forward(self, inputs: Any, updated: Sequence[bool]) -> list["Work"]:
        works = list[Work]()
        h = inputs
        for index, stage in enumerate(self.chain):
            above = index + 1 < len(updated) and updated[index + 1]
            late = stage.interface is not None and self.target_delays[index] > 0
            work = Work(
                stage,
                h,
                first=index == 0,
                updated=updated[index],
                gives_target=index > 0 and wants_target(self.chain.stages[index - 1]),
            )
            work.predict(fits=above, late=self.late_fit if late else None)
            works.append(work)
            h = work.output
        return works

    def _update(self, works: list["Work"], index: int) -> None:
        """Run one stage's local backward and optimizer; its input's gradient is a target."""
        work = works[index]
        target = works[index + 1].input_gradients if index + 1 < len(works) else None
        work.backward(target)
        take_step(self.optimizers[index])
        if is_local(work.stage):
            take_step(self.synthesizer_optimizers[index])
        if index and self.target_delays[index - 1] == 0:
            below = works[index - 1]
            if below.fits(work.input_gradients):
                take_step(self.synthesizer_optimizers[index - 1])

    def _fit_late(self, works: list["Work"]) -> None:
        for index, waiting in enumerate(self._late[:-1]):
            if self.target_delays[index]:
                waiting.append(works[index].fit_later(works[index + 1].input_gradients))
                if len(waiting) > self.target_delays[index]:
                    self._fit(index, waiting.popleft())

    def _fit(self, index: int, late: "LateFit | None") -> None:
        interface = self.chain.stages[index].interface
        if late is None or not isinstance(interface, Interface):
            return
        late.fit(interface)
        take_step(self.synthesizer_optimizers[index])

    def _order_of_this_step(self) -> Sequence[int]:
        order = self.order(self.num_steps) if callable(self.order) else self.order
        if sorted(order) != list(range(len(self.chain))):
            raise EngineError(
                f"order={list(order)} must name each of the stages 0 to {len(self.chain) - 1} once."
            )
        place = {stage: k for k, stage in enumerate(order)}
        for index, stage in enumerate(self.chain):
            if (waits(stage) or traces(stage)) and place[index] < place[index + 1]:
                assert stage.interface is not None
                raise EngineError(
                    f"stage {index} runs before the stage above it, whose gradient its signal "
                    f"{stage.interface.signal} needs: use an order from the top down."
                )
        return order
