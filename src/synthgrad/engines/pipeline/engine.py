"""The pipeline engine: one stage a rank, and nobody waits for a gradient.

Why no order of ranks can lock up. Number a rank's steps by their batch t. In `ordered` mode step t
of rank i waits for the activation of batch t, which step t of rank i - 1 sent; for the target of
batch t - D, which step t - D of rank i + 1 sent; and for room on a lane, which the neighbor makes
when it takes a message at most `max_in_flight` batches older (up: step t - M of rank i + 1; down:
step t - M + D of rank i - 1, and D < M). So with D >= 1 every wait is for a step with a smaller t,
or with the same t further down: there is no circle. With D = 0 the same holds for the halves of
steps, forward from the bottom up and then backward from the top down. In `free` mode a rank waits
only if nothing has arrived: for an activation, while nothing of its own is missing; for a target,
while `max_in_flight` are out, so the rank above has one of those batches, and the topmost rank
waits for no target. Announcements of a new layout never wait.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from synthgrad.engines.evaluation import Evaluation
from synthgrad.engines.pipeline.agreement import agree
from synthgrad.engines.pipeline.checkpoints.keeping import Keeper
from synthgrad.engines.pipeline.checkpoints.learned import Learned
from synthgrad.engines.pipeline.evaluating import Evaluator
from synthgrad.engines.pipeline.exchange import Exchange
from synthgrad.engines.pipeline.faults import Faults
from synthgrad.engines.pipeline.limits import check_options, check_signals
from synthgrad.engines.pipeline.own_input import OwnInput, build_models
from synthgrad.engines.pipeline.own_stages import OwnStages, stage_device
from synthgrad.engines.pipeline.place import Place
from synthgrad.engines.pipeline.replicas import Replicas
from synthgrad.engines.pipeline.statistics import Span, Statistics, Watch
from synthgrad.engines.pipeline.wire.connect import connect
from synthgrad.engines.pipeline.wire.neighbors import Line
from synthgrad.engines.pipeline.wire.transport import Transport
from synthgrad.engines.rules import (
    OptimizerFactory,
    check_delays,
    is_trained,
    wants_target,
)
from synthgrad.engines.work import Work
from synthgrad.errors import CheckpointError, ConfigError, DivergedError, EngineError, RankError
from synthgrad.stage import Chain
from synthgrad.synthetic_input import SyntheticInput
from synthgrad.updates import Probability, check_probability, draw_updates


class Pipeline:
    """Train a chain with one stage a rank: activations go up the line, targets come back later.

    Use it where a network or a link does not fit one machine, or to use several processes without
    waiting for gradients. On one device that fits the network, backprop is simpler, and two threads
    in one process often are as fast.

    The same script runs on every rank (`torchrun --nproc-per-node 2 script.py`, or `launch`); each
    makes the whole chain with the same seed, trains its own stages, and calls `step` once a batch.
    If there are more stages than ranks, neighbors share one.

    In mode "ordered" it equals `engines.Sequential` with the same `target_delays`, bit for bit,
    where no stage draws random numbers (each rank has a generator of its own). In mode "free" a
    target is fitted as soon as it is there, and none is waited for until `max_in_flight` are out:
    faster where ranks or links are uneven, and the numbers of two runs differ.

    Args:
        chain: the stages; the same on every rank.
        loss: from (outputs, labels) to a scalar, reduced as the chain was told.
        optimizer: makes the optimizer of one stage from its parameters.
        synthesizer_optimizer: the same for the synthesizers of one interface.
        mode: "ordered" or "free".
        target_delays: for "ordered": number of batches between an emission and the fit to its
            target, one for all interfaces or one each, bottom first. 1 lets neighbors work at the
            same time; more takes up jitter and latency. With 0 ranks wait for each other.
        max_in_flight: how many batches may be under way at one interface: it bounds the memory that
            a slow rank can cost. Larger than any delay.
        late_fit: "stored" or "again", as in `engines.Sequential`.
        update_probability: with which a stage is updated in a batch, one for all or one a stage.
        seed: of those draws.
        replicas: how many lines of ranks train the same stages on different data, averaging
            gradients in the order of ranks; rank = replica * (ranks a line) + place in the line.
        synthetic_input: complete unlock: each rank but the lowest runs on a prediction of its
            activation, made from the network's input, and waits for nothing. Every rank must then
            be given the same batches. The true activation is what the prediction is fitted to, with
            the interface's delay; it is used in `evaluate`.
        synthetic_input_optimizer: makes the optimizer of such a prediction.
        example_inputs: of the first stage, two examples or more, for its shapes.
        check_finite: refuse to send NaN or infinity, and name the rank and stage that made it.
        timeline: keep a span of everything that the rank does.
        timeout_s: for waiting for another rank, before it is said to hang.
        transport: by default `connect()`.

    Raises:
        ConfigError: an option does not fit the chain or the number of ranks, or two ranks were
            given different ones.
        RankError: a rank did not come.

    Source: Jaderberg et al. 2017, section 2, which leaves the distributed setting open.

    Example:
        One rank, which needs no other process:

        >>> from functools import partial
        >>> import synthgrad as sg, torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> x, y = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 1, 0])
        >>> chain = sg.Chain.from_sequential(model, cuts=[2], example_inputs=x)
        >>> adam = partial(torch.optim.Adam, lr=1e-3)
        >>> (transport,) = sg.engines.pipeline.in_process(1)
        >>> with sg.engines.Pipeline(
        ...     chain, loss=nn.functional.cross_entropy, optimizer=adam,
        ...     synthesizer_optimizer=adam, transport=transport,
        ... ) as engine:
        ...     loss = engine.step(x, y)
        ...     engine.evaluate([(x, y)]).num_examples
        6
    """

    def __init__(
        self,
        chain: Chain,
        *,
        loss: Callable[[Any, Tensor], Tensor],
        optimizer: OptimizerFactory,
        synthesizer_optimizer: OptimizerFactory,
        mode: Literal["ordered", "free"] = "ordered",
        target_delays: int | Sequence[int] = 2,
        max_in_flight: int = 4,
        late_fit: Literal["stored", "again"] = "again",
        update_probability: Probability = 1.0,
        seed: int = 0,
        replicas: int = 1,
        synthetic_input: SyntheticInput | None = None,
        synthetic_input_optimizer: OptimizerFactory | None = None,
        example_inputs: Any = None,
        check_finite: bool = True,
        timeline: bool = False,
        timeout_s: float = 60.0,
        transport: Transport | None = None,
    ) -> None:
        check_options(mode, late_fit, max_in_flight, timeout_s, replicas)
        self.chain = chain
        self.loss = loss
        self.mode = mode
        self.seed = seed
        self.max_in_flight = max_in_flight
        self.timeout_s = timeout_s
        self.num_steps = 0
        self.probabilities = check_probability(update_probability, len(chain))
        self._trained = [is_trained(stage) for stage in chain]
        delays = check_delays(target_delays, chain) if mode == "ordered" else None
        check_signals(chain, delays, max_in_flight, min(self.probabilities))
        self.transport = transport = (
            connect(timeout_s=timeout_s) if transport is None else transport
        )
        self.place = Place.of(transport.rank, transport.num_ranks, replicas, len(chain))
        number = transport.store.add(f"pipelines of rank {transport.rank}", 1)
        self._store = dist.PrefixStore(f"pipeline {number}", transport.store)
        self._faults = Faults(self._store, transport.rank)
        options = {
            "loss": loss,
            "optimizer": optimizer,
            "synthesizer_optimizer": synthesizer_optimizer,
            "mode": mode,
            "target_delays": delays,
            "max_in_flight": max_in_flight,
            "late_fit": late_fit,
            "update_probability": self.probabilities,
            "seed": seed,
            "replicas": replicas,
            "synthetic_input": synthetic_input,
            "synthetic_input_optimizer": synthetic_input_optimizer,
        }
        agree(self._store, self.place, options, chain, timeout_s)
        own = [stage for s, stage in enumerate(chain) if s in self.place.stages]
        self._device = stage_device(own)
        self._watch = Watch(timeline=timeline)
        self._replicas = Replicas(self.place, self._device.type)
        self._replicas.make_equal(own)
        self.unlocked = synthetic_input is not None
        self._input: OwnInput | None = None
        if synthetic_input is not None:
            models = build_models(chain, self.place, synthetic_input, example_inputs)
            if synthetic_input_optimizer is None:
                raise ConfigError("synthetic_input needs a synthetic_input_optimizer.")
            if self.place.below is not None:
                self._input = OwnInput(
                    models[self.place.index - 1],
                    optimizer=synthetic_input_optimizer,
                    delay=None if delays is None else delays[self.stages[0] - 1],
                    max_in_flight=max_in_flight,
                    mean=chain.mean,
                    replicas=self._replicas,
                    watch=self._watch,
                    stage=self.stages[0],
                )
                self._replicas.make_equal([self._input.model])
        bottom = self.stages.start
        gives_target = bottom > 0 and wants_target(chain.stages[bottom - 1])
        self._line = Line(
            transport,
            self.place,
            max_in_flight=max_in_flight,
            takes_targets=self.place.above is not None and wants_target(own[-1]),
            gives_targets=gives_target,
            listens_up=mode == "free" and self.unlocked,
            listens_down=mode == "free",
            faults=self._faults,
            watch=self._watch,
            timeout_s=timeout_s,
        )
        self._exchange = Exchange(
            self._line,
            self.place,
            device=self._device,
            arrives_on=transport.device,
            gives_target=gives_target,
            unlocked=self.unlocked,
            check_finite=check_finite,
        )
        self._stages = OwnStages(
            chain,
            self.place.stages,
            gives_target=gives_target,
            optimizer=optimizer,
            synthesizer_optimizer=synthesizer_optimizer,
            delays=delays,
            late_fit=late_fit,
            max_in_flight=max_in_flight,
            replicas=self._replicas,
            watch=self._watch,
            top_source=self._exchange,
            updates=self._updates,
        )
        here = self._exchange.here
        self._evaluator = Evaluator(own, self.place, self._line, here, mean=chain.mean)
        self._learned = Learned(self._stages, self._input)
        self._keeper = Keeper(self._learned, self.place, self._line, self._store, timeout_s)
        self._before = (0, 0)  # messages and bytes when counting began
        self._line.begin()

    @property
    def stages(self) -> range:
        """The numbers of the stages of this rank."""
        return self.place.stages

    @property
    def rank(self) -> int:
        """The number of this rank."""
        return self.place.rank

    @property
    def num_ranks(self) -> int:
        """How many ranks there are, over all replicas."""
        return self.place.length * self.place.num_replicas

    @property
    def optimizers(self) -> list[Optimizer]:
        """Those of this rank's stages and interfaces, for learning-rate schedules."""
        return self._learned.optimizers

    @property
    def statistics(self) -> Statistics:
        """What this rank has done so far."""
        found = self._watch.statistics
        found.messages_sent = self._line.num_messages - self._before[0]
        found.bytes_sent = self._line.num_bytes - self._before[1]
        books = self._stages.books
        found.num_fits = sum(book.num_fits for book in books.values())
        found.max_in_flight = max((book.most for book in books.values()), default=0)
        found.staleness = {s: book.staleness for s, book in books.items()}
        return found

    @property
    def timeline(self) -> list[Span]:
        """What this rank did when, if `timeline=True`."""
        return self._watch.spans

    def reset_statistics(self) -> None:
        """Begin to count anew, and forget the time line."""
        self._watch.statistics = Statistics()
        self._watch.spans.clear()
        self._before = self._line.num_messages, self._line.num_bytes
        for book in self._stages.books.values():
            book.clear_statistics()

    def step(
        self, inputs: Any = None, labels: Tensor | None = None, *, condition: Tensor | None = None
    ) -> Tensor | None:
        """Train this rank's stages on the next batch, and send on what the neighbors need.

        Args:
            inputs: of the first stage: a tensor, or a tuple of arguments. Only what the bottom of
                the line is given is used: batches go up the line from there.
            labels: what the loss compares the outputs with; they go up too.
            condition: for conditioned signals; by default the labels.

        Returns:
            The loss at the top of the line, a detached 0-dim tensor; None elsewhere.

        Raises:
            ConditionError: the condition does not suit a signal; nothing has changed anywhere.
            RankError: another rank is gone, or hangs.
            DivergedError: this rank made NaN or infinity.
        """
        batch, shared, exchange = self.num_steps, self.chain.step, self._exchange
        if self._reads_data:
            self.check_condition(labels if condition is None else condition)
        with self._reported(f"in batch {batch}"), self._watch.at_work():
            if self.mode == "free":
                self._stages.make_room(batch)
                if self._input is not None:
                    self._input.make_room(exchange.take_activation)
            h, labels, condition = self._take_batch(batch, inputs, labels, condition)
            shared.condition = labels if condition is None else condition
            loss = None
            try:
                works = self._stages.forward(
                    h, batch, lambda up: exchange.hand_up(batch, up, labels, condition)
                )
                if self.place.above is None:
                    loss = self._loss_of(works[-1], labels, batch)
                self._stages.backward(
                    works, batch, lambda work: self._exchange.hand_down(batch, work)
                )
                if self._input is not None:
                    self._input.fit(
                        batch, self._exchange.has_activation, self._exchange.take_activation
                    )
            except BaseException:
                self._stages.zero_grad()  # or the next batch would add to half of this one
                raise
            finally:
                shared.clear()
        self.num_steps += 1
        self._watch.statistics.num_steps += 1
        return None if loss is None else loss.detach()

    def check_condition(self, condition: Tensor | None) -> None:
        """Refuse labels that do not suit a signal; `step` does so before anything is sent.

        Raises:
            ConditionError: they do not.
        """
        for signal in self.chain.signals():
            if signal.conditioned_on is not None and condition is not None:
                signal.conditioned_on.check(condition)

    def flush(self) -> None:
        """Wait for every target that is out, and fit it. Each rank can do so on its own."""
        with self._reported("in flush"), self._watch.at_work():
            self._stages.flush(self.num_steps - 1)
            if self._input is not None:
                self._input.flush(self._exchange.take_activation)

    def evaluate(self, batches: Iterable[tuple[Any, Tensor]] = ()) -> Evaluation:
        """Return loss and accuracy over batches of (inputs, labels), in eval mode, on every rank.

        Every rank must call it at the same place; only the batches that the bottom of the line is
        given are used. Targets that are out stay out: `flush` first if they should be fitted.
        """
        with self._reported("in evaluate"):
            return self._evaluator.run(batches, self.loss)

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides the following steps of this rank's stages; it flushes first.

        It holds tensors, numbers, lists and dicts only, so `torch.load(weights_only=True)` reads
        it back.
        """
        self.flush()
        return {
            "num_stages": len(self.chain),
            "num_steps": self.num_steps,
            "stages": self._learned.state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state with the stages of this rank in it. Every rank must do so.

        Raises:
            EngineError: the state is of another chain, lacks a stage, or a step was taken already.
        """
        self.chain.check_state(int(state["num_stages"]))
        if missing := [s for s in self.stages if s not in state["stages"]]:
            raise EngineError(
                f"the state has the stages {list(state['stages'])} in it, and rank {self.rank} "
                f"has stage {missing[0]} too."
            )
        self.flush()
        self._learned.load_state(state["stages"])
        self.num_steps = int(state["num_steps"])

    def save(self, folder: str | Path, *, keep: int = 2) -> None:
        """Begin to write a checkpoint `folder/step-N`, and go on at once. Every rank must call it.

        All targets that are out are fitted first, in a run that is never interrupted too, so that
        a resumed one gives the same numbers. It is whole or not there: it gets its name when every
        rank has written its part. Errors are raised by the next `save`, `wait_saved` or `close`.

        Args:
            folder: one that every rank can write to.
            keep: how many checkpoints are kept, at least 1.

        Raises:
            CheckpointError: the one before could not be written. Training can go on.
        """
        self.flush()
        self._keeper.save(Path(folder), self.num_steps, keep=keep)

    def wait_saved(self) -> None:
        """Wait until the checkpoint that was begun is there.

        Raises:
            CheckpointError: it could not be written; those before are as they were.
        """
        self._keeper.wait()

    def load(self, folder: str | Path) -> int:
        """Continue from the latest whole checkpoint in a folder, if there is one.

        Every rank must call it; the number of ranks and replicas may be another than the one that
        saved. The data must then go on at batch number `num_steps`.

        Returns:
            The number of steps done: 0 if there is no checkpoint.

        Raises:
            CheckpointError: it is damaged, or of another chain.
        """
        found = self._keeper.load(Path(folder))
        if found is None:
            return 0
        path, state = found
        try:
            self.load_state_dict(state)
        except (KeyError, ValueError, RuntimeError, EngineError) as error:
            raise CheckpointError(
                f"the checkpoint {path} does not suit this chain: {error}"
            ) from error
        return self.num_steps

    def collect(self) -> None:
        """Put the stages that the other ranks have trained into this rank's chain.

        Every rank must call it, at the same place, after a `flush`.
        """
        with self._reported("in collect"):
            self._keeper.collect(self.chain)

    def close(self) -> None:
        """Flush, and take leave of the neighbors. Every rank must; a `with` does it."""
        self.flush()
        with self._reported("in close"):
            self._line.close()
        self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self.close()

    def _updates(self, batch: int) -> Sequence[bool]:
        """Return, a stage of the chain, whether a batch updates it; equal on every rank."""
        drawn = draw_updates(self.probabilities, seed=self.seed, step=batch)
        return [u and t for u, t in zip(drawn, self._trained, strict=True)]

    def _take_batch(
        self, batch: int, inputs: Any, labels: Tensor | None, condition: Tensor | None
    ) -> tuple[Any, Tensor, Tensor | None]:
        if self._reads_data:
            if labels is None:
                raise EngineError(
                    f"rank {self.rank} reads the data itself: call engine.step(inputs, labels)."
                )
            if self._input is not None:
                updated = self._updates(batch)[self.stages[0]]
                inputs = self._input.predict(inputs, batch, updated=updated)
            return inputs, labels, condition
        return self._exchange.take_batch(batch)

    @property
    def _reads_data(self) -> bool:
        return self.place.below is None or self.unlocked

    def _loss_of(self, work: Work, labels: Tensor, batch: int) -> Tensor:
        with torch.set_grad_enabled(work.updated):
            loss = self.loss(work.output, labels)
        self._exchange.check("a loss", [loss], self.stages[-1], batch)
        work.loss = loss
        return loss

    @contextmanager
    def _reported(self, where: str) -> Generator[None]:
        """Write down for the other ranks why this one stops."""
        try:
            yield
        except RankError:
            raise
        except BaseException as error:
            message = str(error)
            if not isinstance(error, DivergedError):
                message = f"rank {self.rank} failed {where}: {type(error).__name__}: {error}"
            self._faults.report(message, culprit=self.rank)
            raise
