"""The runs of a job in several processes at once: sooner done, and without a clock.

A run beside others on the same cores takes as long as they let it, so its record says that its
seconds were not measured.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from synthgrad.bench.running.job import Job
from synthgrad.bench.running.processes import run_in_processes
from synthgrad.bench.running.progress import Listener
from synthgrad.bench.running.recorded import RecordedRuns
from synthgrad.data import Dataset


def run_unclocked(
    job: Job,
    out: Path,
    missing: Mapping[str, str],
    *,
    processes: int,
    progress: Listener,
    tensorboard: bool,
) -> Counter[str]:
    """Run every arm with every seed, so many at once.

    Args:
        job: what to run; its functions must be on module level, or partials of such.
        out: the folder of the records.
        missing: by arm, why it cannot run here.
        processes: how many runs at once; they share the cores evenly.
        progress: is told what happens.
        tensorboard: whether to write curves and graphs for TensorBoard.

    Returns:
        How the runs ended, counted; one whose process died has crashed, and goes on from its
        checkpoint the next time.

    Raises:
        ConfigError: the job cannot be sent to another process.
        RecordError: a record cannot be written, or is that of another config.
        KeyboardInterrupt: by the user; all processes have ended.
    """
    positions = {arm.name: position for position, arm in enumerate(job.arms)}
    work = {f"{arm.name}-s{seed}": (positions[arm.name], seed) for arm, seed in job.runs()}
    setup = _Setup(job, out, missing, tensorboard)
    return run_in_processes(work, setup, processes=processes, progress=progress)


@dataclass(frozen=True)
class _Setup:
    """What every process gets at its start."""

    job: Job
    out: Path
    missing: Mapping[str, str]
    tensorboard: bool

    def __call__(self) -> "_Runs":
        return _Runs(self, self.job.load().to(torch.device(self.job.device)))


@dataclass(frozen=True)
class _Runs:
    """Runs one (position of an arm, seed) after the other, on data that are loaded once."""

    setup: _Setup
    data: Dataset

    def __call__(self, item: tuple[int, int], progress: Listener) -> str:
        position, seed = item
        recorded = RecordedRuns(
            out=self.setup.out,
            kind="run",
            data=self.data,
            missing=self.setup.missing,
            progress=progress,
            tensorboard=self.setup.tensorboard,
            clocked=False,
        )
        return recorded.run(self.setup.job, self.setup.job.arms[position], seed)
