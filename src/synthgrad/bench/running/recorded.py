"""One run with its record: begun, gone on with, or found to be complete already."""

import sys
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.records.reading import read_one
from synthgrad.bench.records.record import RecordWriter
from synthgrad.bench.running.arms import Arm
from synthgrad.bench.running.job import Job
from synthgrad.bench.running.progress import Listener
from synthgrad.bench.running.randomness import forked_random
from synthgrad.bench.running.training import EventSink, train
from synthgrad.bench.running.warmup import dummy_batch
from synthgrad.data import Dataset
from synthgrad.errors import DivergedError, RecordError


@dataclass(frozen=True, kw_only=True)
class RecordedRuns:
    """The runs of one kind into one folder.

    Args:
        out: the folder of the records.
        kind: "run", or "tune", whose runs never read the test examples.
        data: on the device to train on; None where they were not found.
        missing: by arm, why it cannot run here.
        progress: is told what happens.
        tensorboard: whether to write curves and graphs for TensorBoard.
        clocked: whether the runs are alone on the machine, so that their seconds are evidence. One
            that was begun beside others stays without a clock.
    """

    out: Path
    kind: str
    data: Dataset | None
    missing: Mapping[str, str]
    progress: Listener
    tensorboard: bool = False
    clocked: bool = True

    def run(self, job: Job, arm: Arm, seed: int, *, suffix: str = "") -> str:
        """Run one arm with one seed, unless its record is complete.

        Returns:
            "finished", "failed", "unavailable", or "crashed" for an error other than a loss that
            is not finite; its record says "failed" too, and the other runs may go on. The next
            command tries again what crashed, and keeps what failed.

        Raises:
            RecordError: the record cannot be written, or is that of another config.
            KeyboardInterrupt: by the user.
        """
        name = f"{arm.name}-s{seed}{suffix}"
        folder = self.out / ("runs" if self.kind == "run" else self.kind) / name
        description = job.describe(self.kind)
        description |= {"arm": arm.name, "label": arm.label, "seed": seed, "clocked": self.clocked}
        description["tuned"] = arm.tuned
        description["config"] |= arm.options
        if not self.clocked:
            description["config"]["threads"] = torch.get_num_threads()
        description["arm_options"] = sorted(arm.options)
        self.progress.describe(name)
        with RecordWriter(folder, description) as writer:
            before = read_one(folder) if writer.resumes else None
            if before and before.is_settled:
                self.progress.advance(job.plan.iterations)
                self.progress.note(f"{name}: {before.status} before, kept in {folder}")
                return before.status
            if self.data is None or arm.name in self.missing:
                writer.event("unavailable", reason=self.missing[arm.name])
                self.progress.note(f"{name}: not available: {self.missing[arm.name]}")
                return "unavailable"
            try:
                self._train(job, arm, seed, self.data, writer, name, before)
            except RecordError:
                raise
            except Exception as error:
                diverged = isinstance(error, DivergedError)
                if not diverged:
                    traceback.print_exception(error, file=sys.stderr)
                self.progress.note(f"{name}: failed: {error}")
                return "failed" if diverged else "crashed"
        self.progress.note(f"{name}: {_ending(read_one(folder))}")
        return "finished"

    def _train(
        self,
        job: Job,
        arm: Arm,
        seed: int,
        data: Dataset,
        writer: RecordWriter,
        name: str,
        before: RunRecord | None,
    ) -> None:
        resumes = before is not None
        with ExitStack() as stack:
            sink: EventSink = writer
            if self.tensorboard:
                # Late, because TensorBoard takes a second to import and is seldom asked for.
                from synthgrad.bench.running.tensorboard import Curves

                sink = stack.enter_context(Curves(writer, self.out / "tensorboard" / name))
                if not resumes:
                    with forked_random(data.train.labels.device):
                        sink.draw_graph(arm.build(seed, data), *dummy_batch(data, 2))
            train(
                arm,
                data,
                job.plan,
                seed=seed,
                folder=writer.folder,
                sink=sink,
                resumes=resumes,
                facts={"threads": torch.get_num_threads()},
                reads_test_data=self.kind == "run",
                clocked=self.clocked and (before is None or before.clocked),
                on_advance=self.progress.advance,
            )


def _ending(record: RunRecord | None) -> str:
    """Return how a run ended, for people."""
    event: Mapping[str, Any] = (record.finished if record else None) or {}
    accuracy, seconds = event.get("test_accuracy"), event.get("seconds")
    parts = [
        None if accuracy is None else f"{accuracy:.2f} % test accuracy",
        None if seconds is None else f"{seconds:.1f} s of training",
    ]
    return ": ".join(filter(None, ["finished", ", ".join(filter(None, parts))]))
