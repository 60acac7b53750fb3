"""The same as processes and messages in simpy: what the recurrence is tested against.

It can do what a recurrence cannot: a stage that takes whatever has arrived.
"""

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import simpy

from synthgrad.errors import EngineError
from synthgrad.planning.costs import Costs, Floats
from synthgrad.planning.schedules import (
    SENDS_DOWN,
    SENDS_UP,
    TAKES_FROM_ABOVE,
    TAKES_FROM_BELOW,
    Op,
)

Process = Generator[simpy.Event, Any, None]


class _Channel:
    """A link in one direction: holds one message at a time, then each is on its way by itself."""

    def __init__(self, env: simpy.Environment, transfer_s: float, delays_s: Floats) -> None:
        self.env = env
        self.transfer_s = transfer_s
        self.delays_s = delays_s.tolist()
        self.queue = simpy.Store(env)
        self.arrivals = [env.event() for _ in self.delays_s]
        self.num_taken = 0
        env.process(self._carry())

    def send(self) -> None:
        """Put the next message into the queue."""
        self.queue.put(None)

    def next(self) -> simpy.Event:
        """Return the arrival of the message to take next."""
        return self.arrivals[self.num_taken]

    def _carry(self) -> Process:
        for arrival, delay_s in zip(self.arrivals, self.delays_s, strict=True):
            yield self.queue.get()
            yield self.env.timeout(self.transfer_s)
            self.env.process(self._fly(arrival, delay_s))

    def _fly(self, arrival: simpy.Event, delay_s: float) -> Process:
        yield self.env.timeout(delay_s)
        arrival.succeed()


@dataclass
class _Stage:
    """What a stage knows: its neighbors' channels, and when it began what."""

    env: simpy.Environment
    operations: list[tuple[Op, float]]
    from_below: _Channel | None
    from_above: _Channel | None
    to_above: _Channel | None
    to_below: _Channel | None
    done: list[tuple[Op, float, float]] = field(default_factory=list[tuple[Op, float, float]])
    in_flight: int = 0

    def run(self) -> Process:
        """Do the program, in its order."""
        for op, seconds in self.operations:
            yield from self.do(op, seconds)

    def do(self, op: Op, seconds: float) -> Process:
        """Do one operation: wait for its messages, work, send."""
        if TAKES_FROM_BELOW[op] and self.from_below is not None:
            yield from self._take(self.from_below)
        if TAKES_FROM_ABOVE[op] and self.from_above is not None:
            yield from self._take(self.from_above)
        self.done.append((op, self.env.now, seconds))
        yield self.env.timeout(seconds)
        if SENDS_UP[op] and self.to_above is not None:
            self.to_above.send()
        if SENDS_DOWN[op] and self.to_below is not None:
            self.to_below.send()

    def run_free(self, max_in_flight: int) -> Process:
        """Fit to targets when they come, and go on with batches meanwhile.

        The program tells how long each operation takes; fits may move to another place in it.
        """
        fits = deque(seconds for op, seconds in self.operations if op is Op.FIT)
        for op, seconds in self.operations:
            if op is Op.FIT:
                continue
            if op is Op.FORWARD:
                yield from self._fit_until_batch(fits, max_in_flight)
                self.in_flight += self.from_above is not None
            yield from self.do(op, seconds)
        while self.in_flight:
            yield from self._fit(fits)

    def _fit_until_batch(self, fits: deque[float], max_in_flight: int) -> Process:
        while True:
            target = self.from_above.next() if self.in_flight and self.from_above else None
            batch = self.from_below.next() if self.from_below else None
            if target and (target.processed or self.in_flight >= max_in_flight):
                yield from self._fit(fits)
            elif batch is None or batch.processed:
                return
            else:
                yield simpy.AnyOf(self.env, [e for e in (batch, target) if e is not None])

    def _fit(self, fits: deque[float]) -> Process:
        yield from self.do(Op.FIT, fits.popleft())
        self.in_flight -= 1

    def _take(self, channel: _Channel) -> Process:
        arrival = channel.next()
        channel.num_taken += 1
        if not arrival.processed:
            yield arrival


def run_processes(
    costs: Costs, *, free_with: int | None = None
) -> list[list[tuple[Op, float, float]]]:
    """Return, a stage, its operations as (what, start, seconds) in the order in which it did them.

    Args:
        costs: programs and times.
        free_with: let stages fit to whatever has arrived, with so many batches in flight; None
            keeps to the programs.

    Raises:
        EngineError: the programs wait for each other.
    """
    env = simpy.Environment()
    links = range(costs.num_stages - 1)
    up, down = (
        [_Channel(env, float(costs.transfer_s[d][k]), costs.delay_s[d][k]) for k in links]
        for d in (0, 1)
    )
    stages = [
        _Stage(
            env,
            costs.of_stage(k),
            from_below=up[k - 1] if k else None,
            from_above=down[k] if k < len(links) else None,
            to_above=up[k] if k < len(links) else None,
            to_below=down[k - 1] if k else None,
        )
        for k in range(costs.num_stages)
    ]
    for stage in stages:
        env.process(stage.run() if free_with is None else stage.run_free(free_with))
    env.run()
    stuck = [k for k, s in enumerate(stages) if len(s.done) < len(s.operations)]
    if stuck:
        raise EngineError(f"stages {stuck[:5]} wait for messages that nobody sends")
    return [stage.done for stage in stages]
