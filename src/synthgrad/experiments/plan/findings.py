"""What a plan says: tables and pictures from its record, a pure function."""

from collections.abc import Iterable, Sequence

from synthgrad.bench.findings import Findings
from synthgrad.bench.records.events import Event, RunRecord
from synthgrad.bench.scoring.formats import MISSING, fixed, significant
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.plan.pictures import (
    PRICE,
    latency_picture,
    sensitivity_picture,
    stages_picture,
)
from synthgrad.experiments.plan.planned import cases, rate, ratio
from synthgrad.planning import Measurements, Method
from synthgrad.planning.schedules import LABELS, PIPELINES_THAT_WAIT

_WAITING: tuple[Method, ...] = ("ddp", *PIPELINES_THAT_WAIT)


def find(records: Sequence[RunRecord]) -> Findings:
    """Return tables and pictures of the plans that records hold."""
    planned = _events(records, "planned")
    curves = _events(records, "curve")
    sensitivity = _events(records, "sensitivity")
    return Findings(
        tables=(
            _gain_table(planned),
            _thresholds_table(_events(records, "thresholds")),
            _sensitivity_table(sensitivity),
            _methods_table(planned),
            _links_table(_events(records, "link")),
            _stages_table(_events(records, "measurements")),
        ),
        pictures=(
            *latency_picture(curves),
            *stages_picture(planned),
            *sensitivity_picture(sensitivity),
        ),
    )


def _events(records: Iterable[RunRecord], name: str) -> list[Event]:
    return [event for record in records for event in record.of_kind(name)]


def _best(methods: dict[Method, Event]) -> tuple[Method, Event] | None:
    """Return the fastest of the methods that wait for gradients."""
    found: list[tuple[Method, Event]] = [
        (name, methods[name]) for name in _WAITING if rate(methods.get(name))
    ]
    return max(found, key=lambda pair: rate(pair[1]) or 0.0) if found else None


def _gain_table(planned: Iterable[Event]) -> Table:
    rows = list[tuple[str, ...]]()
    for (link, stages), methods in cases(planned).items():
        dni, alone, best = methods.get("dni"), methods.get("backprop"), _best(methods)
        if dni is None or stages < 2:
            continue
        rows.append(
            (
                link,
                f"{stages:,}",
                significant(ratio(dni, alone)),
                significant(ratio(best[1], alone)) if best else MISSING,
                _described(*best) if best else MISSING,
                significant(ratio(dni, best[1])) if best else MISSING,
                significant(ratio(dni, methods.get("1f1b"))),
                fixed(100 * dni["idle_share"], 0),
            )
        )
    return Table(
        title="What DNI would gain in throughput",
        columns=(
            "Link",
            "Stages",
            "DNI over one process",
            "Best that waits over one process",
            "Which, with micro-batches",
            "DNI over it",
            "DNI over 1F1B",
            "DNI's idle share %",
        ),
        rows=tuple(rows),
        notes=(
            "One process is backprop on one machine like each of the others, had it the memory.",
            PRICE,
        ),
    )


def _described(method: Method, event: Event) -> str:
    cut = f", {event['num_microbatches']}" if method in PIPELINES_THAT_WAIT else ""
    return f"{LABELS[method]}{cut}"


def _thresholds_table(thresholds: Iterable[Event]) -> Table:
    return Table(
        title="From what latency on, one way, in milliseconds; no bandwidth limit",
        columns=(
            "Stages",
            "DNI over 1F1B at no latency",
            "DNI gains over 1F1B from",
            "DNI over the best pipeline that waits at none",
            "gains over it from",
            "That one is slower than one process from",
            "The bound in flight binds DNI from",
        ),
        rows=tuple(
            (
                f"{event['stages']:,}",
                significant(event["gain_at_no_latency"]),
                _milliseconds(event["over_1f1b_s"]),
                significant(event["gain_over_best_at_no_latency"]),
                _milliseconds(event["over_best_s"]),
                _milliseconds(event["best_below_backprop_s"]),
                _milliseconds(max(0.0, event["in_flight_binds_s"])),
            )
            for event in thresholds
        ),
    )


def _milliseconds(seconds: float | None) -> str:
    return "never" if seconds is None else "0" if seconds == 0 else significant(1000 * seconds)


def _sensitivity_table(found: Sequence[Event]) -> Table:
    return Table(
        title="How sure that is: DNI's throughput over 1F1B's, where one input is 20 % off",
        columns=("Link", "Input", "Stages", "20 % less", "As planned", "20 % more"),
        rows=tuple(
            (
                event["link"],
                event["what"],
                f"{event['stages']:,}",
                significant(event["with_less"]),
                significant(event["gain"]),
                significant(event["with_more"]),
            )
            for event in found
        ),
        num_text_columns=2,
    )


def _methods_table(planned: Sequence[Event]) -> Table:
    fails = any("useful_share" in event for event in planned)
    rows, reasons = list[tuple[str, ...]](), dict[str, str]()
    for (link, stages), methods in cases(planned).items():
        for name, event in methods.items():
            label = LABELS[name]
            if "reason" in event:
                reasons[label] = event["reason"]
                continue
            rows.append(
                (
                    link,
                    label,
                    f"{stages:,}",
                    str(event["num_microbatches"]) if name in PIPELINES_THAT_WAIT else "",
                    significant(event["batches_per_second"]),
                    significant(ratio(event, methods.get("backprop"))),
                    fixed(100 * event["idle_share"], 0),
                    significant(event["bytes_in_flight"] / 2**20),
                    *([fixed(100 * event["useful_share"], 1)] if fails else []),
                )
            )
    return Table(
        title="Every method",
        columns=(
            "Link",
            "Method",
            "Stages",
            "Micro-batches",
            "Batches a second",
            "Over one process",
            "Idle %",
            "In flight, MiB",
            *(["Time that lasts %"] if fails else []),
        ),
        rows=tuple(rows),
        notes=(
            "In flight: what the stage that keeps most keeps besides its weights.",
            *(["Over one process: with what failures leave."] if fails else []),
            *(f"{label}: {reason}." for label, reason in reasons.items()),
        ),
        num_text_columns=2,
    )


def _links_table(links: Sequence[Event]) -> Table:
    return Table(
        title="Links: one way, the same in both directions",
        columns=("Link", "Latency, ms", "Bandwidth, Mbit/s", "Own cost of a message, ms"),
        rows=tuple(
            (
                event["label"],
                f"{1000 * event['latency_s']:g}",
                _megabits(event["bandwidth_bytes_per_s"]),
                significant(1000 * event["message_s"]) if event["message_s"] else "0",
            )
            for event in links
        ),
    )


def _megabits(bytes_per_second: float | None) -> str:
    return "no limit" if bytes_per_second is None else f"{bytes_per_second * 8 / 1e6:,.0f}"


def _stages_table(events: Sequence[Event]) -> Table:
    rows, sources = list[tuple[str, ...]](), list[str]()
    lines = [Measurements.from_json(event) for event in events]
    has_runtime = any(stage.runtime_s for line in lines for stage in line.stages)
    for measured in lines:
        sources.append(f"{measured.source}; batches of {measured.batch_size}.")
        for number, stage in enumerate(measured.stages):
            seconds = (
                stage.forward_s,
                stage.backward_input_s,
                stage.backward_weight_s,
                stage.update_s,
                stage.predict_s,
                stage.fit_s,
                stage.overhead_s,
                *([stage.runtime_s] if has_runtime else []),
            )
            rows.append(
                (
                    str(number),
                    *(f"{1000 * value:.3g}" for value in seconds),
                    significant(stage.activation_bytes / 1024) if stage.activation_bytes else "0",
                )
            )
    return Table(
        title="What the plan starts from: milliseconds of a stage for a batch",
        columns=(
            "Stage",
            "Forward",
            "Backward, to inputs",
            "Backward, to weights",
            "Update",
            "Predict",
            "Fit",
            "Of a pass, fixed",
            *(["Of a schedule's runtime, a pass"] if has_runtime else []),
            "Activation, KiB",
        ),
        rows=tuple(rows),
        notes=tuple(sources),
    )
