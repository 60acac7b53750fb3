"""Start times as a recurrence over arrays: the simulator for thousands of stages.

Math: operation j of stage k starts at max(end of operation j - 1 of k, arrival of the message it
waits for), and a message arrives at max(end of the operation that sends it, the link being free) +
transfer + delay. Each round takes every stage one operation further that can go.
"""

import numpy as np

from synthgrad.errors import EngineError
from synthgrad.planning.costs import Costs, Floats, Ints
from synthgrad.planning.schedules import SENDS_DOWN, SENDS_UP, TAKES_FROM_ABOVE, TAKES_FROM_BELOW

UP, DOWN = 0, 1


class _Messages:
    """What goes over the links in one direction, one channel a link."""

    def __init__(self, costs: Costs, direction: int) -> None:
        self.transfer_s = costs.transfer_s[direction]
        self.delay_s = costs.delay_s[direction]
        num_links = len(self.transfer_s)
        self.arrivals = np.full(self.delay_s.shape, np.inf)
        self.free_at = np.zeros(num_links)
        self.num_sent = np.zeros(num_links, dtype=np.int64)
        self.num_taken = np.zeros(num_links, dtype=np.int64)

    def next_arrival(self, links: Ints) -> Floats:
        return self.arrivals[links, self.num_taken[links]]

    def send(self, links: Ints, ready: Floats) -> None:
        left = np.maximum(ready, self.free_at[links]) + self.transfer_s[links]
        self.free_at[links] = left
        number = self.num_sent[links]
        self.arrivals[links, number] = left + self.delay_s[links, number]
        self.num_sent[links] += 1


def start_times(costs: Costs) -> Floats:
    """Return when each operation starts, [stages, operations]; NaN behind the end of a program.

    Raises:
        EngineError: the programs wait for each other.
    """
    num_stages, last = costs.num_stages, costs.num_stages - 1
    up, down = _Messages(costs, UP), _Messages(costs, DOWN)
    starts = np.full((num_stages, costs.programs.shape[1]), np.nan)
    free_at, place = np.zeros(num_stages), np.zeros(num_stages, dtype=np.int64)
    may_go = np.arange(num_stages)
    while may_go.size:
        k = may_go[place[may_go] < costs.lengths[may_go]]
        ops = costs.programs[costs.which[k], place[k]]
        from_below = TAKES_FROM_BELOW[ops] & (k > 0)
        from_above = TAKES_FROM_ABOVE[ops] & (k < last)
        at = free_at[k]
        at[from_below] = np.maximum(at[from_below], up.next_arrival(k[from_below] - 1))
        at[from_above] = np.maximum(at[from_above], down.next_arrival(k[from_above]))
        goes = at < np.inf
        k, ops, at = k[goes], ops[goes], at[goes]
        seconds = costs.seconds[k, ops]
        if costs.factors is not None:
            seconds = seconds * costs.factors[k, place[k]]
        end = at + seconds
        starts[k, place[k]] = at
        free_at[k] = end
        place[k] += 1
        up.num_taken[k[from_below[goes]] - 1] += 1
        down.num_taken[k[from_above[goes]]] += 1
        sends_up = SENDS_UP[ops] & (k < last)
        sends_down = SENDS_DOWN[ops] & (k > 0)
        up.send(k[sends_up], end[sends_up])
        down.send(k[sends_down] - 1, end[sends_down])
        # Only these can have something new to go on with.
        may_go = np.unique(np.concatenate([k - 1, k, k + 1]))
        may_go = may_go[(may_go >= 0) & (may_go <= last)]
    if np.any(place < costs.lengths):
        stuck = np.flatnonzero(place < costs.lengths)
        raise EngineError(f"stages {stuck[:5].tolist()} wait for messages that nobody sends")
    return starts
