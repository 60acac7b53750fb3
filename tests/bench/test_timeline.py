"""A time line is a Chrome trace that is drawn: what a viewer reads is what the picture shows."""

import json

from synthgrad.bench.figures.chrome_trace import trace
from synthgrad.bench.figures.timeline import timeline_svg

RANKS = [
    [("forward", 0, 7, 0, 1_500), ("wait target", 0, 6, 1_500, 500), ("fit", 0, 6, 2_000, 250)],
    [("backward", 1, 7, 1_600, 900)],
]


def test_a_trace_has_a_process_a_method_and_a_thread_a_rank():
    made = trace({"a": RANKS, "b <&": [[], RANKS[1]]})
    assert json.loads(json.dumps(made)) == made
    names = {e["pid"]: e["args"]["name"] for e in made["traceEvents"] if e["ph"] == "M"}
    assert names == {0: "a", 1: "b <&"}
    spans = [e for e in made["traceEvents"] if e["ph"] == "X"]
    assert [(e["pid"], e["tid"], e["name"]) for e in spans] == [
        (0, 0, "forward"),
        (0, 0, "wait target"),
        (0, 0, "fit"),
        (0, 1, "backward"),
        (1, 1, "backward"),
    ]
    assert spans[2] | {"cat": ""} == {
        "name": "fit",
        "cat": "",
        "ph": "X",
        "pid": 0,
        "tid": 0,
        "ts": 2_000,
        "dur": 250,
        "args": {"stage": 0, "batch": 6},
    }


def test_a_trace_is_drawn_the_same_every_time_and_waiting_is_white():
    made = trace({"a": RANKS, "b <&": RANKS})
    drawn = timeline_svg(made)
    assert drawn == timeline_svg(made)
    assert "b &lt;&amp;" in drawn
    assert "#226fb3" in drawn
    waits_alone = timeline_svg(trace({"a": [[("wait target", 0, 0, 0, 9_000)], []]}))
    forward = timeline_svg(trace({"a": [[("forward", 0, 0, 0, 9_000)], []]}))
    assert waits_alone.count("#226fb3") < forward.count("#226fb3"), "only the legend has it"


def test_no_method_is_an_empty_picture():
    assert timeline_svg(trace({})).startswith("<?xml")
