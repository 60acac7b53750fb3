"""Blocks of every method in turn, within one launch: what each rank does, and what it notes.

All ranks go through the same list, so nobody has to tell them what is next. A block begins behind a
barrier with a step that is not timed and fills the line; then each rank times its own steps, and
the block took as long as the slowest rank. There is no barrier inside.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist

from synthgrad.engines.pipeline import Transport, connect
from synthgrad.experiments.pipeline.late_messages import LateMessages
from synthgrad.experiments.pipeline.methods import BY_TORCH, Name, Setting
from synthgrad.experiments.pipeline.runner import Counts, Runner, Slowed
from synthgrad.experiments.pipeline.stage_times import LineMeter
from synthgrad.experiments.pipeline.workload import Batch

_NUM_KEPT = 8  # batches that blocks take in turn, so that no time goes into making them


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the timing.

    Args:
        arm: its name in the record.
        method: which.
        every: rounds from one block of it to the next.
        delay_s: added to each of its messages.
        slow_rank: which rank runs at half speed; None for no one.
    """

    arm: str
    method: Name
    every: int = 1
    delay_s: float = 0.0
    slow_rank: int | None = None


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """What is timed in one launch.

    Args:
        setting: how methods are made.
        entries: in the order of the first round.
        rounds: of blocks, in turn A B C, C B A, ...
        steps: in a block.
        warmup: steps of each method before the first round.
        timeline: steps of each method that are drawn at the end; 0 for none.
        repeats: of the measurement of single stages, between the rounds; 0 for none.
    """

    setting: Setting
    entries: tuple[Entry, ...]
    rounds: int
    steps: int
    warmup: int = 2
    timeline: int = 4
    repeats: int = 0


def time_blocks(blocks: Blocks) -> dict[str, Any]:
    """Run all blocks on this rank and return what it noted; called on every rank."""
    torch.set_num_threads(1)
    with connect() as transport:
        workload, repeats = blocks.setting.workload, blocks.repeats
        meter = LineMeter(workload, transport) if repeats else None
        runner = _Rank(blocks, transport)
        runner.warm_up()
        rows = list[dict[str, Any]]()
        for number, goes in enumerate(spread(repeats + 1, blocks.rounds)):
            if meter and goes:
                meter.go(goes)
            rows += runner.round(number)
        spans = {e.arm: runner.draw(e) for e in blocks.entries} if blocks.timeline else {}
        runner.finish()
        line = meter.found(repeats) if meter else None
        return {"blocks": rows, "spans": spans, "facts": runner.facts(), "line": line}


def spread(goes: int, rounds: int) -> Iterator[int]:
    """Yield how many goes come before each round."""
    for number in range(rounds):
        yield goes * (number + 1) // rounds - goes * number // rounds


class _Rank:
    def __init__(self, blocks: Blocks, transport: Transport) -> None:
        self.blocks = blocks
        self.rank = transport.rank
        self.late = dict[float, LateMessages]()
        self.runners = dict[str, Runner]()
        for number, entry in enumerate(blocks.entries):
            made = blocks.setting.make(entry.method, transport, lanes=number, delay_s=entry.delay_s)
            self.runners[entry.arm] = Slowed(made) if entry.slow_rank == self.rank else made
            if entry.delay_s and entry.method in BY_TORCH:
                self.late.setdefault(entry.delay_s, LateMessages(entry.delay_s))
        kept = list(islice(blocks.setting.workload.batches(), _NUM_KEPT))
        self.batches = {arm: _around(kept) for arm in self.runners}

    def warm_up(self) -> None:
        for entry in self.blocks.entries:
            self._run(entry, self.blocks.warmup)
            dist.barrier()

    def round(self, number: int) -> Iterator[dict[str, Any]]:
        entries = [e for e in self.blocks.entries if number % e.every == 0]
        for entry in entries if number % 2 == 0 else reversed(entries):
            dist.barrier()
            self._run(entry, 1)
            before = self.runners[entry.arm].counts()
            seconds = self._run(entry, self.blocks.steps)
            yield {
                "round": number,
                "arm": entry.arm,
                "seconds": seconds,
                **_since(before, self.runners[entry.arm].counts()),
            }

    def draw(self, entry: Entry) -> list[dict[str, Any]]:
        """Return the spans of some steps after a step that fills the line."""
        dist.barrier()
        self._run(entry, 1)
        start = time.perf_counter()
        self._run(entry, self.blocks.timeline)
        return [asdict(span) for span in self.runners[entry.arm].spans() if span.start_s >= start]

    def facts(self) -> dict[str, int]:
        """Return the most batches that were under way, where an engine counts them."""
        most = {arm: runner.most_in_flight() for arm, runner in self.runners.items()}
        return {arm: number for arm, number in most.items() if number is not None}

    def finish(self) -> None:
        for runner in self.runners.values():
            runner.flush()
        for late in self.late.values():
            late.close()
        dist.barrier()

    def _run(self, entry: Entry, steps: int) -> float:
        batches = list(islice(self.batches[entry.arm], steps))
        with self._delayed(entry):
            return self.runners[entry.arm].run(batches)

    def _delayed(self, entry: Entry) -> AbstractContextManager[None]:
        late = self.late.get(entry.delay_s) if entry.method in BY_TORCH else None
        return late.between_stages() if late else nullcontext()


def merge(ranks: Sequence[Mapping[str, Any]], blocks: Blocks) -> Iterator[dict[str, Any]]:
    """Yield a "block" event for each block, from what the ranks noted, and a "timeline" each."""
    workload = blocks.setting.workload
    for rows in zip(*(rank["blocks"] for rank in ranks), strict=True):
        seconds = max(row["seconds"] for row in rows)
        yield {
            "event": "block",
            "round": rows[0]["round"],
            "arm": rows[0]["arm"],
            "iterations": blocks.steps,
            "seconds": seconds,
            "examples": blocks.steps * workload.batch_size,
            "stage_updates": blocks.steps * len(ranks),
            "threads": 1,
            "idle_s": [row["idle_s"] if row["seconds"] else seconds for row in rows],
            "messages": [row["messages"] for row in rows],
            "bytes": [row["bytes"] for row in rows],
        }
    for entry in blocks.entries if blocks.timeline else ():
        spans = [rank["spans"][entry.arm] for rank in ranks]
        first = min((span["start_s"] for own in spans for span in own), default=0.0)
        yield {
            "event": "timeline",
            "arm": entry.arm,
            "ranks": [
                [
                    [
                        s["kind"],
                        s["stage"],
                        s["batch"],
                        _us(s["start_s"] - first),
                        _us(s["end_s"] - s["start_s"]),
                    ]
                    for s in own
                ]
                for own in spans
            ],
        }
    for arm in ranks[0]["facts"]:
        yield {
            "event": "in flight",
            "arm": arm,
            "most": [rank["facts"][arm] for rank in ranks],
            "allowed": blocks.setting.max_in_flight,
        }


def _us(seconds: float) -> int:
    return round(1e6 * seconds)


def _since(before: Counts, now: Counts) -> dict[str, Any]:
    return {
        "idle_s": now.idle_s - before.idle_s,
        "messages": now.messages - before.messages,
        "bytes": now.bytes - before.bytes,
    }


def _around(kept: Sequence[Batch]) -> Iterator[Batch]:
    while True:
        yield from kept
