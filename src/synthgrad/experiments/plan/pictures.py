"""Pictures of a plan: throughput over latency and stages, and what the answer depends on."""

from collections.abc import Iterable, Sequence

from synthgrad.bench.figures.panels import Dot, Dots, Line, Panel, dots_data, lines_data
from synthgrad.bench.findings import Picture
from synthgrad.bench.records.events import Event
from synthgrad.experiments.plan.planned import cases, ratio
from synthgrad.planning import Method
from synthgrad.planning.schedules import LABELS

PRICE = (
    "Throughput alone. What a network learns from a batch is another matter, and for synthetic "
    "gradients it has a price that grows with the number of stages: a long chain of synthesizers "
    "learns slowly (docs/long-chains.md)."
)


def latency_picture(curves: Iterable[Event]) -> list[Picture]:
    """Return throughput over latency, a panel a number of stages; none without curves."""
    panels = dict[int, list[Line]]()
    for event in curves:
        line = Line(
            label=LABELS[event["method"]],
            x=[1000 * latency for latency in event["latency_s"]],
            y=event["over_backprop"],
        )
        panels.setdefault(event["stages"], []).append(line)
    if not panels:
        return []
    data = lines_data(
        [
            _over_one_process(f"{stages:,} stages", "latency, ms one way", lines)
            for stages, lines in panels.items()
        ]
    )
    return [
        Picture(
            name="latency",
            title="Throughput over latency",
            kind="lines",
            data=data,
            note=f"No bandwidth limit. The mark is backprop in one process. {PRICE}",
        )
    ]


def stages_picture(planned: Iterable[Event]) -> list[Picture]:
    """Return throughput over the number of stages, a panel a link; none for a single number."""
    lines = dict[str, dict[Method, list[tuple[int, float]]]]()
    for (link, stages), methods in cases(planned).items():
        for name, event in methods.items():
            over = ratio(event, methods.get("backprop"))
            if over is not None and name != "backprop":
                lines.setdefault(link, {}).setdefault(name, []).append((stages, over))
    if not any(len(points) > 1 for methods in lines.values() for points in methods.values()):
        return []
    data = lines_data(
        [
            _over_one_process(
                link,
                "stages, one a process",
                [
                    Line(label=LABELS[name], x=[x for x, _ in points], y=[y for _, y in points])
                    for name, points in methods.items()
                ],
            )
            for link, methods in lines.items()
        ]
    )
    return [
        Picture(
            name="stages",
            title="Throughput over the number of stages, by link",
            kind="lines",
            data=data,
            note=f"The model grows with the stages. {PRICE}",
        )
    ]


def _over_one_process(title: str, x_label: str, lines: Sequence[Line]) -> Panel:
    return Panel(
        title=title,
        x_label=x_label,
        y_label="throughput over one process",
        lines=lines,
        log_x=True,
        log_y=True,
        marks=[1.0],
    )


def sensitivity_picture(found: Iterable[Event]) -> list[Picture]:
    """Return what each input does to the answer, the largest effect first."""
    panels = dict[str, list[Event]]()
    for event in found:
        panels.setdefault(f"{event['link']}, {event['stages']:,} stages", []).append(event)
    if not panels:
        return []
    data = dots_data(
        [
            Dots(
                title=title,
                x_label="DNI over 1F1B",
                rows=[
                    Dot(
                        label=event["what"],
                        value=event["gain"],
                        low=min(event["with_less"], event["with_more"]),
                        high=max(event["with_less"], event["with_more"]),
                    )
                    for event in events
                    if event["with_less"] != event["with_more"]
                ],
                marks=[events[0]["gain"]],
            )
            for title, events in panels.items()
        ]
    )
    return [
        Picture(
            name="sensitivity",
            title="What the answer depends on",
            kind="dots",
            data=data,
            note="Throughput. Each input 20 % less and 20 % more, alone; the largest effect first.",
        )
    ]
