"""What a plan's record says was simulated, by case and method."""

from collections.abc import Iterable

from synthgrad.bench.records.events import Event
from synthgrad.planning import Method


def cases(planned: Iterable[Event]) -> dict[tuple[str, int], dict[Method, Event]]:
    """Group what was simulated by link and stages, then by method, the links together."""
    cases = dict[tuple[str, int], dict[Method, Event]]()
    links = list(dict.fromkeys(event["link"] for event in planned))
    for event in sorted(planned, key=lambda e: (links.index(e["link"]), e["stages"])):
        cases.setdefault((event["link"], event["stages"]), {})[event["method"]] = event
    return cases


def rate(event: Event | None) -> float | None:
    """Return batches a second, of time that failures leave."""
    if event is None or "batches_per_second" not in event:
        return None
    return event["batches_per_second"] * event.get("useful_share", 1.0)


def ratio(above: Event | None, below: Event | None) -> float | None:
    """Return a rate over another; None where either is missing."""
    over, under = rate(above), rate(below)
    return None if over is None or not under else over / under
