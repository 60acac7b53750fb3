"""The wavefront engine: every stage at once on one device.

At tick t stage i works on batch t - i. A deep and narrow network leaves a device idle under
backprop, because its small kernels wait for each other; decoupled stages need not wait, so equal
stages run as one batched kernel, and a whole tick as one compiled graph.
"""

import copy
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from synthgrad.compiler import missing_compiler
from synthgrad.engines.evaluation import Evaluation, evaluate
from synthgrad.engines.wavefront.duties import Duties
from synthgrad.engines.wavefront.graphs import CudaRecorder, Recorded, Recorder, RecordingError
from synthgrad.engines.wavefront.layout import Layout, OptimizerFactory, lay_out
from synthgrad.engines.wavefront.limits import device_of, refuse_signals
from synthgrad.engines.wavefront.line import Line, empty_carry
from synthgrad.engines.wavefront.plan import Carry, Counts, Masks, Outcome
from synthgrad.engines.wavefront.tick import tick
from synthgrad.engines.wavefront.traced import Traced
from synthgrad.errors import ConfigError, EngineError
from synthgrad.stage import Chain
from synthgrad.updates import Probability, check_probability

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
            compiler it runs eagerly, and the log says so.
        cuda_graph: record the tick as CUDA graphs, optimizer included, and replay them: two a batch
            shape, one for when every stage works and one with masks. Memory is reserved for each
            shape. Where there is no CUDA, or a layer cannot be recorded, it goes on without, and
            the log says so; `execution` has what runs.
        side_streams: on CUDA, run unequal layers at the same place beside each other, on streams of
            their own; not in a compiled tick, whose compiler orders its kernels itself.
        autocast: run forward passes in this dtype (bfloat16), or None.

    Raises:
        EngineError: a signal needs the gradient from above or the loss at the output, or the
            chain is not on one CPU or CUDA device.
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
        cuda_graph: bool = False,
        side_streams: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        refuse_signals(chain)
        self._device = device_of(chain)
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
        self._duties = Duties(chain, self.probabilities, seed)
        conditions = [s.conditioned_on for s in chain.signals() if s.conditioned_on is not None]
        self._conditions = [c for k, c in enumerate(conditions) if c not in conditions[:k]]
        missing = missing_compiler(self._device.type) if compile else None
        self._compile = compile and missing is None
        self._recorder = self._make_recorder() if cuda_graph else None
        if missing:
            log.warning("the wavefront engine does not compile its tick: %s", missing)
        if cuda_graph and self._recorder is None:
            log.warning("the wavefront engine makes no CUDA graph: the chain is on the CPU")
        self._side_streams = side_streams and self._device.type == "cuda" and not self._compile
        self._layout: Layout | None = None
        self._lines = dict[Any, Line]()
        self._line: Line | None = None
        # The number of the batch that each stage worked on in the latest tick, and its rates.
        self._batches: list[int | None] = [None] * len(chain)
        self._rates: list[tuple[float, float]] = [(0.0, 0.0)] * len(chain)
        self._rates_now = (0.0, 0.0)
        self._counts = Counts.zeros(len(chain), self._device)

    @property
    def execution(self) -> str:
        """How a tick runs: "eager", "compiled", "cuda-graph" or "compiled cuda-graph".

        It differs from what was asked for where something is missing; the log says what.
        """
        words = ["compiled"] * self._compile + ["cuda-graph"] * (self._recorder is not None)
        return " ".join(words) or "eager"

    @property
    def in_flight(self) -> int:
        """How many batches are under way: taken in, and not yet through the last stage."""
        return sum(batch is not None for batch in self._batches[:-1])

    def carried_bytes(self) -> int:
        """Return how many bytes of batches stay between two ticks; 0 before the first one.

        These are, a batch in flight: the activation at its interface; where a target is to come,
        the prediction for it; its labels; and where a late fit needs the weights of the time of
        emission (late_fit="stored" with a synthesizer that is not linear), a copy of those. What a
        stage computes inside exists within a tick only, at once for all stages: as many
        activations as backprop keeps of one batch.
        """
        carry = self._line.carry if self._line else None
        return sum(t.nbytes for t in pytree.tree_leaves(carry) if isinstance(t, Tensor))

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor | None:
        """Take one batch in, and let every stage work on the batch that has reached it.

        Args:
            inputs: [batch, ...], on the chain's device. A batch of another shape than those in
                flight (the last of an epoch) flushes them first.
            labels: [batch, ...], also the condition of conditioned signals.

        Returns:
            The loss of the batch that reached the last stage, detached; None while the line fills.

        Raises:
            ConditionError: the labels do not suit a conditioned signal; nothing has changed.
            EngineError: the batch is on another device.
        """
        for tensor in (inputs, labels):
            if tensor.device != self._device:
                raise EngineError(
                    f"the batch is on {tensor.device} and the chain on {self._device}: give "
                    "tensor.to(device, non_blocking=True), best from pinned memory."
                )
        new = self._line is None or _key(inputs, labels) != _key(*self._line.blank)
        if new or not self._records_checks:
            for condition in self._conditions:
                condition.check(labels)
        if new:
            line = self._line_for(inputs, labels)
            self.flush()
            self._line = line
        loss = self._advance(self.num_batches, inputs, labels)
        self.num_batches += 1
        return loss

    def flush(self) -> None:
        """Let every batch in flight go through its remaining stages; the line is empty then."""
        while self.in_flight:
            assert self._line is not None
            self._advance(None, *self._line.blank)
        self._batches = [None] * len(self.chain)

    def evaluate(self, batches: Iterable[tuple[Any, Tensor]]) -> Evaluation:
        """Return loss and accuracy over batches of (inputs, labels), in eval mode.

        Batches in flight have not trained the stages above them yet; `flush` first if they should.
        """
        return evaluate(self.chain, batches, self.loss, mean=self.chain.mean)

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides the following steps, the batches in flight included.

        It holds tensors, numbers, lists and dicts only, so `torch.load(weights_only=True)` reads
        it back. As in torch, its tensors are the engine's own: save or copy them before the next
        step.
        """
        layout, line = self._layout, self._line
        return {
            "chain": self.chain.state_dict(),
            "moments": layout.moments if layout else {},
            "optimizers": [o and o.state_dict() for o in layout.all_optimizers] if layout else [],
            "rates": list(_rates(self.optimizer, self.synthesizer_optimizer)),
            "steps": self._counts.steps,
            "fit_steps": self._counts.fit_steps,
            "num_batches": self.num_batches,
            "line": list(self._batches),
            "blank": list(line.blank) if line else [],
            "carry": line.carry._asdict() if line else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of an engine over an equal chain with equal options.

        Raises:
            EngineError: the state is of a chain with another number of stages.
        """
        self.chain.check_state(len(state["line"]))
        if not state["blank"] and self._layout is not None:
            raise EngineError(
                "the state is of an engine that has not begun, and this one has: load it into a "
                "new engine."
            )
        optimizers = copy.deepcopy(state["optimizers"])
        state = pytree.tree_map_only(Tensor, lambda t: t.to(self._device, copy=True), state)
        for optimizer, rate in zip(
            (self.optimizer, self.synthesizer_optimizer), state["rates"], strict=True
        ):
            if optimizer is not None:
                optimizer.param_groups[0]["lr"] = rate
        if state["blank"]:
            inputs, labels = state["blank"]
            layout = self._layout or self._lay_out(inputs)
            for name, moments in state["moments"].items():
                for ours, theirs in zip(layout.moments[name], moments, strict=True):
                    ours.copy_(theirs)
            for optimizer, saved in zip(layout.all_optimizers, optimizers, strict=True):
                if optimizer is not None:
                    optimizer.load_state_dict(saved)
            self._line = self._line_for(inputs, labels)
            carry = self._line.carry
            theirs = pytree.tree_leaves(Carry(**state["carry"]))
            for ours, tensor in zip(pytree.tree_leaves(carry), theirs, strict=True):
                if ours is not None:
                    ours.copy_(tensor)
            rates = (carry.rates.tolist(), carry.synthesizer_rates.tolist())
            self._rates = list(zip(*rates, strict=True))
        self.chain.load_state_dict(state["chain"])
        self._duties.restart()
        self._counts.steps.copy_(state["steps"])
        self._counts.fit_steps.copy_(state["fit_steps"])
        if self._layout is not None:
            self._counts.correct(self._layout.plan)
        self.num_batches, self._batches = int(state["num_batches"]), list(state["line"])

    def _advance(self, batch: int | None, inputs: Tensor, labels: Tensor) -> Tensor | None:
        """Run one tick; an exception before its commit changes nothing."""
        layout, line = self._layout, self._line
        assert layout is not None
        assert line is not None
        batches = [batch, *self._batches[:-1]]
        now = _rates(self.optimizer, self.synthesizer_optimizer)
        if now != self._rates_now:  # by a launch with the number in it: no copy, no waiting
            self._counts.rate.fill_(now[0])
            self._counts.synthesizer_rate.fill_(now[1])
            self._rates_now = now
        duty = self._duties.of(batches)
        rows = None
        if duty.rows is not None:
            # Pinned, so that the copy to the device need not be waited for.
            rows = torch.tensor(duty.rows, pin_memory=self._device.type == "cuda")
        with torch.no_grad():
            try:
                outcome = line.run(inputs, labels, rows)
            except RecordingError as error:
                self._recorder = None
                log.warning("the wavefront engine goes on %s: %s", self.execution, error)
                self._lines = {}
                line = self._line = self._make_line(line.blank, line.carry)
                self._lines[_key(*line.blank)] = line
                outcome = line.run(inputs, labels, rows)
        self._batches = batches
        self._rates = [now, *self._rates[:-1]]
        self._duties.book(duty)
        layout.apply(outcome, duty.updated, duty.fitted, self._rates)
        return None if batches[-1] is None else outcome.loss

    def _lay_out(self, inputs: Tensor) -> Layout:
        layout = self._layout = lay_out(
            self.chain,
            inputs,
            loss=self.loss,
            factories=self._factories,
            optimizers=(self.optimizer, self.synthesizer_optimizer),
            fit_again=self.late_fit == "again",
            autocast=self._autocast,
            side_streams=self._side_streams,
        )
        self._counts.correct(layout.plan)
        log.info("the wavefront engine runs its tick %s on %s", self.execution, self._device)
        return layout

    def _line_for(self, inputs: Tensor, labels: Tensor) -> Line:
        """Return what is kept for batches of this shape; made if it is new."""
        key = _key(inputs, labels)
        if key not in self._lines:
            layout = self._layout or self._lay_out(inputs)
            blank = (torch.zeros_like(inputs), torch.zeros_like(labels))
            self._lines[key] = self._make_line(
                blank, empty_carry(self.chain, layout, inputs, blank[1])
            )
        return self._lines[key]

    def _make_line(self, blank: tuple[Tensor, Tensor], carry: Carry) -> Line:
        layout = self._layout
        assert layout is not None
        make = Traced if self._compile else partial
        once = make(tick, layout.plan, layout.state, layout.moments, self._counts, carry)
        if self._recorder is None:

            def run(inputs: Tensor, labels: Tensor, rows: Tensor | None) -> Outcome:
                masks = None
                if rows is not None:
                    masks = Masks(*rows.to(self._device, non_blocking=True).unbind())
                return once(inputs, labels, masks)

            return Line(blank, carry, run)
        changed = [
            t
            for t in pytree.tree_leaves((layout.state, layout.moments, self._counts, carry))
            if isinstance(t, Tensor)
        ]

        def checked(inputs: Tensor, labels: Tensor, masks: Masks | None) -> Outcome:
            if self._records_checks:
                for condition in self._conditions:
                    condition.check(labels)
            return once(inputs, labels, masks)

        recorded = Recorded(checked, changed, blank, len(self.chain), self._recorder)
        return Line(blank, carry, recorded)

    @property
    def _records_checks(self) -> bool:
        """Whether labels are checked on the device, inside the recording."""
        return self._recorder is not None and self._device.type == "cuda"

    def _make_recorder(self) -> Recorder | None:
        return CudaRecorder(self._device) if self._device.type == "cuda" else None


def _rates(*optimizers: Optimizer | None) -> tuple[float, float]:
    """Return the learning rates of the stages' and the synthesizers' optimizers."""
    own, its = (float(o.param_groups[0]["lr"]) if o is not None else 0.0 for o in optimizers)
    return own, its


def _key(inputs: Tensor, labels: Tensor) -> tuple[Any, ...]:
    return inputs.shape, inputs.dtype, labels.shape, labels.dtype
