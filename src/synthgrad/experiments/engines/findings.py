"""What `engines` found: what pays, where, and how far each engine is from what is possible."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from synthgrad.bench.figures.data import Json
from synthgrad.bench.figures.panels import Line, Panel, lines_data
from synthgrad.bench.findings import Findings, Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.formats import MISSING, significant
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.engines.bars import bars_table
from synthgrad.experiments.engines.limits import Peaks
from synthgrad.experiments.engines.measured import (
    GOAL,
    Learned,
    TimedCase,
    gaps,
    learned,
    may_be_headline,
    peaks_of,
    timed_cases,
)

Trained = Mapping[tuple[str, str | None], Learned]
Cases = Mapping[str, TimedCase]
_MEBIBYTE = 2**20
_PAPERS_CASE, _PAPERS_CUT, _PAPERS_RATIO = "fcn-4x256-b256", "cdni-1", 3.0


def find(records: Sequence[RunRecord]) -> Findings:
    """Return verdicts, tables and maps; a pure function."""
    cases, trained, peaks = timed_cases(records), learned(records), peaks_of(records)
    device = str(records[0].config.get("device", "cpu"))
    return Findings(
        claims=tuple(_papers_claim(cases, trained, device)),
        tables=(
            ratios_table(cases, trained),
            bars_table(device, cases, trained, peaks),
            training_table(cases, trained),
            arms_table(cases, peaks),
            limits_table(cases, peaks),
            _peaks_table(peaks),
            _absent_table(records),
        ),
        pictures=(*maps(cases), *_over_depth(cases)),
    )


def ratios_table(cases: Cases, trained: Trained) -> Table:
    """Return how each cut compares with the best of backprop, and whether that is a headline."""
    rows = list[tuple[str, ...]]()
    for case in cases.values():
        rival = case.best("backprop")
        for cut in case.cuts:
            own = case.best("wavefront", cut)
            if own is None or rival is None:
                continue
            ratio = case.times(own, rival)
            points = gaps(trained.get((case.name, cut)), trained.get((case.name, None)))
            headline, why = may_be_headline(points)
            rows.append(
                (
                    case.name,
                    own.label,
                    f"{ratio.ratio:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
                    f"{rival.label}, {_threads(rival.facts['threads'])}",
                    f"{rival.facts['flops'] / own.facts['flops']:.2f}",
                    _points(points),
                    f"{'headline' if headline else 'no headline'}: {why}",
                )
            )
    return Table(
        title="The wavefront against the best of backprop",
        columns=(
            "Network",
            "Wavefront",
            "Times the updates a second [95 %]",
            "Of",
            "Operations alone allow",
            "Test accuracy over backprop's, points",
            "Verdict",
        ),
        rows=tuple(rows),
        notes=(
            "Median over interleaved rounds; each side in its fastest form at its best thread "
            "count. 32x64-b128: 32 layers of 64 units, batch 128; even residual layers, or with "
            "fcn- the papers' network. Accuracy after the same number of updates, median over "
            "seeds [least, most].",
        ),
        num_text_columns=7,
    )


def training_table(cases: Cases, trained: Trained) -> Table:
    """Return what each method learned, and its time to the goal in its fastest form."""
    rows = list[tuple[str, ...]]()
    for (name, cut), own in trained.items():
        case = cases.get(name)
        arm = case and case.best("wavefront" if cut else "backprop", cut)
        rival = case and case.best("backprop")
        plain = trained.get((name, None))
        to_goal = statistics.median(own.to_goal.values())
        seconds = to_goal * arm.median if arm else math.nan
        over = math.nan
        if plain and rival and (best := statistics.median(plain.to_goal.values()) * rival.median):
            over = seconds / best
        rows.append(
            (
                name,
                f"wavefront, {cut}" if cut else "backprop",
                str(len(own.accuracy)),
                f"{own.updates:,}",
                f"{statistics.median(own.accuracy.values()):.2f}",
                f"{statistics.median(own.test.values()):.2f}",
                _points(gaps(own, plain)) if cut else MISSING,
                f"{to_goal:,.0f}" if math.isfinite(to_goal) else "missed",
                f"{over:.2f}" if math.isfinite(over) else MISSING,
            )
        )
    return Table(
        title="What each method learned in the same number of updates",
        columns=(
            "Network",
            "Method",
            "n",
            "Updates",
            "Validation %",
            "Test %",
            "Test over backprop's, points",
            f"Updates to {GOAL:g} %",
            f"Time to {GOAL:g} %, over the best backprop's",
        ),
        rows=tuple(rows),
        notes=(
            "Medians over n seeds. The time is the updates to the goal times the interleaved "
            "seconds of one, in the fastest form; compiling is not counted.",
        ),
        num_text_columns=2,
    )


def arms_table(cases: Cases, peaks: Peaks | None) -> Table:
    """Return every arm: its time over the best backprop's, its limit, its memory."""
    rows = list[tuple[str, ...]]()
    for case in cases.values():
        rival = case.best("backprop")
        for arm in case.arms.values():
            ratio = case.times(arm, rival) if rival else None
            limit, seconds = arm.limits(peaks).binding if peaks else (MISSING, math.nan)
            facts = arm.facts
            rows.append(
                (
                    case.name,
                    arm.label,
                    str(facts["execution"]),
                    str(facts["threads"]),
                    f"{1e3 * arm.median:.3g}",
                    f"{ratio.ratio:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio else MISSING,
                    limit,
                    significant(arm.median / seconds) if seconds > 0 else MISSING,
                    _mebibytes(facts["trained_bytes"]),
                    _mebibytes(facts["saved_bytes"]),
                    _mebibytes(facts["carry_bytes"]),
                    _mebibytes(facts.get("step_bytes")),
                )
            )
    return Table(
        title="Every arm, and its distance to what limits it",
        columns=(
            "Network",
            "Arm",
            "Runs as",
            "Threads",
            "ms/update",
            "Times the best backprop [95 %]",
            "Limit",
            "Times its limit",
            "Trained, MiB",
            "Activations, MiB",
            "Carried, MiB",
            "Allocated by a step, MiB",
        ),
        rows=tuple(rows),
        notes=(
            "Limit: the longest of the four of the next table, and the measured time over it. "
            "Activations: what a backward pass over all stages needs, counted on backprop. "
            "Carried: what batches under way keep between two updates (the reference engine: "
            "nothing). Allocated: at the peak of a step, on CUDA alone.",
        ),
        num_text_columns=3,
    )


def limits_table(cases: Cases, peaks: Peaks | None) -> Table:
    """Return the four limits of every arm."""
    rows = list[tuple[str, ...]]()
    for case in cases.values() if peaks else ():
        for arm in case.arms.values():
            assert peaks is not None
            least = arm.limits(peaks)
            rows.append(
                (
                    case.name,
                    arm.label,
                    f"{arm.facts['flops']:,}",
                    f"{arm.facts['moved_bytes']:,}",
                    f"{arm.facts['launches']:,}",
                    str(arm.facts["path"]),
                    *(
                        significant(1e6 * seconds)
                        for seconds in (
                            least.arithmetic,
                            least.memory,
                            least.launches,
                            least.critical_path,
                        )
                    ),
                    significant(1e6 * arm.median),
                )
            )
    return Table(
        title="What an update cannot do without, and the least microseconds that takes",
        columns=(
            "Network",
            "Arm",
            "FLOPs",
            "Bytes",
            "Launches",
            "Products in a row",
            "Arithmetic",
            "Memory",
            "Launching",
            "Critical path",
            "Measured",
        ),
        rows=tuple(rows),
        notes=(
            "FLOPs of the method's matrix products (torch's counter). Bytes: parameters, "
            "gradients, moments and saved activations, each read and written once, at the rate of "
            "copying a tensor that stays in the same cache. Launches: operations of the eager "
            "code; of compiled code its matrix products.",
        ),
        num_text_columns=2,
    )


_AXES = {
    "layers": "layers",
    "width": "units of a layer",
    "batch_size": "batch",
    "length": "layers of a stage",
}
# By name: what lies along the map, and what all its places have in common.
_MAPS = {
    "width-batch": ("width", "batch_size", "{cut}, {layers} layers"),
    "depth-stage": ("layers", "length", "{signal}, {width} units, batch {batch_size}"),
    "depth-width": ("layers", "width", "{cut}, batch {batch_size}"),
}


class Cell(NamedTuple):
    """A measured ratio at a place of a map."""

    x: int
    y: int
    ratio: float


def maps(cases: Cases) -> list[Picture]:
    """Return the break-even maps: the ratio to the best backprop, over two sizes each."""
    points = list(_points_of_maps(cases))
    pictures = list[Picture]()
    for name, (x, y, title) in _MAPS.items():
        groups: dict[str, list[Cell]] = {}
        for point in points:
            cell = Cell(int(point[x]), int(point[y]), float(point["ratio"]))
            groups.setdefault(title.format(**point), []).append(cell)
        # Two places are no map: a table says as much.
        grids = [_grid(title, cells) for title, cells in groups.items() if len(cells) > 2]
        panels = [grid for grid in grids if min(len(grid["x"]), len(grid["y"])) > 1]
        if panels:
            pictures.append(
                Picture(
                    name=f"break-even-{name}",
                    title=f"Where the wavefront pays, over {_AXES[x]} and {_AXES[y]}",
                    kind="heat-maps",
                    data={"x_label": _AXES[x], "y_label": _AXES[y], "panels": panels},
                    note=(
                        "Updates a second over those of the best backprop: above 1 the wavefront "
                        "is ahead. Places without a number were not measured. Throughput alone: "
                        "the table says where the accuracy holds."
                    ),
                )
            )
    return pictures


def _points_of_maps(cases: Cases) -> Sequence[Mapping[str, str | int | float]]:
    found = list[Mapping[str, str | int | float]]()
    for case in cases.values():
        config, rival = case.record.config, case.best("backprop")
        for cut in case.cuts:
            own = case.best("wavefront", cut)
            if own is None or rival is None or config["network"] != "even":
                continue
            signal, _, length = cut.rpartition("-")
            found.append(
                {
                    **{key: config[key] for key in ("layers", "width", "batch_size")},
                    "cut": cut,
                    "signal": signal,
                    "length": int(length),
                    "ratio": case.times(own, rival).ratio,
                }
            )
    return found


def _grid(title: str, cells: Sequence[Cell]) -> Json:
    xs, ys = sorted({cell.x for cell in cells}), sorted({cell.y for cell in cells})
    known = {(cell.x, cell.y): round(cell.ratio, 3) for cell in cells}
    values = [[known.get((x, y)) for x in xs] for y in ys]
    return {"title": title, "x": xs, "y": ys, "values": values}


def _over_depth(cases: Cases) -> list[Picture]:
    """Return throughput against depth, of networks that differ in nothing else."""
    groups: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for case in cases.values():
        config = case.record.config
        if config["network"] != "even":
            continue
        lines = groups.setdefault(f"{config['width']} units, batch {config['batch_size']}", {})
        for label, arm in [
            ("the best backprop", case.best("backprop")),
            *((f"wavefront, {cut}", case.best("wavefront", cut)) for cut in case.cuts),
        ]:
            if arm:
                lines.setdefault(label, []).append((int(config["layers"]), arm.median))
    panels = [
        Panel(
            title=title,
            x_label="layers",
            y_label="updates a second",
            lines=[
                Line(
                    label=label,
                    x=[layers for layers, _ in sorted(points)],
                    y=[1 / seconds for _, seconds in sorted(points)],
                )
                for label, points in lines.items()
            ],
            log_x=True,
            log_y=True,
        )
        for title, lines in groups.items()
        if max(len(points) for points in lines.values()) > 1
    ]
    if not panels:
        return []
    return [
        Picture(
            name="throughput-over-depth",
            title="Throughput against the number of layers",
            kind="lines",
            data=lines_data(panels),
            note="Every arm in its fastest form. A flat line: more stages cost nothing.",
        )
    ]


def _papers_claim(cases: Cases, trained: Trained, device: str) -> list[Claim]:
    """Judge the benchmark paper's claim on one GPU, where its network was timed."""
    case = cases.get(_PAPERS_CASE)
    own = case and case.best("wavefront", _PAPERS_CUT)
    rival = case and case.best("backprop", form="eager")
    if case is None or own is None or rival is None:
        return []
    ratio = case.times(own, rival)
    headline, why = may_be_headline(
        gaps(trained.get((_PAPERS_CASE, _PAPERS_CUT)), trained.get((_PAPERS_CASE, None)))
    )
    verdict: Verdict = "not comparable"
    if device.startswith("cuda") and headline:
        verdict = "reproduced" if ratio.ratio >= _PAPERS_RATIO else "not reproduced"
    return [
        Claim(
            claim="training on one GPU",
            paper="synthetic gradients train about three times as fast (how is not told)",
            measured=(
                f"the wavefront makes {ratio.ratio:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] times "
                f"the updates of eager backprop; {len(own.seconds)} rounds"
            ),
            verdict=verdict,
            reason=f"On {device}; {why}. By all stages at once, which the paper does not do.",
        )
    ]


def _peaks_table(peaks: Peaks | None) -> Table:
    rows = list[tuple[str, str]]()
    if peaks:
        rows = [
            ("matrix products, GFLOP/s", significant(peaks.flops / 1e9)),
            *(
                (f"copying {_mebibytes(size)} MiB, GB/s", significant(rate / 1e9))
                for size, rate in peaks.copies.items()
            ),
            ("launches, a millisecond", significant(peaks.launches / 1e3)),
            *(
                [("launches in a CUDA graph, a millisecond", f"{peaks.graph_launches / 1e3:,.0f}")]
                if peaks.graph_launches
                else []
            ),
            ("a small product after another, microseconds", f"{1e6 * peaks.product_seconds:.3g}"),
        ]
    return Table(
        title="What this machine was measured to do at its best",
        columns=("Peak", "Measured"),
        rows=tuple(rows),
    )


def _absent_table(records: Sequence[RunRecord]) -> Table:
    reasons: dict[str, dict[str, None]] = {}
    for record in records:
        for event in record.of_kind("absent"):
            reasons.setdefault(event["reason"], {})[event["label"]] = None
        if record.arm == "throughput" and not record.clocked:
            reasons.setdefault("timed beside other runs, so not shown", {})[record.case] = None
    return Table(
        title="What was left out",
        columns=("Why", "What"),
        rows=tuple((reason, "; ".join(labels)) for reason, labels in reasons.items()),
        num_text_columns=3,
    )


def _points(found: Sequence[float]) -> str:
    if not found:
        return MISSING
    return (
        f"{statistics.median(found):+.2f} [{min(found):+.2f}, {max(found):+.2f}], n = {len(found)}"
    )


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _mebibytes(count: int | None) -> str:
    return MISSING if count is None else significant(count / _MEBIBYTE)
