"""What the wavefront engine was asked to reach, set before it was measured, and whether it does."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from synthgrad.bench.scoring.formats import MISSING
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.engines.limits import Peaks
from synthgrad.experiments.engines.measured import (
    GOAL,
    Learned,
    TimedCase,
    gaps,
    may_be_headline,
)

Rival = Literal["best", "eager", "graph"]
RIVALS: dict[Rival, str] = {
    "best": "the best backprop",
    "eager": "eager backprop",
    "graph": "backprop as a CUDA graph, compiled or not",
}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One thing to be reached: so many times the throughput of a rival.

    Args:
        case: network and batch.
        cut: how it is decoupled.
        at_least: the ratio; None for 0.9 of what the operations allow, backprop's over its own.
        rival: which form of backprop.
    """

    case: str
    cut: str
    at_least: float | None
    rival: Rival = "best"


BARS: dict[Literal["cpu", "cuda"], tuple[Bar, ...]] = {
    "cpu": (
        Bar(case="32x32-b16", cut="cdni-4", at_least=2.5),
        Bar(case="32x64-b32", cut="cdni-4", at_least=1.8),
        Bar(case="32x32-b16", cut="local-1", at_least=3.5),
        Bar(case="32x64-b32", cut="local-1", at_least=2.7),
        Bar(case="32x64-b128", cut="local-1", at_least=1.5),
        Bar(case="16x256-b256", cut="local-1", at_least=1.0),
        Bar(case="16x256-b256", cut="cdni-4", at_least=None),
        Bar(case="16x256-b256", cut="local-4", at_least=None),
    ),
    "cuda": (
        Bar(case="fcn-4x256-b256", cut="cdni-1", at_least=3.0, rival="eager"),
        Bar(case="fcn-4x256-b256", cut="cdni-1", at_least=1.5, rival="graph"),
        Bar(case="32x256-b256", cut="cdni-4", at_least=6.0, rival="eager"),
        Bar(case="32x256-b256", cut="cdni-4", at_least=3.0, rival="graph"),
        Bar(case="32x256-b256", cut="local-1", at_least=10.0, rival="eager"),
    ),
}
_OF_BOUND = 0.9


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A bar with what became of it."""

    bar: Bar
    at_least: float | None
    measured: float | None
    interval: tuple[float, float] | None
    verdict: Literal["met", "not met", "not measured"]
    why: str


def judge(
    bar: Bar,
    cases: Mapping[str, TimedCase],
    trained: Mapping[tuple[str, str | None], Learned],
    peaks: Peaks | None,
) -> Judged:
    """Judge one bar; a pure function.

    It is met where the median ratio reaches it; whether the ratio is also a headline, its accuracy
    decides, and the reason says so.
    """
    case = cases.get(bar.case)
    own = case and case.best("wavefront", bar.cut)
    rivals = [a for a in case.arms.values() if a.facts["engine"] == "backprop"] if case else []
    if bar.rival != "best":
        rivals = [a for a in rivals if bar.rival in a.facts["form"]]
    if case is None or own is None or not rivals:
        return Judged(
            bar=bar,
            at_least=bar.at_least,
            measured=None,
            interval=None,
            verdict="not measured",
            why="the record does not hold it",
        )
    rival = min(rivals, key=lambda arm: arm.median)
    bound = rival.facts["flops"] / own.facts["flops"]
    at_least = _OF_BOUND * bound if bar.at_least is None else bar.at_least
    found = case.times(own, rival)
    met = found.ratio >= at_least
    headline, accuracy = may_be_headline(
        gaps(trained.get((bar.case, bar.cut)), trained.get((bar.case, None)))
    )
    why = [f"{accuracy}: {'a headline' if headline else 'no headline'}"]
    if not met and peaks:
        name, seconds = own.limits(peaks).binding
        why.insert(0, f"{own.median / seconds:.1f} times its own limit ({name})")
        why.insert(1, f"operations alone allow {bound:.2f}")
    return Judged(
        bar=bar,
        at_least=at_least,
        measured=found.ratio,
        interval=(found.low, found.high),
        verdict="met" if met else "not met",
        why="; ".join(why),
    )


def bars_table(
    device: str,
    cases: Mapping[str, TimedCase],
    trained: Mapping[tuple[str, str | None], Learned],
    peaks: Peaks | None,
) -> Table:
    """Return every bar of a kind of device with its verdict, and on CUDA the time to the goal."""
    kind = "cuda" if device.startswith("cuda") else "cpu"
    rows = [
        (
            f"{judged.bar.case}, {judged.bar.cut}",
            RIVALS[judged.bar.rival],
            MISSING if judged.at_least is None else f"{judged.at_least:.2f}",
            MISSING
            if judged.measured is None
            else f"{judged.measured:.2f}{_ends(judged.interval)}",
            judged.verdict,
            judged.why,
        )
        for judged in (judge(bar, cases, trained, peaks) for bar in BARS[kind])
    ]
    rows += time_to_goal_rows(cases, trained) if kind == "cuda" else []
    return Table(
        title="What the wavefront was asked to reach, set before it was measured",
        columns=("Network and stages", "Against", "At least", "Times [95 %]", "Verdict", "Why"),
        rows=tuple(rows) if any(row[4] != "not measured" for row in rows) else (),
        notes=(
            "Times the updates a second, each side in its fastest form at its best thread count; "
            "median over interleaved rounds. Where no number was set, it is nine tenths of what "
            "the operations allow: backprop's over the method's own.",
        ),
        num_text_columns=6,
    )


def time_to_goal_rows(
    cases: Mapping[str, TimedCase], trained: Mapping[tuple[str, str | None], Learned]
) -> list[tuple[str, ...]]:
    """Return, a trained cut, whether it reaches the goal sooner than backprop as a CUDA graph."""
    rows = list[tuple[str, ...]]()
    for (name, cut), own in trained.items():
        plain, case = trained.get((name, None)), cases.get(name)
        if cut is None or plain is None or case is None:
            continue
        fast = case.best("wavefront", cut)
        graphs = [case.best("backprop", form=form) for form in ("graph", "compiled-graph")]
        rival = min((g for g in graphs if g), key=lambda arm: arm.median, default=None)
        if fast is None or rival is None:
            continue
        ours = statistics.median(own.to_goal.values()) * fast.median
        theirs = statistics.median(plain.to_goal.values()) * rival.median
        rows.append(
            (
                f"{name}, {cut}: time to {GOAL:g} %",
                RIVALS["graph"],
                "below 1",
                f"{ours / theirs:.2f}" if theirs and max(ours, theirs) < float("inf") else MISSING,
                "met" if ours < theirs else "not met",
                f"median of {len(own.to_goal)} seeds; updates to the goal times the seconds of one",
            )
        )
    return rows


def _ends(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
