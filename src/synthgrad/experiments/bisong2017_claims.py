"""What Bisong 2017 claims, beside what was measured: verdicts with the counting spelled out.

Every measured number comes from the summaries. The paper's own digits are lost in the text that we
have, so its claims are quoted in words; the numbers of the notebook that is most likely the
ancestor of its code are those of that notebook's log.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.claims import Claim, Verdict

_BASELINE = "backprop"
_FOLD = 3
_FASTER = '"over 3-fold faster due to its asynchronous learning capabilities"'
_LESS_ACCURATE = 'test accuracy is lower than backprop\'s: it "lags behind"'
_GROWING_GAP = "it is the faster one, and the gap in time grows with the number of iterations"
_ANCESTOR = (
    "A public notebook that is most likely the ancestor of the paper's code logged 500,000 "
    "iterations: backprop in 58:37 minutes, 97.64 %; linear cDNI with update probability 0.2 in "
    "37:46 minutes, 96.95 %. That is 1.55 times as fast an iteration and, derived from it, 3.2 "
    "times as slow a stage update; or slower still, because its backprop wrote a summary in every "
    "iteration and the other arm in a fifth of them."
)
_OTHER_CONDITIONS = (
    "The paper trained on one GPU in TensorFlow, most likely for 500,000 iterations at 3e-5; see "
    "the record for ours."
)
_MIN_ROUNDS = 30


def judge(summaries: Mapping[str, ArmSummary]) -> dict[str, Sequence[Claim]]:
    """Judge the two arms that the paper can have meant; a pure function.

    Args:
        summaries: by arm. Of an arm that is not among them nothing is said.

    Returns:
        Claims by arm.
    """
    baseline = summaries.get(_BASELINE)
    claims = dict[str, Sequence[Claim]]()
    for name in ("cdni-mirror", "cdni-mirror-p02"):
        arm = summaries.get(name)
        if arm is None or baseline is None:
            continue
        timing = _Timing.of(arm, baseline)
        claims[name] = [
            _faster(arm, baseline, timing),
            _less_accurate(arm, baseline),
            _growing_gap(arm, timing),
        ]
        if name == "cdni-mirror-p02":
            claims[name] = [*claims[name], _ancestor(arm, timing)]
    return claims


@dataclass(frozen=True, kw_only=True)
class _Timing:
    """How an arm's time compares with backprop's.

    `ratio` is seconds per iteration over backprop's, in the 95 % interval [low, high]; `gap_s` is
    their difference; `updates` are stage updates per iteration, and `per_update` is the time of
    one over backprop's.
    """

    ratio: float
    low: float
    high: float
    gap_s: float
    updates: float
    baseline_updates: float
    per_update: float

    @classmethod
    def of(cls, arm: ArmSummary, baseline: ArmSummary) -> "_Timing | None":
        """Compare two arms; None where one was not timed, or only once."""
        ours, theirs = arm.seconds_per_iteration, baseline.seconds_per_iteration
        interval, speedup = arm.time_ratio_interval, arm.speedup_per_stage_update
        if not (arm.time_ratio and interval and ours and theirs and speedup):
            return None
        low, high = interval
        return cls(
            ratio=arm.time_ratio,
            low=0.0 if low is None else low,
            high=math.inf if high is None else high,
            gap_s=ours - theirs,
            updates=ours * (arm.stage_updates_per_second or 0.0),
            baseline_updates=theirs * (baseline.stage_updates_per_second or 0.0),
            per_update=1 / speedup,
        )

    @property
    def skips(self) -> bool:
        """Whether an iteration of the arm updates fewer stages than one of backprop."""
        return self.updates < 0.99 * self.baseline_updates


def _faster(arm: ArmSummary, baseline: ArmSummary, timing: _Timing | None) -> Claim:
    claim = f"speed of {arm.label}"
    if timing is None:
        return _unmeasured(claim, _FASTER, arm)
    verdict: Verdict
    if 0 < arm.num_rounds < _MIN_ROUNDS:
        verdict = "not comparable"
        reason = f"{arm.num_rounds} rounds are too few for a verdict."
    elif timing.low > 1:
        verdict = "not reproduced"
        reason = (
            "One process on one device runs nothing asynchronously, and the synthesizers' work "
            "comes on top of backprop's."
        )
    elif timing.low > 1 / _FOLD:
        verdict, reason = "not reproduced", "It takes more than a third of backprop's time."
    elif timing.high >= 1 / _FOLD:
        verdict, reason = "not comparable", "The interval of our ratio includes a third."
    else:
        verdict, reason = "reproduced", "It takes less than a third of backprop's time."
    if timing.skips:
        reason = _accounting(timing)
        if verdict == "reproduced" and timing.per_update > 1 / _FOLD:
            verdict = "not comparable"
    source = f"{arm.num_rounds} rounds" if arm.num_rounds else f"n = {arm.num_seeds}"
    threads = ""
    if arm.threads and baseline.threads:
        threads = f", on {arm.threads} and {baseline.threads} threads"
    goal = arm.goals[0].goal
    return Claim(
        claim=claim,
        paper=_FASTER,
        measured=(
            f"{timing.ratio:.2f} times backprop's time an iteration "
            f"[{timing.low:.2f}, {timing.high:.2f}] within one process{threads}, "
            f"{source}; to {goal:g} % validation accuracy: {_to_goal(arm)}, backprop "
            f"{_to_goal(baseline)}"
        ),
        verdict=verdict,
        reason=reason,
    )


def _accounting(timing: _Timing) -> str:
    """Say in plain words why fewer updates look like speed."""
    share = timing.updates / timing.baseline_updates
    per_iteration = "looks like a speed-up" if timing.ratio < 1 else "is no speed-up either"
    per_update = "which is none" if timing.per_update > 1 else "which is one"
    return (
        f"An iteration of backprop updates {timing.baseline_updates:.2g} stages. One of this arm "
        f"updates each with probability {share:.1g}, so {timing.updates:.2g} on average, and runs "
        f"no backward pass for the rest: {timing.ratio:.2f} times the time for {share:.2f} times "
        f"the updates. Counted per iteration that {per_iteration}; counted per stage update it "
        f"takes {timing.per_update:.1f} times backprop's time, {per_update}."
    )


def _less_accurate(arm: ArmSummary, baseline: ArmSummary) -> Claim:
    claim = f"accuracy of {arm.label}"
    ours, theirs = arm.test_accuracy, baseline.test_accuracy
    if ours is None or theirs is None:
        return _unmeasured(claim, _LESS_ACCURATE, arm)
    our_interval, their_interval = arm.test_accuracy_interval, baseline.test_accuracy_interval
    verdict: Verdict = "not reproduced"
    if our_interval is None or their_interval is None:
        verdict = "not comparable"
        reason = "With fewer than two seeds a difference cannot be told from chance."
    elif ours >= theirs:
        reason = "Ours is not lower."
    elif (our_interval[1] or 0.0) < (their_interval[0] or 0.0):
        verdict, reason = "reproduced", "The two intervals over seeds do not meet."
    else:
        verdict = "not comparable"
        reason = "It is lower by less than the seeds scatter: the two intervals overlap."
    return Claim(
        claim=claim,
        paper=_LESS_ACCURATE,
        measured=(
            f"{ours:.2f} % against {theirs:.2f} %, {ours - theirs:+.2f} points after "
            f"{arm.iterations:,} iterations; n = {arm.num_seeds} and {baseline.num_seeds}"
        ),
        verdict=verdict,
        reason=f"{reason} {_OTHER_CONDITIONS}",
    )


def _growing_gap(arm: ArmSummary, timing: _Timing | None) -> Claim:
    claim = f"gap in time of {arm.label}"
    if timing is None:
        return _unmeasured(claim, _GROWING_GAP, arm)
    verdict: Verdict
    if timing.low > 1:
        verdict = "not reproduced"
        reason = "The gap grows, as any constant difference does, but against it."
    elif timing.high >= 1:
        verdict, reason = "not comparable", "The interval of our ratio includes 1: maybe no gap."
    else:
        verdict = "reproduced"
        reason = "The gap grows in its favor, as any constant difference does."
        if timing.skips:
            reason += " It is the time of the work that was skipped."
    gap_s = abs(timing.gap_s)
    return Claim(
        claim=claim,
        paper=_GROWING_GAP,
        measured=(
            f"{1000 * gap_s:.2g} ms {'more' if timing.gap_s > 0 else 'less'} an iteration than "
            f"backprop; at that pace {gap_s * arm.iterations:.2g} s after {arm.iterations:,}"
        ),
        verdict=verdict,
        reason=reason,
    )


def _ancestor(arm: ArmSummary, timing: _Timing | None) -> Claim:
    claim = "accounting of its likely ancestor"
    if timing is None:
        return _unmeasured(claim, _ANCESTOR, arm)
    verdict: Verdict
    if timing.high < 1 < timing.per_update:
        verdict = "reproduced"
        reason = (
            "Both signs agree: less time an iteration, more time a stage update. The sizes are "
            "those of other software, hardware and synthesizers."
        )
    elif timing.low <= 1 <= timing.high:
        verdict, reason = "not comparable", "The interval of our ratio includes 1."
    else:
        verdict = "not reproduced"
        reason = "The signs differ; the notebook has less time an iteration, more time an update."
    return Claim(
        claim=claim,
        paper=_ANCESTOR,
        measured=(
            f"{1 / timing.ratio:.2f} times as fast an iteration, {timing.per_update:.2f} times "
            "backprop's time a stage update"
        ),
        verdict=verdict,
        reason=reason,
    )


def _to_goal(arm: ArmSummary) -> str:
    return "missed" if arm.seconds_to_goal is None else f"{arm.seconds_to_goal:.3g} s"


def _unmeasured(claim: str, paper: str, arm: ArmSummary) -> Claim:
    return Claim(
        claim=claim,
        paper=paper,
        measured="nothing that could be compared",
        verdict="not comparable",
        reason=arm.reason or "This arm or backprop did not finish, or was timed only once.",
    )
