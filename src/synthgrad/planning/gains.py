"""From what latency on DNI gains, from what latency on its bound binds, and how sure that is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from synthgrad.errors import ConfigError
from synthgrad.planning.costs import Conditions, operation_seconds, transfers
from synthgrad.planning.measurements import Link, StageTimes
from synthgrad.planning.schedules import Method, Op, Schedule
from synthgrad.planning.simulate import Outcome, plan_method

_HIGHEST_S = 100.0
_LOWEST_S = 1e-5
_GRID = 4.0
_EXACT_TO = 0.005  # of the latency
RUNTIME = "runtime of a schedule"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One situation to plan for.

    Args:
        stages: bottom first.
        conditions: link, jitter, a slow stage.
        batch_size: examples in a batch.
        max_in_flight: batches between two stages.
    """

    stages: tuple[StageTimes, ...]
    conditions: Conditions
    batch_size: int = 256
    max_in_flight: int = 4

    def outcome(self, method: Method) -> Outcome:
        """Return what a method reaches here."""
        return plan_method(
            method,
            self.stages,
            self.conditions,
            batch_size=self.batch_size,
            max_in_flight=self.max_in_flight,
        )

    def with_latency(self, latency_s: float) -> "Case":
        """Return the same with another latency, in both directions."""
        link = replace(self.conditions.link, latency_s=latency_s, latency_down_s=None)
        return replace(self, conditions=replace(self.conditions, link=link))

    def gain(self, method: Method = "dni", over: Sequence[Method] = ("1f1b",)) -> float:
        """Return how many times the throughput a method has of the best of some others."""
        best = max(self.outcome(other).batches_per_second for other in over)
        return self.outcome(method).batches_per_second / best


def break_even_latency(
    case: Case, method: Method = "dni", over: Sequence[Method] = ("1f1b",)
) -> float | None:
    """Return the latency in seconds from which on a method gains; 0 where it always does.

    The first latency where the gain passes 1 is bracketed on a grid, each point four times the one
    before, and found between two by bisection, to half a percent.

    Args:
        case: the situation; its own latency does not matter.
        method: what should gain.
        over: over the best of what.

    Returns:
        None where it does not gain up to 100 s.
    """

    def gains(latency_s: float) -> bool:
        return case.with_latency(latency_s).gain(method, over) > 1

    if gains(0.0):
        return 0.0
    low, high = 0.0, _LOWEST_S
    while not gains(high):
        if high >= _HIGHEST_S:
            return None
        low, high = high, _GRID * high
    while high - low > _EXACT_TO * high:
        middle = (low + high) / 2
        low, high = (low, middle) if gains(middle) else (middle, high)
    return high


def binding_latency(case: Case) -> float:
    """Return the latency in seconds from which on `max_in_flight` bounds the throughput of DNI.

    Math: Little's law. With F batches in flight over an interface, a round trip (forward, message
    up, forward and backward above, message down, fit) takes 1 / rate of at most F batches: F / (a +
    2 latency) with a the round trip without latency. That is below the rate of the slowest stage
    from latency = (F / rate - a) / 2 on; the least over the interfaces. It is negative where the
    bound binds even without latency.

    Raises:
        ConfigError: there is one stage, so nothing is in flight.
    """
    if len(case.stages) < 2:
        raise ConfigError("max_in_flight bounds nothing with one stage: give two or more")
    slowest_s, trips_s = dni_cycles(case)
    return min((case.max_in_flight * slowest_s - trip_s) / 2 for trip_s in trips_s)


def dni_cycles(case: Case) -> tuple[float, list[float]]:
    """Return the seconds of the slowest stage or link, and of each round trip without latency.

    Ordered DNI without jitter is a marked graph, so its seconds a batch are the larger one of the
    first and of (round trip + latency up + latency down) / max_in_flight.
    """
    schedule = Schedule(method="dni", max_in_flight=case.max_in_flight)
    seconds = operation_seconds(schedule, case.stages, case.conditions)
    up, down = transfers(schedule, case.stages, case.conditions.link)
    last = len(case.stages) - 1
    own = seconds[:, [Op.FORWARD, Op.EMIT, Op.UPDATE]].sum(axis=1)
    own[:last] += seconds[:last, Op.FIT]
    answer = seconds[:, [Op.FORWARD, Op.EMIT]].sum(axis=1)
    trips = [
        float(seconds[k, Op.FORWARD] + up[k] + answer[k + 1] + down[k] + seconds[k, Op.FIT])
        for k in range(last)
    ]
    return float(max(own.max(), up.max(initial=0.0), down.max(initial=0.0))), trips


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What becomes of the gain where one input is less or more than was planned with."""

    what: str
    with_less: float
    with_more: float

    @property
    def span(self) -> float:
        """How far apart the two are."""
        return abs(self.with_more - self.with_less)


def sensitivities(case: Case, *, share: float = 0.2) -> list[Sensitivity]:
    """Return what each input, alone, does to the gain of DNI over 1F1B; the largest span first.

    The runtime of schedules, which only pipelines measure, is left out where it is not known.

    Args:
        case: the situation.
        share: by which each is made less, and more.
    """
    found = [
        Sensitivity(
            what=what,
            with_less=change(case, 1 - share).gain(),
            with_more=change(case, 1 + share).gain(),
        )
        for what, change in _CHANGES.items()
        if what != RUNTIME or any(stage.runtime_s for stage in case.stages)
    ]
    return sorted(found, key=lambda one: -one.span)


def _times(*names: str) -> Callable[[Case, float], Case]:
    """Return what multiplies fields of every stage."""

    def change(case: Case, factor: float) -> Case:
        return replace(case, stages=_scaled(case.stages, names, factor))

    return change


def _scaled(
    stages: Sequence[StageTimes], names: Sequence[str], factor: float
) -> tuple[StageTimes, ...]:
    return tuple(
        replace(
            stage,
            **{n: value * factor for n in names if (value := getattr(stage, n)) is not None},
        )
        for stage in stages
    )


def _of_link(change: Callable[[Link, float], Link]) -> Callable[[Case, float], Case]:
    def changed(case: Case, factor: float) -> Case:
        link = change(case.conditions.link, factor)
        return replace(case, conditions=replace(case.conditions, link=link))

    return changed


def _latency(link: Link, factor: float) -> Link:
    up, down = link.latencies_s
    return replace(link, latency_s=up * factor, latency_down_s=down * factor)


def _bandwidth(link: Link, factor: float) -> Link:
    up, down = link.bandwidths
    return replace(
        link, bandwidth_bytes_per_s=up * factor, bandwidth_down_bytes_per_s=down * factor
    )


def _message(link: Link, factor: float) -> Link:
    return replace(link, message_s=link.message_s * factor)


def _one_stage(case: Case, factor: float) -> Case:
    """Return it with the stage in the middle faster or slower, and the others as they are."""
    names = [name for name in vars(case.stages[0]) if name.endswith("_s")]
    middle = len(case.stages) // 2
    slow = _scaled(case.stages[middle : middle + 1], names, factor)
    return replace(case, stages=(*case.stages[:middle], *slow, *case.stages[middle + 1 :]))


_CHANGES: dict[str, Callable[[Case, float], Case]] = {
    "forward": _times("forward_s"),
    "backward": _times("backward_input_s", "backward_weight_s", "local_backward_s"),
    "update": _times("update_s"),
    "synthesizer": _times("predict_s", "fit_s"),
    "overhead of a pass": _times("overhead_s"),
    RUNTIME: _times("runtime_s"),
    "size of a message": _times("activation_bytes"),
    "one stage's times": _one_stage,
    "latency": _of_link(_latency),
    "bandwidth": _of_link(_bandwidth),
    "own cost of a message": _of_link(_message),
}
