"""What the pipeline experiments show: who is how fast, what a latency costs, and verdicts."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synthgrad.bench.figures.chrome_trace import trace
from synthgrad.bench.figures.panels import Dot, Dots, Line, Panel, dots_data, lines_data
from synthgrad.bench.findings import Findings, FindingsFunction, Picture
from synthgrad.bench.records.events import Block, Event, RunRecord
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.formats import fixed
from synthgrad.bench.scoring.scores import BootstrapRatio, bootstrap_ratio, paired_ratio
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.pipeline.measuring import DELAYED, SLOW, THROUGHPUT
from synthgrad.experiments.pipeline.methods import LABELS, ONE_F_ONE_B, Name

GOAL = "goal"
_MIN_PAIRS = 20
_KEPT = 0.9
_WITH_DELAY = "+delay"


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What was to be reached, as ratios of throughput; None where nothing was set.

    Args:
        over_backprop: over backprop in one process with one thread.
        over_1f1b: over the best of torch's 1F1B.
        over_ddp: over DDP at the same global batch.
        kept: share of the throughput that is left with a delay of every message.
    """

    over_backprop: float | None = None
    over_1f1b: float | None = None
    over_ddp: float | None = None
    kept: float = _KEPT


def finder(targets: Targets) -> FindingsFunction:
    """Return what makes the findings of an experiment with these targets."""
    return lambda records: find(records, targets)


def find(records: Sequence[RunRecord], targets: Targets) -> Findings:
    """Return tables, figures and verdicts of the records that finished; a pure function."""
    done = dict[str, list[RunRecord]]()
    for record in records:
        if record.status == "finished":
            done.setdefault(record.arm, []).append(record)
    single = {arm: of_arm[-1] for arm, of_arm in done.items() if arm != GOAL}
    claims, tables, pictures = list[Claim](), list[Table](), list[Picture]()
    if record := single.get(THROUGHPUT):
        claims += _throughput_claims(record, targets)
        tables.append(_throughput_table(record))
        pictures += [_ratios_picture(record), _timeline(record, "timeline", "")]
    if record := single.get(DELAYED):
        claims += _delayed_claims(record, targets)
        tables.append(_delayed_table(record))
        pictures.append(_timeline(record, "timeline-delayed", f", {_delay(record)} a message"))
    if record := single.get(SLOW):
        claims += _slow_claims(record)
        tables.append(_slow_table(record))
    if races := done.get(GOAL):
        claims += _goal_claims(races)
        tables.append(_goal_table(races))
        pictures.append(_goal_picture(races))
    return Findings(claims=tuple(claims), tables=tuple(tables), pictures=tuple(pictures))


def label(arm: str) -> str:
    """Return the name of a timed arm for people."""
    if arm.endswith(_WITH_DELAY):
        return f"{label(arm.removesuffix(_WITH_DELAY))}, delayed"
    method, _, rest = arm.partition("/")
    known: Mapping[str, str] = {**LABELS}
    return f"{known.get(method, method)}{f', {rest}' if rest else ''}"


def faster(record: RunRecord, arm: str, baseline: str) -> BootstrapRatio:
    """Return an arm's throughput over the baseline's, from the rounds that hold both."""
    return paired_ratio(record.blocks, baseline, arm)


def best_1f1b(record: RunRecord) -> str | None:
    """Return the arm of 1F1B that is the fastest by the median of its blocks."""
    paces: dict[str, float] = {name: _pace(record.blocks, name) for name in ONE_F_ONE_B}
    there = {name: pace for name, pace in paces.items() if math.isfinite(pace)}
    return min(there, key=lambda name: there[name], default=None)


def _pace(blocks: Sequence[Block], arm: str) -> float:
    own = [block.seconds / block.iterations for block in blocks if block.arm == arm]
    return statistics.median(own) if own else math.inf


def _arms(record: RunRecord) -> list[str]:
    return list(dict.fromkeys(block.arm for block in record.blocks))


def _num_pairs(record: RunRecord, *arms: str) -> int:
    rounds = [{block.round for block in record.blocks if block.arm == arm} for arm in arms]
    return len(set[int].intersection(*rounds)) if rounds else 0


def _ratio(found: BootstrapRatio, digits: int = 2) -> str:
    if math.isnan(found.ratio):
        return fixed(None, digits)
    return f"{found.ratio:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _delay(record: RunRecord) -> str:
    return f"{record.config['delay_ms']:g} ms"


def _events(record: RunRecord, arm: str) -> list[Event]:
    return [event for event in record.of_kind("block") if event["arm"] == arm]


def _idle(events: Sequence[Event]) -> str:
    total = sum(event["seconds"] for event in events)
    idle = [sum(of_rank) / total for of_rank in zip(*(e["idle_s"] for e in events), strict=True)]
    return ", ".join(f"{100 * share:.0f}" for share in idle)


def _a_batch(events: Sequence[Event], key: str) -> float:
    return sum(sum(event[key]) for event in events) / sum(event["iterations"] for event in events)


def _throughput_table(record: RunRecord) -> Table:
    best = best_1f1b(record)
    rows = list[tuple[str, ...]]()
    for arm in _arms(record):
        events = _events(record, arm)
        rows.append(
            (
                label(arm),
                str(len(events)),
                _ratio(faster(record, arm, "backprop")),
                _ratio(faster(record, arm, best)) if best else fixed(None, 2),
                _idle(events),
                fixed(_a_batch(events, "bytes") / 1e6, 2),
                fixed(_a_batch(events, "messages"), 1),
            )
        )
    reference = label(best) if best else "1F1B"
    return Table(
        title="Throughput: blocks of batches in turn, in one launch",
        columns=(
            "Method",
            "Blocks",
            "Over backprop, one thread",
            f"Over the best 1F1B ({reference})",
            "Idle % of each rank",
            "MB sent a batch",
            "Messages a batch",
        ),
        rows=tuple(rows),
        notes=(
            "Medians of ratios within a round, with 95 % bootstrap intervals. A block begins with "
            "a batch that fills the line and is not timed, and takes as long as the slowest rank. "
            "The engine counts its waiting; for other methods what is no computation is idle, and "
            "DDP's all-reduce is part of its backward. What is sent is summed over ranks; of DDP "
            "it is what a ring all-reduce sends. Delayed gradients (DDG) and asynchronous "
            "pipelining with stashed weights are one line here: each gradient is true, and "
            "1 batch late for each stage above, or as many as the engine has in flight less one.",
            *(f"{event['source']}." for event in record.of_kind("measurements")),
        ),
    )


def _throughput_claims(record: RunRecord, targets: Targets) -> list[Claim]:
    compared: list[tuple[str, str | None, float | None]] = [
        ("backprop in one process, one thread", "backprop", targets.over_backprop),
        ("the best of torch's 1F1B", best_1f1b(record), targets.over_1f1b),
        ("DDP at the same global batch", "ddp", targets.over_ddp),
    ]
    there = _arms(record)
    return [
        _claim(record, f"throughput over {what}{how}", arm, baseline, target)
        for arm, how in (("cdni", ""), ("cdni-low-rank", ", low-rank synthesizer"))
        for what, baseline, target in compared
        if {arm, baseline} <= {*there} and target is not None
    ]


def _claim(record: RunRecord, claim: str, arm: str, baseline: str | None, target: float) -> Claim:
    assert baseline is not None
    found, pairs = faster(record, arm, baseline), _num_pairs(record, arm, baseline)
    verdict, reason = _verdict(found, target, pairs)
    return Claim(
        claim=claim,
        paper=f"no paper: our target is {target:g} or more",
        measured=f"{label(arm)} over {label(baseline)}: {_ratio(found)}; n = {pairs} pairs of "
        "blocks",
        verdict=verdict,
        reason=reason,
    )


def _verdict(found: BootstrapRatio, target: float, pairs: int) -> tuple[Verdict, str]:
    if pairs < _MIN_PAIRS:
        return "not comparable", f"Fewer than {_MIN_PAIRS} pairs of blocks."
    if found.low >= target:
        return "reproduced", "Met: all of the interval is at the target or above."
    if found.ratio >= target:
        return "reproduced", "Met by the median; the interval reaches below the target."
    if found.high >= target:
        return "not reproduced", "Not met by the median; the interval reaches the target."
    return "not reproduced", "Not met: all of the interval is below the target."


def _delayed_table(record: RunRecord) -> Table:
    plain = [arm for arm in _arms(record) if not arm.endswith(_WITH_DELAY)]
    rows = [
        (
            label(arm),
            str(_num_pairs(record, arm, arm + _WITH_DELAY)),
            _ratio(faster(record, arm + _WITH_DELAY, arm)),
            _ratio(faster(record, "cdni+delay", arm + _WITH_DELAY)),
            _idle(_events(record, arm + _WITH_DELAY)),
        )
        for arm in plain
    ]
    return Table(
        title=f"With {_delay(record)} added to every message, in both directions",
        columns=(
            "Method",
            "Pairs",
            "Throughput over that without delay",
            "cDNI's over it, both delayed",
            "Idle % of each rank, delayed",
        ),
        rows=tuple(rows),
        notes=(
            "The engine and late gradients are delayed by the engine's own transport. Torch's "
            "schedules are delayed by a patch of their point-to-point sends: a message leaves "
            "that much later, and its sender goes on at once.",
        ),
    )


def _delayed_claims(record: RunRecord, targets: Targets) -> list[Claim]:
    arms = _arms(record)
    if "cdni" not in arms:
        return []
    claim = _claim(
        record,
        f"share of the throughput that is kept with {_delay(record)} a message",
        "cdni+delay",
        "cdni",
        targets.kept,
    )
    plain = [arm for arm in arms if arm in ONE_F_ONE_B]
    beside = [f"{label(a)} {_ratio(faster(record, a + _WITH_DELAY, a))}" for a in plain]
    measured = f"{claim.measured}; beside it {', '.join(beside)}" if beside else claim.measured
    return [
        Claim(
            claim=claim.claim,
            paper=claim.paper,
            measured=measured,
            verdict=claim.verdict,
            reason=claim.reason,
        )
    ]


def _slow_table(record: RunRecord) -> Table:
    rows = [
        (
            label(arm),
            str(len(_events(record, arm))),
            _ratio(faster(record, arm, "cdni")),
            _idle(_events(record, arm)),
            _in_flight(record, arm),
        )
        for arm in _arms(record)
    ]
    return Table(
        title="One rank at half speed",
        columns=(
            "cDNI, with",
            "Blocks",
            "Throughput over all ranks at full speed",
            "Idle % of each rank",
            "Most batches in flight, a rank",
        ),
        rows=tuple(rows),
        notes=(
            "The slow rank sleeps after each step for as long as its processor was busy in it.",
        ),
    )


def _in_flight(record: RunRecord, arm: str) -> str:
    for event in record.of_kind("in flight"):
        if event["arm"] == arm:
            return f"{', '.join(map(str, event['most']))} of {event['allowed']}"
    return fixed(None, 0)


def _slow_claims(record: RunRecord) -> list[Claim]:
    """Judge whether a line is as fast as its slowest rank alone would be, and no slower."""
    slow = [arm for arm in _arms(record) if arm != "cdni"]
    if not slow:
        return []
    found = {arm: faster(record, arm, "cdni") for arm in slow}
    pairs = min(_num_pairs(record, arm, "cdni") for arm in slow)
    in_flight = record.of_kind("in flight")
    bounded = all(max(event["most"]) <= event["allowed"] for event in in_flight)
    # Half of the balanced line's rate, or a little more where the slow rank had time to spare.
    lowest = min(ratio.ratio for ratio in found.values())
    verdict: Verdict = "not comparable"
    reason = f"Fewer than {_MIN_PAIRS} pairs of blocks."
    if pairs >= _MIN_PAIRS:
        met = lowest >= _HALF and bounded
        verdict = "reproduced" if met else "not reproduced"
        reason = (
            f"{'No' if lowest >= _HALF else 'A'} ratio is below {_HALF:g}, and memory is "
            f"{'' if bounded else 'not '}bounded by max_in_flight."
        )
    texts = [f"{label(arm)} {_ratio(ratio)}" for arm, ratio in found.items()]
    return [
        Claim(
            claim="a rank at half speed: throughput falls to its rate and no further",
            paper="no paper: our target, half of the throughput less 10 %",
            measured=f"over all at full speed: {', '.join(texts)}; n = {pairs} pairs of blocks",
            verdict=verdict,
            reason=reason,
        )
    ]


_HALF = 0.45


def _reached(race: RunRecord, method: str, goal: float, key: str) -> float:
    """Return the clock or the batches at the first look at the goal; infinity for none."""
    looks = [look for look in race.of_kind("look") if look["method"] == method]
    return next((look[key] for look in looks if look["val_accuracy"] >= goal), math.inf)


def _methods(races: Sequence[RunRecord]) -> list[Name]:
    found = {look["method"] for race in races for look in race.of_kind("look")}
    return [name for name in LABELS if name in found]


def _against_backprop(races: Sequence[RunRecord], method: str, goal: float) -> BootstrapRatio:
    own, other = (
        [_reached(race, m, goal, "seconds") for race in races] for m in (method, "backprop")
    )
    return bootstrap_ratio(own, other)


def _goal_table(races: Sequence[RunRecord]) -> Table:
    rows = list[tuple[str, ...]]()
    for goal in races[0].config["goals"]:
        for method in _methods(races):
            seconds = [_reached(race, method, goal, "seconds") for race in races]
            batches = [_reached(race, method, goal, "iteration") for race in races]
            rows.append(
                (
                    LABELS[method],
                    f"{goal:g}",
                    f"{sum(map(math.isfinite, seconds))} of {len(seconds)}",
                    _ratio(_against_backprop(races, method, goal)),
                    fixed(_finite(statistics.median(seconds)), 1),
                    fixed(_finite(statistics.median(batches)), 0),
                )
            )
    cuts = sorted({tuple(event["at"]) for race in races for event in race.of_kind("cut")})
    return Table(
        title="Time to a validation accuracy on MNIST",
        columns=(
            "Method",
            "Goal %",
            "Reached",
            "Seconds over those of backprop",
            "Seconds",
            "Batches",
        ),
        rows=tuple(rows),
        notes=(
            f"Medians over n = {len(races)} seeds; a miss counts as infinity. Methods take turns, "
            f"with looks every {races[0].config['goal_every']} batches. Cut before layer "
            f"{' or '.join(str(list(cut)) for cut in cuts)}, counted from 0; "
            f"{races[0].config['goal_synthesizer']} synthesizer. Adam at "
            f"{races[0].config['goal_rate']:g}, backprop at "
            f"{races[0].config['goal_backprop_rate']:g}: the soonest of a grid.",
        ),
        num_text_columns=2,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _goal_claims(races: Sequence[RunRecord]) -> list[Claim]:
    claims = list[Claim]()
    for goal in races[0].config["goals"]:
        if not {"backprop", "cdni"} <= {*_methods(races)}:
            continue
        found = _against_backprop(races, "cdni", goal)
        pairs = [
            tuple(_reached(race, m, goal, "seconds") for m in ("cdni", "backprop"))
            for race in races
        ]
        wins = sum(own < other for own, other in pairs)
        verdict: Verdict = "not comparable"
        reason = f"{len(races)} seeds, fewer than 5."
        if len(races) >= 5:
            verdict = "reproduced" if found.ratio < 1 else "not reproduced"
            reason = (
                f"{'Met' if found.ratio < 1 else 'Not met'} by the medians; cDNI is first in "
                f"{wins} of {len(pairs)} seeds."
            )
        claims.append(
            Claim(
                claim=f"time to {goal:g} % below that of one-thread backprop",
                paper="no paper: our target, a ratio below 1",
                measured=f"seconds over those of backprop: {_ratio(found)}; n = {len(races)} seeds",
                verdict=verdict,
                reason=reason,
            )
        )
    return claims


def _goal_picture(races: Sequence[RunRecord]) -> Picture:
    lines = [
        Line(
            label=LABELS[method],
            x=[look["seconds"] for look in looks],
            y=[look["val_accuracy"] for look in looks],
        )
        for race in races
        for method in _methods(races)
        if (looks := [e for e in race.of_kind("look") if e["method"] == method])
    ]
    panel = Panel(
        title="",
        x_label="seconds of training",
        y_label="validation accuracy %",
        lines=lines,
        marks=tuple(races[0].config["goals"]),
    )
    return Picture(
        name="goal",
        title="Validation accuracy over the clock, a line a seed",
        kind="lines",
        data=lines_data([panel]),
        note="The clock stands still during evaluations.",
    )


def _ratios_picture(record: RunRecord) -> Picture:
    rows = [
        Dot(
            label=label(arm),
            value=_finite(found.ratio) if not math.isnan(found.ratio) else None,
            low=_finite(found.low),
            high=_finite(found.high),
        )
        for arm in _arms(record)
        if (found := faster(record, arm, "backprop"))
    ]
    panel = Dots(title="", x_label="throughput over one-thread backprop", rows=rows, marks=(1.0,))
    return Picture(
        name="throughput",
        title="Throughput over backprop in one process with one thread",
        kind="dots",
        data=dots_data([panel]),
        note="Medians over pairs of blocks, with 95 % bootstrap intervals.",
    )


def _timeline(record: RunRecord, name: str, more: str) -> Picture:
    methods = {label(event["arm"]): event["ranks"] for event in record.of_kind("timeline")}
    return Picture(
        name=name,
        title=f"What each rank does, some batches of each method{more}",
        kind="timeline",
        data=trace(methods),
        note=(
            "White is waiting. The numbers of the figure are a Chrome trace, for Perfetto or "
            "chrome://tracing. A backward includes the optimizer's step."
        ),
    )
