"""The recurrence and simpy are written apart, and must say the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planning.stages import DNI
from synthgrad.planning import Conditions, Link, Schedule, StageTimes, simulate
from synthgrad.planning.costs import make_costs
from synthgrad.planning.processes import run_processes
from synthgrad.planning.recurrence import start_times
from synthgrad.planning.schedules import Op

SECONDS = st.floats(0.001, 10.0)
MAYBE = st.one_of(st.just(0.0), SECONDS)
STAGES = st.builds(
    StageTimes,
    forward_s=SECONDS,
    backward_input_s=SECONDS,
    backward_weight_s=SECONDS,
    update_s=MAYBE,
    predict_s=MAYBE,
    fit_s=MAYBE,
    local_s=MAYBE,
    local_backward_s=st.one_of(st.none(), SECONDS),
    overhead_s=MAYBE,
    runtime_s=MAYBE,
    activation_bytes=st.floats(0.0, 1000.0),
)
LINKS = st.builds(
    Link,
    latency_s=MAYBE,
    latency_down_s=st.one_of(st.none(), MAYBE),
    bandwidth_bytes_per_s=st.floats(10.0, 1e6),
    bandwidth_down_bytes_per_s=st.one_of(st.none(), st.floats(10.0, 1e6)),
    message_s=MAYBE,
    jitter_s=MAYBE,
)
CONDITIONS = st.builds(
    Conditions,
    link=LINKS,
    compute_jitter=st.sampled_from([0.0, 0.3]),
    slow_factor=st.sampled_from([1.0, 2.5]),
    seed=st.integers(0, 5),
)
SCHEDULES = st.one_of(
    st.builds(
        Schedule,
        method=st.sampled_from(["gpipe", "1f1b", "zero-bubble"]),
        num_microbatches=st.integers(1, 6),
    ),
    st.builds(
        Schedule,
        method=st.sampled_from(["stashing", "local", "dni"]),
        max_in_flight=st.integers(1, 4),
    ),
)


@settings(max_examples=150, deadline=None)
@given(SCHEDULES, st.lists(STAGES, min_size=1, max_size=5), CONDITIONS, st.integers(1, 5))
def test_the_recurrence_equals_simpy_exactly(schedule, stages, conditions, num_batches):
    costs = make_costs(schedule, stages, conditions, num_batches)
    starts = start_times(costs)
    for stage, done in enumerate(run_processes(costs)):
        expected = [start for _, start, _ in done]
        np.testing.assert_array_equal(starts[stage, : len(expected)], expected)
        assert np.isnan(starts[stage, len(expected) :]).all()


@pytest.mark.parametrize("method", ["1f1b", "zero-bubble", "stashing", "local", "dni"])
def test_the_outcome_does_not_depend_on_the_simulator(method):
    cut = 4 if method in ("1f1b", "zero-bubble") else 1
    schedule = Schedule(method=method, num_microbatches=cut)
    conditions = Conditions(link=Link(latency_s=0.3), slow_factor=1.5)
    one = simulate(schedule, [DNI] * 6, conditions, simulator="simpy")
    assert one == simulate(schedule, [DNI] * 6, conditions, simulator="recurrence")


@settings(max_examples=40, deadline=None)
@given(st.lists(STAGES, min_size=1, max_size=4), CONDITIONS, st.integers(1, 4))
def test_free_stages_do_all_that_is_to_be_done_and_keep_the_bound(stages, conditions, bound):
    num_batches = 6
    costs = make_costs(Schedule(method="dni", max_in_flight=bound), stages, conditions, num_batches)
    for stage, done in enumerate(run_processes(costs, free_with=bound)):
        ops = [op for op, _, _ in done]
        assert sorted(ops) == sorted(op for op, _ in costs.of_stage(stage))
        ahead = np.cumsum([(op is Op.FORWARD) - (op is Op.FIT) for op in ops])
        assert stage == len(stages) - 1 or max(ahead) <= bound
        ends = [start + seconds for _, start, seconds in done]
        # An operation begins when the one before it has ended, or later.
        assert all(start >= end for (_, start, _), end in zip(done[1:], ends, strict=False))


def test_free_stages_fit_while_they_wait():
    """Where batches come seldom, an ordered stage fits late and a free one in the meantime."""
    slow = StageTimes(forward_s=10.0)
    fast = StageTimes(forward_s=1.0, fit_s=1.0)
    last = StageTimes(forward_s=1.0)
    costs = make_costs(Schedule(method="dni"), [slow, fast, last], Conditions(), 8)
    free = [start for op, start, _ in run_processes(costs, free_with=4)[1] if op is Op.FIT]
    ordered = [start for op, start, _ in run_processes(costs)[1] if op is Op.FIT]
    # Of the first batch, which the stage above ends at 12.
    assert free[0] == 12.0
    assert ordered[0] == 41.0
