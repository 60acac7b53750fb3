"""All runs of an experiment into one folder: in an order that is fair to every arm, resumable.

First each arm's number of threads, then the runs, then the blocks of interleaved timing; or the
runs in several processes at once, and the rest after them. What is finished is kept; what was
interrupted goes on.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from rich.console import Console

from synthgrad.bench.records.reading import read_one, read_records
from synthgrad.bench.records.record import RecordWriter
from synthgrad.bench.running.arms import Arm
from synthgrad.bench.running.job import Job, Outcome, interleave
from synthgrad.bench.running.progress import RunProgress
from synthgrad.bench.running.randomness import forked_random
from synthgrad.bench.running.recorded import RecordedRuns
from synthgrad.bench.running.threads import calibrate, num_threads, thread_counts
from synthgrad.bench.running.throughput import TimedArm, measure_throughput
from synthgrad.bench.running.unclocked import run_unclocked
from synthgrad.bench.running.warmup import dummy_batch
from synthgrad.data import Dataset
from synthgrad.errors import ConfigError, DataNotFoundError


def run_job(
    job: Job, out: Path, *, console: Console, tensorboard: bool = False, processes: int = 1
) -> Outcome:
    """Run every arm with every seed, then time them against each other.

    Several processes are sooner done with the runs, and then there is no clock on them: a run
    beside others is no evidence of speed. The interleaved timing follows them, alone, or is left
    to a later call with the same `out` and rounds above 0.

    Args:
        job: what to run.
        out: the folder of the records.
        console: for the progress.
        tensorboard: whether to write curves and graphs below `out` for TensorBoard.
        processes: how many runs at once, each in a process of its own with its share of the cores.

    Returns:
        How the runs ended.

    Raises:
        ConfigError: the device is not there, or the job cannot be sent to another process.
        RecordError: `out` cannot be written, or holds the record of another config.
        CorruptDataError: the data are there and damaged.
        KeyboardInterrupt: by the user; the record holds what was done, and the same call goes on.
    """
    if processes < 1:
        raise ConfigError(f"processes={processes} must be 1 or more")
    _check_device(job.device)
    runs = job.runs()
    outcome = Outcome()
    with ExitStack() as stack:
        timing = stack.enter_context(_open_timing(job, out)) if job.throughput.rounds else None
        data, missing = _prepare(job, console)
        present = [arm for arm in job.arms if arm.name not in missing]
        total = sum(job.plan.iterations for arm, _ in runs if arm in present)
        total += job.throughput.rounds * _iterations_a_round(job, present)
        progress = stack.enter_context(RunProgress(total, console))
        clocked = processes == 1 or data is None
        if not clocked:
            outcome.runs += run_unclocked(
                job,
                out,
                missing,
                processes=processes,
                progress=progress,
                tensorboard=tensorboard,
            )
        threads = dict[str, int]()
        if clocked or timing:
            threads = _choose_threads(job, present, data, out, timing, progress)
        recorded = RecordedRuns(
            out=out,
            kind="run",
            data=data,
            missing=missing,
            progress=progress,
            tensorboard=tensorboard,
        )
        for arm, seed in runs if clocked else ():
            with num_threads(threads.get(arm.name, torch.get_num_threads())):
                outcome.runs[recorded.run(job, arm, seed)] += 1
        if data and present and timing:
            _time(job, present, threads, data, timing, progress)
    return outcome


def tune_job(jobs: Mapping[float, Job], out: Path, *, console: Console) -> Outcome:
    """Run every arm with every learning rate and every seed; the test examples are not read.

    Args:
        jobs: by learning rate; they differ in nothing else.
        out: the folder of the records; not one of `run_job`.
        console: for the progress.

    Returns:
        How the runs ended; `best_rates` reads what came of them.

    Raises:
        ConfigError: the device is not there.
        RecordError: `out` cannot be written, or holds the record of another config.
        CorruptDataError: the data are there and damaged.
        KeyboardInterrupt: by the user; the same call goes on.
    """
    first = next(iter(jobs.values()))
    _check_device(first.device)
    data, missing = _prepare(first, console)
    trials = [(rate, arm) for rate, job in jobs.items() for arm in job.arms]
    runs = list(interleave(trials, first.seeds))
    outcome = Outcome()
    count = thread_counts()[-1] if first.threads == "best" else first.threads
    with RunProgress(first.plan.iterations * len(runs), console) as progress, num_threads(count):
        recorded = RecordedRuns(out=out, kind="tune", data=data, missing=missing, progress=progress)
        for (rate, arm), seed in runs:
            status = recorded.run(jobs[rate], arm, seed, suffix=f"-lr{rate:g}")
            outcome.runs[status] += 1
    return outcome


def _prepare(job: Job, console: Console) -> tuple[Dataset | None, dict[str, str]]:
    """Return the data on the job's device, and by arm why it cannot run here."""
    device = torch.device(job.device)
    try:
        data = job.load().to(device)
    except DataNotFoundError as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        reason = f"data not found: {job.config['dataset']}"
        return None, {arm.name: reason for arm in job.arms}
    _wake(device)
    missing = {arm.name: arm.missing() for arm in job.arms}
    return data, {name: reason for name, reason in missing.items() if reason is not None}


def _check_device(device: str) -> None:
    """Refuse a device that is not there, before anything is written."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"device={device!r} cannot be used: {reason}; use --device cpu"
        ) from error


def _wake(device: torch.device) -> None:
    """Take one step of a tiny network, so that no arm's clock pays for starting torch itself."""
    with forked_random(device):
        net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)).to(device)
        optimizer = torch.optim.Adam(net.parameters(), fused=True)
        net(torch.ones(4, 4, device=device)).square().mean().backward()
        optimizer.step()


def _open_timing(job: Job, out: Path) -> RecordWriter:
    """Open the record of the interleaved timing, which also keeps the choice of threads."""
    description = job.describe("throughput")
    description["config"] |= {
        "arms": [arm.name for arm in job.arms],
        "rounds": job.throughput.rounds,
        "block_iterations": job.throughput.block_iterations,
    }
    return RecordWriter(out / "throughput", description)


def _choose_threads(
    job: Job,
    arms: Sequence[Arm],
    data: Dataset | None,
    out: Path,
    timing: RecordWriter | None,
    progress: RunProgress,
) -> dict[str, int]:
    """Return each arm's number of threads; one that was calibrated before keeps its number."""
    if data is None or data.train.labels.is_cuda:
        return {arm.name: torch.get_num_threads() for arm in arms}
    if job.threads != "best":
        return {arm.name: job.threads for arm in arms}
    chosen = _threads_before(out)
    for arm in arms:
        if arm.name not in chosen:
            progress.describe(f"{arm.name}: number of threads")
            try:
                times = calibrate(lambda arm=arm: _stepper(job, arm, data), thread_counts())
            except Exception:  # what is wrong with the arm its first run will say
                chosen[arm.name] = thread_counts()[-1]
                continue
            chosen[arm.name] = min(times, key=times.__getitem__)
            if timing:
                timing.event(
                    "calibration",
                    arm=arm.name,
                    threads=chosen[arm.name],
                    seconds_per_iteration=times,
                )
    return chosen


def _threads_before(out: Path) -> dict[str, int]:
    """Return what arms were calibrated to: as the timing says, else as their clocked runs did."""
    records = read_records(out)[0] if out.is_dir() else []
    clocked = [record for record in records if record.kind == "run" and record.clocked]
    found = {run.arm: run.facts["threads"] for run in clocked if run.facts.get("threads")}
    events = [event for record in records for event in record.of_kind("calibration")]
    return found | {event["arm"]: event["threads"] for event in events}


def _stepper(job: Job, arm: Arm, data: Dataset) -> Callable[[], object]:
    with forked_random(data.train.labels.device):
        learner = arm.build(job.seeds[0], data)
    batch = dummy_batch(data, job.plan.batch_size)

    def step() -> None:
        learner.step(*batch)
        learner.settle()  # or its work would run on into what is timed next

    return step


def _time(
    job: Job,
    arms: Sequence[Arm],
    threads: Mapping[str, int],
    data: Dataset,
    timing: RecordWriter,
    progress: RunProgress,
) -> None:
    """Take the blocks that are not in the record yet."""
    record = read_one(timing.folder)
    blocks = record.blocks if record else ()
    first_round = 1 + max((block.round for block in blocks), default=-1)
    num_iterations = _iterations_a_round(job, arms)
    progress.advance(first_round * num_iterations)
    if first_round >= job.throughput.rounds:
        return
    if first_round:
        timing.event("resumed", iteration=first_round)
    progress.describe("throughput: arms in turn")
    rounds = Counter(done=first_round)

    def count_round() -> None:
        rounds["done"] += 1
        progress.advance(num_iterations)

    timed = dict[str, TimedArm]()
    try:
        for arm in arms:
            try:
                timed[arm.name] = TimedArm(
                    arm, data, job.plan, seed=job.seeds[0], threads=threads[arm.name]
                )
            except Exception as error:  # its runs say so as well; the other arms are timed
                progress.note(f"{arm.name}: not timed: {type(error).__name__}: {error}")
        measure_throughput(
            timed, job.throughput, timing, first_round=first_round, on_round=count_round
        )
    except KeyboardInterrupt:
        timing.event("interrupted", iteration=rounds["done"])
        raise


def _iterations_a_round(job: Job, arms: Sequence[Arm]) -> int:
    return sum(math.ceil(job.throughput.block_iterations / a.update_probability) for a in arms)
