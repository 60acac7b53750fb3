"""What a plan starts from: read back as it was written, and what is wrong is named."""

import json
import math

import pytest

from planning.stages import DNI, EVEN
from synthgrad.bench.records.record import RecordWriter
from synthgrad.errors import ConfigError, RecordError
from synthgrad.planning import Link, Measurements, StageTimes, read_measurements

GIVEN = Measurements(stages=(DNI, EVEN), link=Link(latency_s=0.1), batch_size=32, source="by hand")


def test_there_and_back(tmp_path):
    file = tmp_path / "times.json"
    file.write_text(json.dumps(GIVEN.to_json(), allow_nan=False))
    assert read_measurements(file) == GIVEN


def test_from_a_folder_of_records(tmp_path):
    run = {"kind": "study", "experiment": "any", "arm": "a", "seed": 0, "config": {}}
    with RecordWriter(tmp_path / "runs" / "a-s0", run) as writer:
        writer.event("measurements", **GIVEN.to_json())
        writer.event("finished")
    assert read_measurements(tmp_path) == GIVEN


def test_unknown_keys_are_left_alone_and_the_rest_has_defaults():
    given = {"stages": [{"forward_s": 1, "color": "red"}], "link": {"bandwidth_bytes_per_s": None}}
    found = Measurements.from_json(given)
    assert found.stages == (StageTimes(forward_s=1),)
    assert found.link == Link()
    assert found.link.bandwidths == (math.inf, math.inf)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[1]", "an object with 'stages'"),
        ("{}", "stages is None, not a list"),
        ('{"stages": []}', "is empty"),
        ('{"stages": [3]}', r"stages\[0\] is 3, not an object"),
        ('{"stages": [{"forward_s": 1}, {}]}', r"stages\[1\]: 'forward_s' is missing"),
        ('{"stages": [{"forward_s": -1}]}', r"stages\[0\]: forward_s=-1 must be"),
        ('{"stages": [{"forward_s": "1"}]}', r"stages\[0\]: forward_s='1' must be"),
        ('{"stages": [{"forward_s": NaN}]}', r"stages\[0\]: forward_s=nan must be"),
        ('{"stages": [{"forward_s": 0}]}', r"stages\[0\]: a stage with forward_s=0"),
        ('{"stages": [{"forward_s": 1}], "link": [1]}', r"link is \[1\], not an object"),
        ('{"stages": [{"forward_s": 1}], "link": {"latency_s": -1}}', "link: latency_s=-1 must"),
        (
            '{"stages": [{"forward_s": 1}], "link": {"bandwidth_bytes_per_s": 0}}',
            "link: bandwidth_bytes_per_s=0 must be above 0",
        ),
        ('{"stages": [{"forward_s": 1}], "batch_size": "many"}', "batch_size='many' must be"),
        ('{"stages": [{"forward_s": 1}], "schema": 7}', "schema is 7; this version reads 1"),
    ],
)
def test_a_damaged_file_is_named_and_its_field_too(tmp_path, content, message):
    file = tmp_path / "times.json"
    file.write_text(content)
    with pytest.raises(RecordError, match=message) as caught:
        read_measurements(file)
    assert str(file) in str(caught.value)


def test_what_is_not_there(tmp_path):
    with pytest.raises(RecordError, match=r"cannot read .*nowhere"):
        read_measurements(tmp_path / "nowhere")
    with pytest.raises(RecordError, match="holds no record with a 'measurements' event"):
        read_measurements(tmp_path)


def test_a_part_of_a_batch_pays_the_whole_overhead():
    stage = StageTimes(forward_s=1.0, overhead_s=0.2)
    assert stage.part(stage.forward_s, 4) == 0.2 + 0.8 / 4
    assert stage.part(0.1, 4) == 0.1, "never more than the whole"


@pytest.mark.parametrize("num_stages", [1, 2, 3, 4])
def test_fewer_stages_are_the_same_work_put_together(num_stages):
    measured = Measurements(stages=(EVEN, DNI, DNI, EVEN))
    stages = measured.spread(num_stages)
    assert len(stages) == num_stages
    for name in ("forward_s", "backward_s", "update_s", "parameter_bytes", "bytes_kept"):
        total = sum(getattr(stage, name) for stage in measured.stages)
        assert sum(getattr(stage, name) for stage in stages) == pytest.approx(total)
    assert stages[-1].activation_bytes == EVEN.activation_bytes


def test_more_stages_are_like_the_inner_ones():
    assert Measurements(stages=(EVEN, DNI, EVEN)).spread(5) == (EVEN, DNI, DNI, DNI, EVEN)
    assert Measurements(stages=(DNI,)).spread(3) == (DNI, DNI, DNI)
    first, middle, last = Measurements(stages=(DNI, EVEN)).spread(3)
    assert (first, last) == (DNI, EVEN)
    assert middle.forward_s == EVEN.forward_s
    assert middle.fit_s == DNI.fit_s


def test_no_stages():
    with pytest.raises(ConfigError, match="num_stages=0 must be 1 or more"):
        GIVEN.spread(0)
