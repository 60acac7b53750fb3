"""One object an arm: what `synthgrad report` prints, draws and compares with the papers.

Only runs that finished or failed are scored. One that was interrupted is no evidence for or against
its arm, so it takes part in no median over seeds; it is still listed, and its speed counts.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace

from synthgrad.bench.records.derived import latest_timing
from synthgrad.bench.records.events import RunRecord, Status, number
from synthgrad.bench.scoring.arm_summary import (
    CLOCK,
    DERIVED,
    ArmSummary,
    GoalSummary,
    Points,
    bounds,
    known,
)
from synthgrad.bench.scoring.claims import Claim
from synthgrad.bench.scoring.scores import (
    BootstrapRatio,
    accuracy_at,
    bootstrap_median,
    bootstrap_ratio,
    examples_to_goal,
    hit_fraction,
    median_with_misses,
    seconds_to_goal,
)
from synthgrad.bench.scoring.speed import summarize_speed
from synthgrad.errors import ConfigError

BASELINE = "backprop"

# What an arm's status is when its runs ended differently: the first of these that one of them has.
_WORST_FIRST: tuple[Status, ...] = ("failed", "interrupted", "finished", "unavailable")
_MAX_REASONS = 3
_BUDGETS = {"iterations": "iteration", "seconds": "seconds", "stage_updates": "stage_updates"}

ClaimsFunction = Callable[[dict[str, ArmSummary]], Mapping[str, Sequence[Claim]]]


def summarize(
    records: Iterable[RunRecord],
    goals: Sequence[float] = (97.0, 98.0),
    claims: ClaimsFunction | None = None,
    *,
    baseline: str = BASELINE,
) -> list[ArmSummary]:
    """Summarize records, one object an arm, in the order in which the arms were first started.

    *Equal budgets.* Accuracy at equal seconds is that of each run's last snapshot within one
    budget for all: the training seconds of the longest run of the arm that is done soonest. Equal
    iterations and equal stage updates likewise, each with its own budget.

    *Seconds.* Runs that had no clock have theirs from the timing already (`with_derived_seconds`);
    without a timing they have none, and nothing is said of them that needs it.

    *Speed.* Where there is a throughput record, the latest counts: seconds per iteration are the
    median over its blocks and ratios are taken within its rounds. Else both come from the runs,
    between each run's first and last snapshot. Examples and stage updates a second are that speed
    times their exact count per iteration.

    Args:
        records: what `read_records` returned; the order does not matter, runs of `tune` are left
            out.
        goals: validation accuracies to be reached, in percent.
        claims: given all summaries by arm, returns the claims by arm.
        baseline: the arm that ratios are over.

    Returns:
        The summaries; none for no records.

    Raises:
        ConfigError: there are no goals, or `claims` speaks of an arm that is not among the records.
    """
    if not goals:
        raise ConfigError("summarize needs at least one goal, such as 97.0")
    records = sorted(records, key=lambda record: (record.started, record.name))
    arms = runs_by_arm(records)
    timing = latest_timing(records)
    budgets = _equal_budgets(arms.values())
    summaries = {
        arm: _summarize_arm(runs, arms.get(baseline, []), goals, budgets, timing)
        for arm, runs in arms.items()
    }
    for arm, claimed in (claims(dict(summaries)) if claims else {}).items():
        if arm not in summaries:
            known_arms = ", ".join(summaries)
            raise ConfigError(f"claims about {arm!r}, which is not among the arms: {known_arms}")
        summaries[arm] = replace(summaries[arm], claim=tuple(claimed))
    return list(summaries.values())


def runs_by_arm(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Group the records of kind "run" by arm: arms as first started, runs by seed."""
    arms: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: (record.started, record.name)):
        if record.kind == "run":
            arms.setdefault(record.arm, []).append(record)
    return {arm: sorted(runs, key=lambda run: (run.seed, run.name)) for arm, runs in arms.items()}


def scored_runs(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the runs that take part in medians over seeds: finished or failed."""
    return [run for run in runs if run.status in ("finished", "failed")]


def _equal_budgets(arms: Iterable[Sequence[RunRecord]]) -> dict[str, float]:
    """Return what the arm that is done soonest spent at most: iterations, seconds and updates.

    Arms of which that was not measured are left out; NaN where it was of none.
    """
    ends = [
        [run.snapshots[-1] for run in runs if run.status == "finished" and run.snapshots]
        for runs in arms
    ]
    budgets = dict[str, float]()
    for budget, key in _BUDGETS.items():
        spent = [max(getattr(end, key) for end in arm) for arm in ends if arm]
        budgets[budget] = min((most for most in spent if math.isfinite(most)), default=math.nan)
    return budgets


def _summarize_arm(
    runs: Sequence[RunRecord],
    baseline_runs: Sequence[RunRecord],
    goals: Sequence[float],
    budgets: Mapping[str, float],
    timing: RunRecord | None,
) -> ArmSummary:
    scored = scored_runs(runs)
    ends = [run.finished or {} for run in scored]
    test_accuracies = [number(end, "test_accuracy") for end in ends]
    at_equal = {
        budget: _median_accuracy(accuracy_at(run, **{budget: amount}) for run in scored)
        for budget, amount in budgets.items()
    }
    by_goal = tuple(_summarize_goal(goal, scored, scored_runs(baseline_runs)) for goal in goals)
    speed = summarize_speed(runs, baseline_runs, timing.blocks if timing else ())
    return ArmSummary(
        arm=runs[0].arm,
        label=runs[0].label,
        num_seeds=len(scored),
        num_interrupted=sum(run.status == "interrupted" for run in runs),
        status=next(status for status in _WORST_FIRST if status in {run.status for run in runs}),
        reason=_reason(runs),
        iterations=max(run.iterations_reached for run in runs),
        seconds=known(median_with_misses(number(end, "seconds") for end in ends)),
        stage_updates=known(median_with_misses(number(end, "stage_updates") for end in ends)),
        test_accuracy=_median_accuracy(test_accuracies),
        seeds=tuple(run.seed for run in scored),
        test_accuracy_points=_points(test_accuracies),
        test_accuracy_interval=bounds(*bootstrap_median(test_accuracies, miss=-math.inf)),
        test_loss=known(median_with_misses(number(end, "test_loss") for end in ends)),
        val_accuracy=_median_accuracy(_last_accuracy(run) for run in scored),
        seconds_to_goal=by_goal[0].seconds,
        examples_to_goal=by_goal[0].examples,
        goals=by_goal,
        **{f"equal_{budget}": known(amount) for budget, amount in budgets.items()},
        **{f"val_accuracy_at_equal_{budget}": value for budget, value in at_equal.items()},
        **asdict(speed),
        seconds_from=_seconds_from(runs),
        cold_seconds=_median_cold_seconds(runs),
        flops_per_iteration=_fact(runs, "flops_per_iteration"),
        stage_parameters=_fact(runs, "stage_parameters"),
        synthesizer_parameters=_fact(runs, "synthesizer_parameters"),
        memory_bytes=_fact(runs, "memory_bytes"),
        records=tuple(run.name for run in runs),
        timing_record=timing.name if timing and speed.num_rounds else None,
    )


def _summarize_goal(
    goal: float, runs: Sequence[RunRecord], baseline_runs: Sequence[RunRecord]
) -> GoalSummary:
    seconds = [seconds_to_goal(run, goal) for run in runs]
    examples = [examples_to_goal(run, goal) for run in runs]
    of_baseline = [seconds_to_goal(run, goal) for run in baseline_runs]
    if any(map(math.isnan, [*seconds, *of_baseline])):  # without a clock, which is no miss
        ratio = BootstrapRatio(math.nan, 0.0, math.inf)
    else:
        ratio = bootstrap_ratio(seconds, of_baseline)
    return GoalSummary(
        goal=goal,
        seconds=known(median_with_misses(seconds)),
        examples=known(median_with_misses(examples)),
        hit_fraction=known(hit_fraction(examples)),
        seconds_points=_points(seconds),
        examples_points=_points(examples),
        seconds_ratio=known(ratio.ratio),
        seconds_ratio_interval=bounds(ratio.low, ratio.high),
    )


def _reason(runs: Sequence[RunRecord]) -> str:
    """Return what happened to the runs that did not finish; once where it is the same for all."""
    reasons = {run.seed: run.reason for run in runs if run.reason}
    if len(reasons) == len(runs) and len(set(reasons.values())) == 1:
        return next(iter(reasons.values()))
    told = [f"seed {seed}: {reason}" for seed, reason in reasons.items()]
    more = [f"and {len(told) - _MAX_REASONS} more"] if len(told) > _MAX_REASONS else []
    return "; ".join([*told[:_MAX_REASONS], *more])


def _median_accuracy(values: Iterable[float]) -> float | None:
    return known(median_with_misses(values, miss=-math.inf))


def _last_accuracy(run: RunRecord) -> float:
    finished = run.status == "finished" and run.snapshots
    return run.snapshots[-1].val_accuracy if finished else math.nan


def _seconds_from(runs: Sequence[RunRecord]) -> str | None:
    if all(run.clocked for run in runs):
        return CLOCK
    derived = any(math.isfinite(snap.seconds) for run in runs for snap in run.snapshots)
    return DERIVED if derived else None


def _median_cold_seconds(runs: Sequence[RunRecord]) -> float | None:
    warmups = [event for run in runs if run.clocked for event in run.of_kind("warmup")]
    return known(median_with_misses(number(event, "cold_seconds") for event in warmups))


def _fact(runs: Sequence[RunRecord], name: str) -> int | None:
    values = (run.facts.get(name) for run in runs)
    return max((value for value in values if value is not None), default=None)


def _points(values: Iterable[float]) -> Points:
    return tuple(known(value) for value in values)
