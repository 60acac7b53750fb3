"""Simulated beside measured, on records that hold both."""

import pytest

from planning.stages import DNI
from synthgrad.bench.records.reading import read_records
from synthgrad.bench.records.record import RecordWriter
from synthgrad.errors import RecordError
from synthgrad.planning import Link, Measurements
from synthgrad.planning.checked import check_against, checks_table

MEASUREMENTS = Measurements(stages=(DNI, DNI), link=Link(latency_s=0.5)).to_json()
EVENTS = [
    # DNI takes 8 s on its slowest stage, and 2 + 4.5 + 1 + 2 + a round trip for each batch.
    {"method": "dni", "max_in_flight": 4, "batches_per_second": 0.125},
    {"method": "dni", "max_in_flight": 1, "added_latency_s": 4.75, "batches_per_second": 0.1},
    # GPipe, one micro-batch: 13 s of both stages, less the 0.5 s of the update above.
    {"method": "gpipe", "num_microbatches": 1, "batches_per_second": 1 / 13.5},
    {"method": "delayed", "batches_per_second": 1.0},
]


def write(folder, events, *, case="", measurements=MEASUREMENTS, experiment="pipeline/mlp"):
    run = {"kind": "study", "experiment": experiment, "arm": case or "a", "seed": 0}
    run["config"] = {"case": case} if case else {}
    with RecordWriter(folder / (case or "a"), run) as writer:
        if measurements is not None:
            writer.event("measurements", **measurements)
        for event in events:
            writer.event("measured", **event)
        writer.event("finished")
    return read_records(folder)[0]


def test_each_throughput_is_simulated_from_the_stage_times(tmp_path):
    checks = check_against(write(tmp_path, EVENTS))
    assert [check.schedule.method for check in checks] == ["dni", "dni", "gpipe"]
    assert [check.num_stages for check in checks] == [2, 2, 2]
    assert [check.simulated for check in checks] == pytest.approx([1 / 8, 1 / 20, 1 / 13.5])
    assert [check.off_percent for check in checks] == pytest.approx([0, -50, 0], abs=1e-9)


def test_the_table_says_how_many_are_near(tmp_path):
    table = checks_table(check_against(write(tmp_path, EVENTS)))
    assert table.rows[1] == ("DNI, ordered", "4750", "", "1", "0.100", "0.0500", "-50")
    assert table.rows[2][:4] == ("GPipe", "0", "1", "")
    assert table.notes == ("Within 15 %: 2 of 3.",)
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_networks_are_checked_from_their_own_times(tmp_path):
    write(tmp_path, EVENTS[:1], case="mlp")
    slow = Measurements(stages=(DNI, DNI), link=Link(latency_s=50)).to_json()
    checks = check_against(write(tmp_path, EVENTS[:1], case="cnn", measurements=slow))
    assert {check.network: check.simulated for check in checks} == pytest.approx(
        {"pipeline/mlp mlp": 1 / 8, "pipeline/mlp cnn": 4 / 109.5}
    )
    assert checks_table(checks).columns[0] == "Network"


def test_records_of_one_name_in_two_experiments(tmp_path):
    slow = Measurements(stages=(DNI, DNI), link=Link(latency_s=50)).to_json()
    mlp = write(tmp_path / "1", EVENTS[:1])
    cnn = write(tmp_path / "2", EVENTS[:1], measurements=slow, experiment="pipeline/cnn")
    checks = check_against([*mlp, *cnn])
    assert [check.simulated for check in checks] == pytest.approx([1 / 8, 4 / 109.5])


def test_a_record_without_times_of_its_own_takes_those_of_its_network(tmp_path):
    write(tmp_path, EVENTS[:1], case="mlp")
    (tmp_path / "mlp").rename(tmp_path / "first")
    checks = check_against(write(tmp_path, EVENTS[:1], case="mlp", measurements=None))
    assert [check.simulated for check in checks] == pytest.approx([1 / 8, 1 / 8])


def test_nothing_to_check(tmp_path):
    checks = check_against(write(tmp_path, EVENTS, measurements=None))
    assert checks == []
    assert checks_table(checks).rows == ()


@pytest.mark.parametrize(
    ("event", "measurements", "message"),
    [
        ({"method": "dni"}, MEASUREMENTS, "record a: 'batches_per_second' is missing"),
        (
            {"method": "dni", "batches_per_second": 1.0, "added_latency_s": -1},
            MEASUREMENTS,
            "record a: latency_s=-0.5 must be",
        ),
        (
            {"method": "gpipe", "batches_per_second": 1.0, "num_microbatches": 0},
            MEASUREMENTS,
            "record a: num_microbatches=0",
        ),
        (EVENTS[0], {"stages": [{}]}, r"record a: stages\[0\]: 'forward_s' is missing"),
    ],
)
def test_a_damaged_event_is_named(tmp_path, event, measurements, message):
    records = write(tmp_path, [event], measurements=measurements)
    with pytest.raises(RecordError, match=message):
        check_against(records)
