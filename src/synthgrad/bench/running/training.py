"""One run: one arm trained with one seed, measured as the protocol says.

The clock starts before the first line of the method's own code and stands still whenever we look at
the network. The timed loop is `advance`, which holds nothing but batches and steps; everything else
happens at stops fixed before the run.
"""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from synthgrad import diagnostics
from synthgrad.bench.clock import Stopwatch
from synthgrad.bench.running.arms import Arm
from synthgrad.bench.running.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint
from synthgrad.bench.running.evaluation import evaluate
from synthgrad.bench.running.learner import Learner
from synthgrad.bench.running.plan import Plan
from synthgrad.bench.running.randomness import forked_random, random_state, restore_random_state
from synthgrad.bench.running.warmup import dummy_batch, warm_up
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Batches, Cursor, Dataset, Split
from synthgrad.errors import DivergedError, RecordError

FROM_THE_START = -1
"""The `iteration` of a "resumed" event when there was no checkpoint to go on from."""


class EventSink(Protocol):
    """Where a run's events go: a `RecordWriter`, and whatever listens beside it."""

    def event(self, name: str, /, **values: Any) -> None:
        """Take one event."""
        ...


def train(
    arm: Arm,
    data: Dataset,
    plan: Plan,
    *,
    seed: int,
    folder: Path,
    sink: EventSink,
    resumes: bool = False,
    facts: dict[str, Any] | None = None,
    reads_test_data: bool = True,
    clocked: bool = True,
    on_advance: Callable[[int], None] = lambda num_iterations: None,
) -> Learner:
    """Train one arm with one seed to the end, and tell the sink all about it.

    Args:
        arm: what to train.
        data: on the device to train on.
        plan: length, schedule and stops.
        seed: of weights, batches and skipped stages, each derived for its own purpose.
        folder: where a checkpoint is kept while the run is unfinished.
        sink: gets every event; "finished" or "failed" is the last.
        resumes: whether the record has been begun before; it goes on from the checkpoint, or from
            the start if there is none.
        facts: more values for the "facts" event.
        reads_test_data: whether to evaluate on the test examples at the end; not when tuning.
        clocked: whether its seconds are evidence; else its events hold None in their place, as it
            is trained beside other runs.
        on_advance: told how many iterations were done since the last call.

    Returns:
        The trained learner.

    Raises:
        DivergedError: the loss became NaN or infinite; the "failed" event has been sent, as for
            any other error of the method.
        KeyboardInterrupt: by the user; the "interrupted" event has been sent.
        RecordError: the record or the checkpoint cannot be written, or the checkpoint is damaged.
    """
    with forked_random(data.train.labels.device):
        run = _Run(arm, data, plan, seed, folder, sink, clocked=clocked)
        try:
            run.begin(resumes=resumes, facts=facts or {}, on_advance=on_advance)
            run.go(on_advance)
            run.finish(reads_test_data=reads_test_data)
        except KeyboardInterrupt:
            sink.event("interrupted", iteration=run.iteration)
            raise
        except RecordError:
            raise
        except Exception as error:
            sink.event("failed", **failure(error), iteration=run.iteration)
            remove_checkpoint(folder)
            raise
    return run.learner


def advance(learner: Learner, batches: Batches, num_iterations: int) -> tuple[list[Tensor], int]:
    """Train for some iterations: the timed loop, with nothing in it that the method does not need.

    Returns:
        The loss of each iteration, on the device, and the number of stage updates.
    """
    losses: list[Tensor] = []
    num_updates = 0
    for _ in range(num_iterations):
        inputs, labels = next(batches)
        losses.append(learner.step(inputs, labels))
        num_updates += learner.num_updated
    learner.settle()
    return losses, num_updates


def first_bad_loss(losses: list[Tensor]) -> tuple[int, str] | None:
    """Return the position of the first loss that is not finite and what it is, or None.

    Looking at them waits for the device, so do it while the clock stands.
    """
    values = torch.stack(losses).tolist()
    for position, value in enumerate(values):
        if not math.isfinite(value):
            return position, "NaN" if math.isnan(value) else "infinite"
    return None


def failure(error: Exception) -> dict[str, Any]:
    """Return what a "failed" event says of an error: its reason, and whether it is a crash."""
    first_line = str(error).partition("\n")[0][:200]
    crashed = not isinstance(error, DivergedError)
    reason = f"{type(error).__name__}: {first_line}" if crashed else first_line
    return {"reason": reason, "crashed": crashed}


class _Run:
    """The state of one run, and its four acts: begin, go, look, finish."""

    learner: Learner
    batches: Batches

    def __init__(
        self,
        arm: Arm,
        data: Dataset,
        plan: Plan,
        seed: int,
        folder: Path,
        sink: EventSink,
        *,
        clocked: bool,
    ) -> None:
        self.arm = arm
        self.data = data
        self.plan = plan
        self.seed = seed
        self.folder = folder
        self.sink = sink
        self.clocked = clocked
        self.device = data.train.labels.device
        self.watch = Stopwatch(device=self.device)
        self.iteration = 0
        self.stage_updates = 0
        self.saved_at = 0.0
        self.train_examples = _subset(data.train, plan.num_train_examples)
        self.probe = _subset(data.train, plan.num_probe_examples)

    def begin(
        self, *, resumes: bool, facts: dict[str, Any], on_advance: Callable[[int], None]
    ) -> None:
        """Build and warm up; then go on from a checkpoint, or take the first snapshot."""
        checkpoint = load_checkpoint(self.folder) if resumes else None
        batch = dummy_batch(self.data, self.plan.batch_size)
        self.watch.start()
        self.learner = self.arm.build(self.seed, self.data)
        counted = warm_up(self.learner, batch, self.watch, num_steps=self.plan.warmup_steps)
        self.watch.pause()
        self.learner.net.train()
        if checkpoint is not None:
            self._restore(checkpoint)
            self.sink.event("resumed", iteration=self.iteration, clocked=self.clocked)
            on_advance(self.iteration)
            return
        if resumes:
            self.sink.event("resumed", iteration=FROM_THE_START, clocked=self.clocked)
        torch.manual_seed(derive_seed(self.seed, "training"))
        self.batches = self._batches(Cursor())
        self.sink.event("facts", **counted, dataset=self.data.name, **facts)
        self.sink.event("warmup", cold_seconds=self._seconds)
        self.look()

    def go(self, on_advance: Callable[[int], None]) -> None:
        """Train from stop to stop."""
        snapshots = set(self.plan.snapshots)
        for stop in self.plan.stops(after=self.iteration):
            self.learner.scale_learning_rates(self.plan.rate_factor(self.iteration))
            num_iterations = stop - self.iteration
            self.watch.start()
            losses, num_updates = advance(self.learner, self.batches, num_iterations)
            self.watch.pause()
            if bad := first_bad_loss(losses):
                self.iteration += bad[0] + 1
                raise DivergedError(f"loss is {bad[1]} at iteration {self.iteration}")
            self.iteration = stop
            self.stage_updates += num_updates
            if stop in snapshots:
                self.look()
                self._save()
            on_advance(num_iterations)

    def look(self) -> None:
        """Take a snapshot, with nothing training."""
        model = self.learner.model
        train, validation = (
            evaluate(model, s) for s in (self.train_examples, self.data.validation)
        )
        self.sink.event(
            "snapshot",
            **self._totals(),
            train_loss=train.loss,
            train_accuracy=train.accuracy,
            val_loss=validation.loss,
            val_accuracy=validation.accuracy,
        )
        net = self.learner.decoupled
        if net is not None and any(i.signal.trains_below for i in net.ordered_interfaces()):
            inputs, labels = next(self.probe.in_order(len(self.probe)))
            measures = diagnostics.alignment(
                net, inputs, lambda output: self.learner.loss(output, labels), condition=labels
            )
            self.sink.event("alignment", iteration=self.iteration, interfaces=measures)

    def finish(self, *, reads_test_data: bool) -> None:
        """Read the test examples, once, and close the record."""
        scores: dict[str, float] = {}
        if reads_test_data:
            test = evaluate(self.learner.model, self.data.test)
            scores = {"test_accuracy": test.accuracy, "test_loss": test.loss}
        self.sink.event("finished", **self._totals(), **scores)
        remove_checkpoint(self.folder)

    @property
    def _seconds(self) -> float | None:
        return self.watch.seconds if self.clocked else None

    def _totals(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "seconds": self._seconds,
            "examples": self.iteration * self.plan.batch_size,
            "stage_updates": self.stage_updates,
        }

    def _batches(self, cursor: Cursor) -> Batches:
        seed = derive_seed(self.seed, "batches")
        return Batches(self.data.train, batch_size=self.plan.batch_size, seed=seed, cursor=cursor)

    def _save(self) -> None:
        if self.watch.seconds - self.saved_at < self.plan.checkpoint_every_s:
            return
        save_checkpoint(
            self.folder,
            {
                "learner": self.learner.state_dict(),
                "random": random_state(self.device),
                "cursor": asdict(self.batches.cursor),
                "iteration": self.iteration,
                "stage_updates": self.stage_updates,
                "seconds": self.watch.seconds,
            },
        )
        self.saved_at = self.watch.seconds

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        self.learner.load_state_dict(checkpoint["learner"])
        restore_random_state(checkpoint["random"], self.device)
        self.batches = self._batches(Cursor(**checkpoint["cursor"]))
        self.iteration = checkpoint["iteration"]
        self.stage_updates = checkpoint["stage_updates"]
        self.watch = Stopwatch(checkpoint["seconds"], self.device)
        self.saved_at = checkpoint["seconds"]


def _subset(split: Split, num_examples: int) -> Split:
    """Return the first examples as they lie on disk: the same in every run."""
    return Split(pixels=split.pixels[:num_examples], labels=split.labels[:num_examples])
