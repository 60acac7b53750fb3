"""What methods reach, against formulas that others have proved."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planning.stages import DNI, EVEN
from synthgrad.errors import ConfigError
from synthgrad.planning import (
    Case,
    Conditions,
    Failures,
    Link,
    Schedule,
    StageTimes,
    binding_latency,
    break_even_latency,
    plan_method,
    sensitivities,
    simulate,
    useful_share,
)
from synthgrad.planning.gains import RUNTIME, dni_cycles
from synthgrad.planning.simulate import MAX_STAGES


@pytest.mark.parametrize("method", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("p", "m"), [(1, 4), (2, 1), (2, 4), (4, 8), (5, 3), (64, 32)])
def test_the_bubble_of_gpipe_and_1f1b(method, p, m):
    """Equal stages, no latency: (p - 1) / (m + p - 1) of the time is idle."""
    outcome = simulate(Schedule(method=method, num_microbatches=m), [EVEN] * p)
    assert outcome.idle_share == pytest.approx((p - 1) / (m + p - 1), rel=1e-12)


@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (8, 16)])
def test_the_bubble_of_zero_bubble_is_a_third_of_that_of_1f1b(p, m):
    """Qi et al. 2023: where forward and both parts of backward take equally long, and m >= p."""

    def bubble_s(method):
        outcome = simulate(Schedule(method=method, num_microbatches=m), [EVEN] * p)
        return outcome.idle_share / outcome.batches_per_second

    assert bubble_s("zero-bubble") == pytest.approx(bubble_s("1f1b") / 3, rel=1e-9)


def test_what_is_kept_in_flight():
    def kept(method, **options):
        return simulate(Schedule(method=method, **options), [EVEN] * 4).bytes_in_flight

    assert kept("gpipe", num_microbatches=8) == 100
    assert kept("1f1b", num_microbatches=8) == 4 * 100 / 8
    assert kept("zero-bubble", num_microbatches=8) == 4 * 100 / 8, "no more than 1F1B"
    assert kept("stashing", max_in_flight=2) == 4 * 100 + 3 * 1000, "and a weight for each"
    assert kept("dni", max_in_flight=3) == 100 + 3 * 100
    assert kept("local", max_in_flight=3) == 100
    assert kept("backprop") == 400


def test_backprop_in_one_process_is_the_sum_of_its_stages():
    outcome = simulate(Schedule(method="backprop"), [DNI, DNI], Conditions(link=Link(latency_s=9)))
    assert outcome.batches_per_second == 1 / 13.0


def test_replicas_by_hand():
    """Two halves of a batch: 2 and 2 s; a ring of two messages of 1000 bytes, 10 s and 3 s each."""
    link = Link(latency_s=3.0, bandwidth_bytes_per_s=100.0)
    outcome = simulate(Schedule(method="ddp"), [EVEN] * 2, Conditions(link=link))
    assert outcome.batches_per_second == 1 / (1 + 2 * 13)
    assert outcome.idle_share == pytest.approx(1 - 3 / 27)
    fast = simulate(Schedule(method="ddp"), [EVEN] * 2)
    assert (fast.batches_per_second, fast.idle_share) == (1 / 3, 0), "beside the backward"


def test_replicas_need_to_know_the_parameters():
    with pytest.raises(ConfigError, match="ddp needs parameter_bytes"):
        simulate(Schedule(method="ddp"), [DNI] * 2)


@pytest.mark.parametrize("slow_factor", [1.0, 3.0])
@pytest.mark.parametrize("method", ["dni", "dni-free", "local", "stashing"])
def test_with_enough_in_flight_the_slowest_stage_sets_the_rate(method, slow_factor):
    conditions = Conditions(link=Link(latency_s=5.0), slow_factor=slow_factor)
    outcome = simulate(Schedule(method=method, max_in_flight=8), [DNI] * 5, conditions)
    seconds = {"dni": 8.0, "dni-free": 8.0, "local": 6.5, "stashing": 6.5}[method] * slow_factor
    assert outcome.batches_per_second == pytest.approx(1 / seconds, rel=1e-9)


TIMES = st.floats(0.01, 5.0)
STAGES = st.builds(
    StageTimes,
    forward_s=TIMES,
    backward_weight_s=TIMES,
    update_s=TIMES,
    predict_s=TIMES,
    fit_s=TIMES,
    activation_bytes=st.floats(0.0, 100.0),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(STAGES, min_size=2, max_size=5),
    st.floats(0, 20),
    st.floats(10, 1000),
    st.integers(1, 4),
)
def test_dni_is_as_fast_as_its_slowest_cycle(stages, latency_s, bandwidth, max_in_flight):
    """Ordered DNI is a marked graph, whose period is that of its slowest cycle."""
    link = Link(latency_s=latency_s, bandwidth_bytes_per_s=bandwidth)
    case = Case(stages=tuple(stages), conditions=Conditions(link=link), max_in_flight=max_in_flight)
    slowest_s, trips_s = dni_cycles(case)
    period_s = max(slowest_s, *((trip + 2 * latency_s) / max_in_flight for trip in trips_s))
    # A window of some batches: a cycle that is not the slowest shows at its ends.
    rate = case.outcome("dni").batches_per_second
    assert rate == pytest.approx(1 / period_s, rel=0.15)
    assert rate >= 1 / period_s * (1 - 1e-9)


def test_where_max_in_flight_begins_to_bind():
    """Little's law: 4 batches in flight, 8 s each; a round trip is 9.5 s without latency."""
    case = Case(stages=(DNI, DNI, DNI), conditions=Conditions(), max_in_flight=4)
    assert binding_latency(case) == (4 * 8 - 9.5) / 2
    free, bound = (
        case.with_latency(binding_latency(case) + more).outcome("dni").batches_per_second
        for more in (-0.01, 4.0)
    )
    assert free == pytest.approx(1 / 8, rel=1e-9)
    assert bound == pytest.approx(4 / (4 * 8 + 2 * 4), rel=1e-9)


def test_what_is_bound_by_nothing():
    with pytest.raises(ConfigError, match="one stage"):
        binding_latency(Case(stages=(DNI,), conditions=Conditions()))


def test_the_break_even_latency_by_hand():
    """Two stages, one micro-batch at most: 1F1B takes 12 s and four times the latency.

    (Two round trips: the forward up and the gradient down, each once, so twice the latency.)
    """
    costly = replace(DNI, update_s=0.0, predict_s=10.0, fit_s=0.0)  # DNI: 16 s a batch
    case = Case(stages=(costly, costly), conditions=Conditions(), batch_size=1)
    latency_s = break_even_latency(case)
    assert latency_s == pytest.approx(2.0, rel=5e-3)
    assert case.with_latency(latency_s).gain() > 1
    assert case.with_latency(latency_s * 0.99).gain() < 1


def test_a_break_even_that_is_nowhere_and_one_that_is_everywhere():
    case = Case(stages=(DNI, DNI), conditions=Conditions(), max_in_flight=1)
    assert break_even_latency(case, "dni", ["local"]) is None
    assert break_even_latency(case, "local", ["dni", "1f1b"]) == 0.0


def test_the_best_cut_is_the_best():
    stages = [replace(EVEN, overhead_s=0.2)] * 4
    best = plan_method("1f1b", stages, batch_size=32, max_in_flight=1)
    tried = [
        simulate(Schedule(method="1f1b", num_microbatches=m), stages).batches_per_second
        for m in (1, 2, 4, 8, 16, 32)
    ]
    assert best.batches_per_second == max(tried)
    assert 1 < best.schedule.num_microbatches < 32


def test_sensitivities_are_sorted_and_their_signs_are_right():
    link = Link(latency_s=1.0, bandwidth_bytes_per_s=100.0)
    found = sensitivities(Case(stages=(DNI, DNI), conditions=Conditions(link=link)))
    spans = [one.span for one in found]
    assert spans == sorted(spans, reverse=True)
    by_name = {one.what: one for one in found}
    assert by_name["latency"].with_more > by_name["latency"].with_less, "1F1B waits for it"
    assert by_name["synthesizer"].with_more < by_name["synthesizer"].with_less
    assert by_name["size of a message"].with_more > by_name["size of a message"].with_less
    assert by_name["bandwidth"].with_more < by_name["bandwidth"].with_less
    assert by_name["own cost of a message"].span == 0, "there is none"
    assert RUNTIME not in by_name
    slow = replace(DNI, runtime_s=1.0)
    found = sensitivities(Case(stages=(slow, slow), conditions=Conditions(link=link)))
    (runtime,) = (one for one in found if one.what == RUNTIME)
    assert runtime.with_more > runtime.with_less, "1F1B pays for it, DNI does not"


def test_jitter_is_seeded_and_costs_ordered_stages_more_than_free_ones():
    def rate(method, seed):
        conditions = Conditions(link=Link(jitter_s=8.0), compute_jitter=0.5, seed=seed)
        schedule = Schedule(method=method, max_in_flight=2)
        return simulate(schedule, [DNI] * 3, conditions).batches_per_second

    assert rate("dni", 0) == rate("dni", 0) != rate("dni", 1)
    assert rate("dni", 0) <= rate("dni-free", 0) * 1.01 < 1.01 / 8


def test_ten_thousand_stages():
    outcome = simulate(Schedule(method="dni", max_in_flight=2), [DNI] * MAX_STAGES)
    assert outcome.batches_per_second == pytest.approx(1 / 8, rel=1e-9)
    assert outcome.first_batch_s == 2.0 * (MAX_STAGES - 1) + 7.0


@pytest.mark.parametrize(
    ("method", "num_stages", "simulator", "message"),
    [
        ("dni", 0, None, "0 stages: the simulator 'recurrence' of dni takes 1 to 10,000"),
        ("dni", 257, "simpy", "257 stages: the simulator 'simpy' of dni takes 1 to 256"),
        ("dni-free", 257, None, "takes 1 to 256"),
        ("dni-free", 2, "recurrence", "no fixed order"),
    ],
)
def test_what_cannot_be_simulated(method, num_stages, simulator, message):
    with pytest.raises(ConfigError, match=message):
        simulate(Schedule(method=method), [DNI] * num_stages, simulator=simulator)


@pytest.mark.parametrize(
    "options",
    [{"compute_jitter": -0.1}, {"slow_factor": 0.5}, {"slow_factor": math.nan}],
)
def test_what_cannot_be_conditions(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Conditions(**options)


@pytest.mark.parametrize("num_stages", [2, 32])
def test_failures_cost_what_renewal_theory_says(num_stages):
    failures = Failures(mtbf_s=86_400, restart_s=120, checkpoint_every_s=600, checkpoint_s=10)
    share = useful_share(failures, num_stages=num_stages, fill_s=5)
    rate, segment_s = num_stages / 86_400, 615
    expected = 600 / ((1 / rate + 120) * math.expm1(rate * segment_s))
    # 400 failures: their mean time is known to 5 % (one sigma), of what they cost.
    assert share == pytest.approx(expected, abs=3 * 0.05 * (1 - expected))


def test_without_failures_only_the_fill_and_the_checkpoint_are_lost():
    failures = Failures(checkpoint_every_s=90, checkpoint_s=6)
    assert useful_share(failures, num_stages=4, fill_s=4) == 0.9


@pytest.mark.parametrize(
    "options",
    [{"mtbf_s": 0}, {"restart_s": -1}, {"checkpoint_every_s": -5}, {"checkpoint_s": math.inf}],
)
def test_what_cannot_be_failures(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Failures(**options)
