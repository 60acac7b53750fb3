"""The wavefront engine: every stage at once on one device.

At tick t stage i works on batch t - i. A deep and narrow network leaves a device idle under
backprop, because its small kernels wait for each other; decoupled stages need not wait, so equal
stages run as one batched kernel, and a whole tick as one compiled graph.
"""

import copy
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from synthgrad.compiler import missing_compiler
from synthgrad.engines.evaluation import Evaluation, evaluate
from synthgrad.engines.wavefront.layout import Layout, OptimizerFactory, lay_out
from synthgrad.engines.wavefront.tick import Carry, Masks, Outcome, tick, weights_for_later
from synthgrad.engines.wavefront.traced import Traced
from synthgrad.errors import ConfigError, EngineError
from synthgrad.signals import Need
from synthgrad.stage import Chain
from synthgrad.updates import Probability, check_probability, draw_updates
from synthgrad.validate import restored

log = logging.getLogger(__name__)


class Wavefront:
    """Train a chain with all stages working at the same time, each on its own batch.

    Use it where a network is deep and narrow, so that backprop leaves the device idle between its
    small kernels. Where one layer alone fills the device, decoupling only adds the synthesizers'
    operations: then backprop is faster.

    Equals `engines.Sequential` with `target_delays=1` (to rounding: batched matrix products add in
    another order); `flush` corresponds to its `flush`.

    Args:
        chain: the stages; one tensor goes up between them. Its signals must need nothing from
            above (`sg.Backprop` and `mix > 0` do).
        loss: from (outputs, labels) to a scalar, reduced as the chain was told.
        optimizer: makes a stage's optimizer from its parameters. Adam, AdamW and SGD with one
            group run stacked, inside the tick; any other runs a stage at a time. Its learning rate
            may be changed on `engine.optimizer`; a batch keeps its rate on the way up.
        synthesizer_optimizer: the same for the synthesizers.
        late_fit: "stored" or "again", as in `engines.Sequential`.
        update_probability: with which a stage is updated in a batch.
        seed: of those draws.
        compile: run the tick as one compiled graph. The first steps then take a minute. Without a
            C++ compiler it falls back to eager, and the log says so.
        autocast: run forward passes in this dtype (bfloat16), or None.

    Raises:
        EngineError: a signal needs the gradient from above or the loss at the output, or the
            chain is not on the CPU.
        ConfigError: an option does not fit, or an optimizer has several parameter groups.

    Source: the pipelining without waiting is Jaderberg et al. 2017, section 2; stacking is ours.
    """

    def __init__(
        self,
        chain: Chain,
        *,
        loss: Callable[[Any, Tensor], Tensor],
        optimizer: OptimizerFactory,
        synthesizer_optimizer: OptimizerFactory,
        late_fit: Literal["stored", "again"] = "stored",
        update_probability: Probability = 1.0,
        seed: int = 0,
        compile: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        for index, signal in enumerate(chain.signals()):
            if signal.observes_target:
                raise EngineError(
                    f"the signal on stage {index}, {signal}, keeps a running scale of its targets, "
                    "which a compiled tick does not: use normalize_targets=False."
                )
            if signal.needs is Need.GRADIENT_FROM_ABOVE or signal.passes_trace:
                raise EngineError(
                    f"the signal on stage {index}, {signal}, needs the gradient from above, and in "
                    "a wavefront the stage above is still working on the batch before."
                )
            if signal.fits_loss:
                raise EngineError(
                    f"the signal on stage {index}, {signal}, is fitted to the loss at the output, "
                    "which in a wavefront comes several ticks later: use sg.decouple, or "
                    "engines.Sequential."
                )
        if (device := _device(chain)) != "cpu":
            raise EngineError(
                f"the chain is on {device}; the wavefront engine runs on the CPU so far. Use "
                "engines.Sequential there."
            )
        self.chain = chain
        self.loss = loss
        self.late_fit = late_fit
        self.seed = seed
        self.num_batches = 0
        self.probabilities = check_probability(update_probability, len(chain))
        self.optimizer = optimizer([p for s in chain for p in s.stage_parameters()])
        fitted = [p for s in chain for p in s.synthesizer_parameters()]
        self.synthesizer_optimizer = synthesizer_optimizer(fitted) if fitted else None
        for made in (self.optimizer, self.synthesizer_optimizer):
            if made is not None and len(made.param_groups) != 1:
                raise ConfigError(
                    f"the optimizer has {len(made.param_groups)} parameter groups; a batch carries "
                    "one learning rate on its way up, so give one group."
                )
        self._factories = (optimizer, synthesizer_optimizer)
        self._autocast = autocast
        missing = missing_compiler(device) if compile else None
        self._compile = compile and missing is None
        if missing:
            log.warning("the wavefront engine runs eagerly: %s", missing)
        self._layout: Layout | None = None
        self._run: Callable[..., Outcome]
        self._carry: Carry | None = None
        self._blank: tuple[Tensor, Tensor] | None = None
        # The number of the batch that each stage worked on in the latest tick.
        self._line: list[int | None] = [None] * len(chain)
        self._steps = torch.zeros(len(chain), dtype=torch.float64)
        self._fit_steps = torch.zeros(len(chain), dtype=torch.float64)

    @property
    def in_flight(self) -> int:
        """How many batches are under way: taken in, and not yet through the last stage."""
        return sum(batch is not None for batch in self._line[:-1])

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor | None:
        """Take one batch in, and let every stage work on the batch that has reached it.

        Args:
            inputs: [batch, ...]. A batch of another shape than those in flight (the last of an
                epoch) flushes them first.
            labels: [batch, ...], also the condition of conditioned signals.

        Returns:
            The loss of the batch that reached the last stage, detached; None while the line fills.

        Raises:
            ConditionError: the labels do not suit a conditioned signal; nothing has changed.
        """
        for signal in self.chain.signals():
            if signal.conditioned_on is not None:
                signal.conditioned_on.check(labels)
        layout = self._layout or self._lay_out(inputs)
        shapes = [(t.shape, t.dtype) for t in (inputs, labels)]
        if self._blank is None or shapes != [(t.shape, t.dtype) for t in self._blank]:
            self.flush()
            self._blank = (torch.zeros_like(inputs), torch.zeros_like(labels))
            self._carry = self._empty(layout, inputs, self._blank[1])
        loss = self._advance(self.num_batches, inputs, labels)
        self.num_batches += 1
        return loss

    def flush(self) -> None:
        """Let every batch in flight go through its remaining stages; the line is empty then."""
        while self.in_flight:
            assert self._blank is not None
            self._advance(None, *self._blank)
        self._line = [None] * len(self.chain)

    def evaluate(self, batches: Iterable[tuple[Any, Tensor]]) -> Evaluation:
        """Return loss and accuracy over batches of (inputs, labels), in eval mode.

        Batches in flight have not trained the stages above them yet; `flush` first if they should.
        """
        return evaluate(self.chain, batches, self.loss, mean=self.chain.mean)

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides the following steps, the batches in flight included.

        It holds tensors, numbers, lists and dicts only, so `torch.load(weights_only=True)` reads
        it back.
        """
        layout, carry = self._layout, self._carry
        return {
            "chain": self.chain.state_dict(),
            "moments": layout.moments if layout else {},
            "optimizers": [o and o.state_dict() for o in layout.all_optimizers] if layout else [],
            "rates": [float(_rate(o)) for o in (self.optimizer, self.synthesizer_optimizer)],
            "steps": self._steps,
            "fit_steps": self._fit_steps,
            "num_batches": self.num_batches,
            "line": list(self._line),
            "blank": list(self._blank or ()),
            "carry": carry._asdict() if carry else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of an engine over an equal chain with equal options.

        Raises:
            EngineError: the state is of a chain with another number of stages.
        """
        self.chain.check_state(len(state["line"]))
        state = copy.deepcopy(state)
        for optimizer, rate in zip(
            (self.optimizer, self.synthesizer_optimizer), state["rates"], strict=True
        ):
            if optimizer is not None:
                optimizer.param_groups[0]["lr"] = rate
        if not state["blank"]:
            if self._layout is not None:
                raise EngineError(
                    "the state is of an engine that has not begun, and this one has: load it into "
                    "a new engine."
                )
        else:
            inputs, labels = state["blank"]
            self._blank = (inputs, labels)
            layout = self._layout or self._lay_out(inputs)
            for name, moments in state["moments"].items():
                for ours, theirs in zip(layout.moments[name], moments, strict=True):
                    ours.copy_(theirs)
            for optimizer, saved in zip(layout.all_optimizers, state["optimizers"], strict=True):
                if optimizer is not None:
                    optimizer.load_state_dict(saved)
            self._carry = Carry(**state["carry"])
        self.chain.load_state_dict(state["chain"])
        self._steps, self._fit_steps = state["steps"], state["fit_steps"]
        self.num_batches, self._line = int(state["num_batches"]), list(state["line"])

    def _advance(self, batch: int | None, inputs: Tensor, labels: Tensor) -> Tensor | None:
        """Run one tick; an exception in its forward passes or the loss changes nothing."""
        layout = self._layout
        assert layout is not None
        assert self._carry is not None
        line = [batch, *self._line[:-1]]
        updated, fitted, masks = self._duties(line)
        steps = self._steps + torch.tensor(updated)
        fit_steps = self._fit_steps + torch.tensor(fitted)
        with torch.no_grad():
            outcome = self._run(
                steps,
                fit_steps,
                self._carry,
                inputs,
                labels,
                _rate(self.optimizer),
                _rate(self.synthesizer_optimizer),
                masks,
            )
        self._line, self._carry = line, outcome.carry
        self._steps, self._fit_steps = steps, fit_steps
        for stage, one in zip(self.chain, fitted, strict=True):
            if stage.interface is not None and stage.interface.signal.fits_target:
                stage.interface.num_fits += int(one)
        layout.apply(outcome, updated, fitted)
        return None if line[-1] is None else outcome.loss

    def _duties(self, line: Sequence[int | None]) -> tuple[list[bool], list[bool], Masks | None]:
        """Return, a stage, whether it is updated and its synthesizer fitted; and the masks."""
        count = len(line)
        drawn = [
            (False,) * count
            if batch is None
            else draw_updates(self.probabilities, seed=self.seed, step=batch)
            for batch in line
        ]
        interfaces = [stage.interface for stage in self.chain]
        trained = [i is None or i.signal.trains_below for i in interfaces]
        predicts = [i is not None and i.signal.fits_target for i in interfaces]
        heads = [i is not None and i.signal.is_local for i in interfaces]
        ready = [i is None or i.signal.is_ready(i.num_fits) for i in interfaces]
        updated = [drawn[i][i] and trained[i] for i in range(count)]
        # A synthesizer is fitted when the stage above is updated, a head with its own stage.
        above = [*updated[1:], False]
        fitted = [(predicts[i] and above[i]) or (heads[i] and updated[i]) for i in range(count)]
        learns = [p or head for p, head in zip(predicts, heads, strict=True)]
        if all(updated) and fitted == learns and all(ready):
            return updated, fitted, None
        predicted = [
            predicts[i] and (updated[i] or (drawn[i][i + 1] and trained[i + 1]))
            for i in range(count - 1)
        ]
        masks = Masks(
            active=torch.tensor([batch is not None for batch in line]),
            updated=torch.tensor(updated),
            fitted=torch.tensor(fitted),
            predicted=torch.tensor([*predicted, False]),
            emits=torch.tensor(ready),
        )
        return updated, fitted, masks

    def _lay_out(self, inputs: Tensor) -> Layout:
        layout = self._layout = lay_out(
            self.chain,
            inputs,
            loss=self.loss,
            factories=self._factories,
            optimizers=(self.optimizer, self.synthesizer_optimizer),
            fit_again=self.late_fit == "again",
            autocast=self._autocast,
        )
        run = Traced if self._compile else partial
        self._run = run(tick, layout.plan, layout.state, layout.moments)
        return layout

    def _empty(self, layout: Layout, inputs: Tensor, labels: Tensor) -> Carry:
        """Return the carry of a line without batches; its numbers are never used."""
        count = len(self.chain)
        h = inputs
        ups = list[Tensor]()
        with restored(self.chain), torch.no_grad():
            for stage in self.chain:
                h = stage(h)
                ups.append(torch.zeros_like(h))
        outputs = [
            torch.stack([ups[s] for s in at]) if len(at := cut.slots) != 1 else ups[at[0]]
            for cut in layout.plan.cuts
        ]
        needs = [weights_for_later(layout.plan, cut, layout.state) for cut in layout.plan.cuts]
        return Carry(
            outputs=outputs,
            predictions=[
                torch.zeros_like(h) if cut.signal.fits_target else None
                for cut, h in zip(layout.plan.cuts, outputs, strict=True)
            ],
            weights=needs,
            labels=torch.stack([labels] * count),
            rates=torch.zeros(count, dtype=torch.float64),
            synthesizer_rates=torch.zeros(count, dtype=torch.float64),
        )


def _rate(optimizer: Optimizer | None) -> Tensor:
    rate = optimizer.param_groups[0]["lr"] if optimizer is not None else 0.0
    return torch.as_tensor(rate, dtype=torch.float64)


def _device(chain: Chain) -> str:
    return str(next((p.device for p in chain.parameters()), "cpu"))
