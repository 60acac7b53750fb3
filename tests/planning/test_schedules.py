"""The programs, and start times that were worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from planning.stages import EVEN
from synthgrad.errors import ConfigError, EngineError
from synthgrad.planning import METHODS, Conditions, Link, Schedule, StageTimes, simulate
from synthgrad.planning.costs import make_costs
from synthgrad.planning.recurrence import start_times
from synthgrad.planning.schedules import LABELS, Op

ONE = StageTimes(forward_s=1.0, backward_input_s=1.0, backward_weight_s=0.0, activation_bytes=10.0)
ONE_AND_WEIGHTS = replace(ONE, backward_weight_s=1.0, update_s=1.0)


def letters(method, stage, num_stages, num_batches=1, **options):
    program = Schedule(method=method, **options).program(stage, num_stages, num_batches)
    return "".join(
        {
            Op.FORWARD: "F",
            Op.BACKWARD: "B",
            Op.BACKWARD_INPUT: "b",
            Op.BACKWARD_WEIGHT: "w",
            Op.UPDATE: "U",
            Op.EMIT: "E",
            Op.FIT: "T",
            Op.LOCAL: "L",
            Op.TAKEN: "a",
            Op.ROOM: "r",
        }[Op(op)]
        for op in program
    )


@pytest.mark.parametrize(
    ("method", "stage", "options", "expected"),
    [
        ("gpipe", 0, {"num_microbatches": 3}, "FFFBBBU"),
        ("1f1b", 0, {"num_microbatches": 4}, "FFFBFBBBU"),
        ("1f1b", 2, {"num_microbatches": 4}, "FBFBFBFBU"),
        ("1f1b", 0, {"num_microbatches": 1}, "FBU"),
        ("zero-bubble", 0, {"num_microbatches": 4}, "FFFbwFbwbwbwU"),
        ("zero-bubble", 2, {"num_microbatches": 4}, "FbFbFbwFbwwwU"),
    ],
)
def test_a_batch_of_a_synchronous_method_on_three_stages(method, stage, options, expected):
    assert letters(method, stage, 3, **options) == expected


@pytest.mark.parametrize(
    ("method", "stage", "expected"),
    [
        ("dni", 0, "FEUFEUTFEUTFEUTT"),
        ("dni", 2, "FEUFEUFEUFEU"),
        ("local", 0, "FLUFLUrFLUrFLUrr"),
        ("local", 1, "FaLUFaLUrFaLUrFaLUrr"),
        ("stashing", 0, "FFFBUFBUBUBU"),
        ("stashing", 1, "FFBUFBUFBUBU"),
        ("stashing", 2, "FBUFBUFBUFBU"),
    ],
)
def test_four_batches_of_the_others_with_two_in_flight(method, stage, expected):
    assert letters(method, stage, 3, num_batches=4, max_in_flight=2) == expected


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("backprop", "ddp", "dni-free")])
@pytest.mark.parametrize("num_batches", [1, 5])
def test_stages_that_share_a_key_share_a_program(method, num_batches):
    cut = 3 if method in ("gpipe", "1f1b", "zero-bubble") else 1
    schedule = Schedule(method=method, num_microbatches=cut, max_in_flight=2)
    seen = dict[tuple[int, ...], list[int]]()
    for stage in range(7):
        key = schedule.same_program_from(stage, 7, num_batches)
        program = schedule.program(stage, 7, num_batches).tolist()
        assert seen.setdefault(key, program) == program


def test_gpipe_by_hand_with_latency_and_bandwidth():
    """Two stages, two micro-batches: forward and backward 0.5 s, message 1 s on the line + 2 s."""
    link = Link(latency_s=2.0, bandwidth_bytes_per_s=5.0)
    schedule = Schedule(method="gpipe", num_microbatches=2)
    starts = start_times(make_costs(schedule, [ONE] * 2, Conditions(link=link), 1))
    # Sent at 0.5 and 1; the line is free for the second at 1.5; they arrive at 3.5 and 4.5.
    # Above: forwards at 3.5 and 4.5, backwards at 5 and 5.5; sent at 5.5 and 6.5.
    assert starts.tolist() == [[0.0, 0.5, 8.5, 9.5, 10.0], [3.5, 4.5, 5.0, 5.5, 6.0]]


def test_1f1b_by_hand():
    schedule = Schedule(method="1f1b", num_microbatches=2)
    starts = start_times(make_costs(schedule, [ONE] * 2, Conditions(), 1))
    assert starts.tolist() == [[0.0, 0.5, 1.5, 2.5, 3.0], [0.5, 1.0, 1.5, 2.0, 2.5]]


@pytest.mark.parametrize(("method", "passes"), [("1f1b", 6), ("gpipe", 6), ("stashing", 0)])
def test_a_runtime_takes_its_time_of_each_pass_of_a_part(method, passes):
    options = {} if method == "stashing" else {"num_microbatches": 2}
    plain, slowed = (
        simulate(Schedule(method=method, **options), [stage, stage])
        for stage in (ONE, replace(ONE, runtime_s=0.25))
    )
    more_s = 1 / slowed.batches_per_second - 1 / plain.batches_per_second
    assert more_s == pytest.approx(passes * 0.25), "three passes on the way up, three down"


def test_of_a_zero_bubble_a_runtime_takes_no_time_where_nothing_is_sent():
    schedule = Schedule(method="zero-bubble", num_microbatches=2)
    stage = replace(ONE_AND_WEIGHTS, runtime_s=0.25)
    more = [schedule.seconds(op, stage) - schedule.seconds(op, ONE_AND_WEIGHTS) for op in Op]
    charged = {Op.FORWARD, Op.BACKWARD, Op.BACKWARD_INPUT}
    assert more == [0.25 * (op in charged) for op in Op]


def test_dni_by_hand():
    """One batch in flight: the second forward waits for the round trip and the fit."""
    below = StageTimes(forward_s=1.0, backward_weight_s=2.0, predict_s=1.0, fit_s=0.5)
    above = StageTimes(forward_s=1.0, backward_weight_s=3.0)
    schedule = Schedule(method="dni", max_in_flight=1)
    link = Link(latency_s=10.0, message_s=0.25)
    starts = start_times(make_costs(schedule, [below, above], Conditions(link=link), 2))
    # Forward 1 + 0.25; there at 11.25, taken in 0.25 + 1; backward 3 + 0.25 until 15.75; back at
    # 25.75, where the fit takes 0.5 + 0.25.
    below_starts = [0, 1.25, 4.25, 25.75, 26.5, 27.75, 30.75, 52.25]
    above_starts = [11.25, 12.5, 15.75, 37.75, 39, 42.25, np.nan, np.nan]
    np.testing.assert_array_equal(starts, [below_starts, above_starts])


def test_programs_that_wait_for_each_other_are_an_error():
    schedule = Schedule(method="gpipe")
    costs = make_costs(schedule, [EVEN] * 2, Conditions(), 1)
    costs.programs[0, 0] = Op.UPDATE  # nothing goes up
    with pytest.raises(EngineError, match="wait for messages that nobody sends"):
        start_times(costs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method='magic': one of backprop, ddp, gpipe"),
        ({"method": "gpipe", "num_microbatches": 0}, "must be 1 or more"),
        ({"method": "dni", "max_in_flight": 0}, "must be 1 or more"),
        ({"method": "dni", "num_microbatches": 2}, "does not cut batches"),
    ],
)
def test_what_cannot_be_a_schedule(options, message):
    with pytest.raises(ConfigError, match=message):
        Schedule(**options)


def test_what_has_no_fixed_order_has_no_program():
    with pytest.raises(ConfigError, match="no fixed program"):
        Schedule(method="dni-free").program(0, 2, 1)


def test_too_much_to_simulate_is_said_before_it_is_tried():
    schedule = Schedule(method="1f1b", num_microbatches=256)
    with pytest.raises(ConfigError, match="take fewer stages or micro-batches"):
        make_costs(schedule, [EVEN] * 10_000, Conditions(), 50)


def test_every_method_has_a_label():
    assert list(LABELS) == list(METHODS)
