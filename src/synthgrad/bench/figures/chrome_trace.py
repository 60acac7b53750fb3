"""What ranks did when, as a Chrome trace: the data of a time line, and a file for a viewer.

The JSON beside the picture is the trace itself; Perfetto and chrome://tracing open it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from synthgrad.bench.figures.data import Json

Span = Sequence[Any]
"""Kind, stage, batch, start and duration in microseconds."""


def trace(methods: Mapping[str, Sequence[Sequence[Span]]]) -> Json:
    """Return a Chrome trace: a process a method, a thread a rank.

    Args:
        methods: by the method's label, the spans of each rank.
    """
    events = list[Json]()
    for pid, (label, ranks) in enumerate(methods.items()):
        named = {"name": "process_name", "ph": "M", "pid": pid, "tid": 0, "args": {"name": label}}
        events.append(named)
        for tid, spans in enumerate(ranks):
            events += [
                {
                    "name": kind,
                    "cat": "rank",
                    "ph": "X",
                    "pid": pid,
                    "tid": tid,
                    "ts": start,
                    "dur": duration,
                    "args": {"stage": stage, "batch": batch},
                }
                for kind, stage, batch, start, duration in spans
            ]
    return {"displayTimeUnit": "ms", "traceEvents": events}
