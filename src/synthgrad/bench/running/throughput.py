"""Steady speed, arm against arm: short blocks of iterations in turn, so that what slows the machine
down slows all of them down alike, and ratios are taken within a round.

What is timed is an iteration as a run does it: fetching the batch and training on it. The first
iteration of a block is not timed; it brings the arm's weights back into the cache and wakes as
many threads as the arm uses.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from synthgrad.bench.clock import Stopwatch
from synthgrad.bench.running.arms import Arm
from synthgrad.bench.running.learner import Learner
from synthgrad.bench.running.plan import Plan
from synthgrad.bench.running.randomness import forked_random
from synthgrad.bench.running.threads import num_threads
from synthgrad.bench.running.training import EventSink, advance
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Batches, Dataset
from synthgrad.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ThroughputPlan:
    """How many rounds, and how long a block is.

    Args:
        rounds: a round holds one block of every arm; 0 leaves the timing out.
        block_iterations: timed iterations of a block; an arm that skips stages at random gets
            more, in proportion, so that its blocks are about as much alike.

    Raises:
        ConfigError: a value cannot work.
    """

    rounds: int
    block_iterations: int = 5

    def __post_init__(self) -> None:
        """Check the values."""
        if self.rounds < 0 or self.block_iterations < 1:
            raise ConfigError(
                f"rounds={self.rounds} must be 0 or more and "
                f"block_iterations={self.block_iterations} 1 or more"
            )


class TimedArm:
    """An arm that takes part in the timing: its learner, its batches and its number of threads.

    Args:
        arm: the arm.
        data: on the device to train on.
        plan: of its runs.
        seed: of weights and batches.
        threads: how many threads it uses.
    """

    def __init__(self, arm: Arm, data: Dataset, plan: Plan, *, seed: int, threads: int) -> None:
        """Build the learner and take its first steps."""
        self.arm = arm
        self.threads = threads
        self.device = data.train.labels.device
        self.batch_size = plan.batch_size
        with forked_random(self.device), num_threads(threads):
            self.learner: Learner = arm.build(seed, data)
            self.learner.net.train()
            batches_seed = derive_seed(seed, "batches")
            self.batches = Batches(data.train, batch_size=plan.batch_size, seed=batches_seed)
            advance(self.learner, self.batches, plan.warmup_steps)

    def time_block(self, num_iterations: int) -> dict[str, float]:
        """Train for a block and return its `iterations`, `seconds`, `examples`, ..."""
        with num_threads(self.threads):
            self.learner.step(*next(self.batches))
            watch = Stopwatch(device=self.device)
            watch.start()
            _, num_updates = advance(self.learner, self.batches, num_iterations)
            watch.pause()
        return {
            "iterations": num_iterations,
            "seconds": watch.seconds,
            "examples": num_iterations * self.batch_size,
            "stage_updates": num_updates,
            "threads": self.threads,
        }


def measure_throughput(
    timed: Mapping[str, TimedArm],
    plan: ThroughputPlan,
    sink: EventSink,
    *,
    first_round: int = 0,
    on_round: Callable[[], None] = lambda: None,
) -> None:
    """Time blocks in turn, A B C, C B A, ..., and send a "block" event for each.

    Args:
        timed: by arm, in the order of the first round.
        plan: rounds and length of blocks.
        sink: gets the events; "finished" is the last.
        first_round: where to go on after an interruption.
        on_round: called after each round.
    """
    watch = Stopwatch()
    watch.start()
    for number in range(first_round, plan.rounds):
        order = list(timed.items())
        for name, timed_arm in order if number % 2 == 0 else order[::-1]:
            length = math.ceil(plan.block_iterations / timed_arm.arm.update_probability)
            sink.event("block", round=number, arm=name, **timed_arm.time_block(length))
        on_round()
    sink.event("finished", iteration=plan.rounds, seconds=watch.seconds)
