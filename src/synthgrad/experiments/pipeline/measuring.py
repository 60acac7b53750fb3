"""The three timings that every pipeline experiment has, each as the task of a study."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from synthgrad.bench.running.tasks import Task
from synthgrad.engines.pipeline import launch
from synthgrad.experiments.pipeline.config import HEADLINE, LineConfig
from synthgrad.experiments.pipeline.methods import NUM_MICROBATCHES, ONE_F_ONE_B, Name
from synthgrad.experiments.pipeline.stage_times import measured, merge_line
from synthgrad.experiments.pipeline.timing import Blocks, Entry, merge, time_blocks

Events = Iterator[Mapping[str, Any]]
THROUGHPUT, DELAYED, SLOW = "throughput", "delayed", "slow-rank"
_LABELS = {
    THROUGHPUT: "throughput, blocks in turn",
    DELAYED: "with and without a delay of every message",
    SLOW: "one rank at half speed",
}
# What the simulator calls the methods that it knows.
_SIMULATED: dict[Name, str] = {
    "backprop": "backprop",
    "gpipe": "gpipe",
    "zero-bubble": "zero-bubble",
    "stashing": "stashing",
    "dgl": "local",
    "cdni": "dni",
    "cdni-free": "dni-free",
    **dict.fromkeys(ONE_F_ONE_B, "1f1b"),
}


def timing_tasks(config: LineConfig) -> list[Task]:
    """Return the tasks of the three timings."""
    measures: dict[str, Callable[[LineConfig], Events]] = {THROUGHPUT: throughput}
    if config.delayed_rounds:
        measures[DELAYED] = delayed
    if config.slow_rounds:
        measures[SLOW] = slow_rank
    return [
        Task(
            name=name,
            arm=name,
            label=_LABELS[name],
            seed=config.seeds[0],
            measure=partial(measure, config),
        )
        for name, measure in measures.items()
    ]


def throughput(config: LineConfig) -> Events:
    """Time all methods in turn, those of the headline in every round."""
    entries = [
        Entry(arm=name, method=name, every=1 if name in HEADLINE else config.every)
        for name in config.methods
    ]
    yield from _timed(config, entries, config.rounds, repeats=config.repeats)


def delayed(config: LineConfig) -> Events:
    """Time some methods with and without a delay, in turn."""
    delay_s = config.delay_ms / 1e3
    entries = [
        entry
        for name in config.delayed
        for entry in (
            Entry(arm=name, method=name),
            Entry(arm=f"{name}+delay", method=name, delay_s=delay_s),
        )
    ]
    yield from _timed(config, entries, config.delayed_rounds, repeats=config.repeats)


def slow_rank(config: LineConfig) -> Events:
    """Time cDNI with each rank in its turn at half speed."""
    entries = [
        Entry(arm="cdni", method="cdni"),
        *(
            Entry(arm=f"cdni/rank {rank} slow", method="cdni", slow_rank=rank)
            for rank in range(config.ranks)
        ),
    ]
    yield from _timed(config, entries, config.slow_rounds)


def _timed(
    config: LineConfig, entries: Sequence[Entry], rounds: int, *, repeats: int = 0
) -> Events:
    blocks = Blocks(
        setting=config.setting(config.workload(config.seeds[0])),
        entries=tuple(entries),
        rounds=rounds,
        steps=config.steps,
        repeats=repeats,
    )
    ranks = launch(time_blocks, blocks, num_ranks=config.ranks)
    events = list(merge(ranks, blocks))
    yield from events
    if repeats:
        workload = blocks.setting.workload
        source = f"{workload.title}, batch {workload.batch_size}, one thread a rank, all at work"
        yield merge_line([rank["line"] for rank in ranks], workload, source)
        timed = [event for event in events if event["event"] == "block"]
        yield from measured(timed, {e.arm: _described(config, e) for e in known(entries)})


def known(entries: Sequence[Entry]) -> list[Entry]:
    """Return those that the simulator knows."""
    return [entry for entry in entries if entry.method in _SIMULATED]


def _described(config: LineConfig, entry: Entry) -> dict[str, Any]:
    described: dict[str, Any] = {
        "method": _SIMULATED[entry.method],
        "added_latency_s": entry.delay_s,
        "num_microbatches": NUM_MICROBATCHES.get(entry.method, 1),
    }
    if entry.method not in NUM_MICROBATCHES and entry.method != "backprop":
        described["max_in_flight"] = config.max_in_flight
    return described
