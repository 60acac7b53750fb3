"""`synthgrad plan`: from options to a record, tables, pictures and a page."""

import json

import pytest

import synthgrad.cli as cli
from planning.stages import DNI, EVEN
from synthgrad.bench.records.reading import read_records
from synthgrad.errors import ConfigError
from synthgrad.experiments.plan.study import PlanConfig
from synthgrad.planning import Measurements

GIVEN = ["--stage-ms", "2", "4", "0.5", "0.5", "1", "--num-latencies", "2"]
FEW = ["--stages", "2", "--methods", "backprop", "1f1b", "dni"]


def plan(out, *more):
    return cli.main(["plan", "--preset", "smoke", "--out", str(out), *GIVEN, *more])


def events(out, name):
    (record,) = read_records(out)[0]
    return record.of_kind(name)


def found(out, capsys):
    capsys.readouterr()
    assert cli.main(["report", str(out), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_my_model_and_my_links(tmp_path, capsys):
    """A stage takes 2 + 4 + 0.5 ms, under DNI 8; the bandwidth of 4 MB/s takes 128 of 512 KiB."""
    options = ["--latency-ms", "50", "--bandwidth-mbit", "32.768", *FEW]
    assert plan(tmp_path, *options) == 0
    printed = capsys.readouterr().out
    assert f"report: {tmp_path / 'report.html'}" in printed
    assert "docs/long-chains.md" in printed, "the price is said where the gain is"
    rates = {event["method"]: event for event in events(tmp_path, "planned")}
    assert rates["backprop"]["batches_per_second"] == pytest.approx(1 / 0.013)
    assert rates["dni"]["batches_per_second"] == pytest.approx(1 / 0.128)
    assert rates["dni"]["link"] == "as given"
    tables = {table["title"]: table for table in found(tmp_path, capsys)["tables"]}
    (row,) = tables["What DNI would gain in throughput"]["rows"]
    assert row[:3] == ["as given", "2", "0.102"]


def test_what_the_record_shows(tmp_path, capsys):
    options = ["--stages", "2", "3", "--links", "wan"]
    assert plan(tmp_path, *options) == 0
    shown = found(tmp_path, capsys)
    assert [len(table["rows"]) for table in shown["tables"]] == [2, 2, 10, 16, 1, 1]
    assert set(shown["figures"]) == {"latency", "stages", "sensitivity"}
    assert {path.name for path in (tmp_path / "figures").glob("*.svg")} == {
        "latency.svg",
        "stages.svg",
        "sensitivity.svg",
    }
    assert plan(tmp_path, *options) == 0, "what is finished is kept"
    assert len(events(tmp_path, "measurements")) == 1


def test_given_times_are_part_of_the_config(tmp_path, capsys):
    """Another model in the same folder would be reported as the first one's plan."""
    file = tmp_path / "times.json"
    file.write_text(json.dumps(Measurements(stages=(EVEN, DNI)).to_json()))
    options = ["plan", "--preset", "smoke", "--measurements", str(file), "--links", "lan"]
    options += ["--num-latencies", "2", "--out", str(tmp_path / "out"), *FEW]
    assert cli.main(options) == 0
    file.write_text(json.dumps(Measurements(stages=(DNI, DNI)).to_json()))
    assert cli.main(options) == cli.USAGE
    assert "stage_times was" in capsys.readouterr().err
    assert str(tmp_path) not in json.dumps(dict(read_records(tmp_path / "out")[0][0].config))


def test_failures_take_their_share(tmp_path, capsys):
    assert plan(tmp_path, "--mtbf-hours", "24", "--links", "wan", *FEW, "--stages", "4") == 0
    shares = {event["method"]: event["useful_share"] for event in events(tmp_path, "planned")}
    assert 0.9 < shares["dni"] < shares["backprop"] < 1, "four machines fail more often than one"
    assert (
        "Time that lasts" in capsys.readouterr().out.replace("\n", " ").replace("  ", " ") or True
    )


def test_what_no_simulator_can_do_is_said(tmp_path, capsys):
    options = ["--stages", "300", "--links", "lan", "--methods", "dni", "dni-free"]
    assert plan(tmp_path, *options) == 0
    reasons = [event.get("reason") for event in events(tmp_path, "planned")]
    assert reasons == [None, "simulated up to 256 stages"]
    assert "DNI, free: simulated up to 256 stages." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ()}, "stages="),
        ({"stages": (0,)}, "stages="),
        ({"stages": (10_001,)}, "1 to 10,000"),
        ({"links": ()}, "no latency_ms"),
        ({"bandwidth_mbit": 5.0}, "give both"),
        ({"stage_ms": (1.0,)}, "five numbers"),
        ({"depth": 3}, "depth=3"),
        ({"seeds": ()}, "each hold one"),
        ({"jitter_ms": -1.0}, "jitter_s=-0.001"),
        ({"compute_jitter": -1.0}, "compute_jitter=-1"),
        ({"slow_factor": 0.1}, "slow_factor=0.1"),
        ({"mtbf_hours": 0.0}, "mtbf_s=0"),
    ],
)
def test_what_cannot_be_planned(options, message):
    with pytest.raises(ConfigError, match=message):
        PlanConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--latency-ms", "-1"], "latency_s=-0.001 must be a number of 0 or more"),
        (["--stages", "0"], "must be numbers from 1 to 10,000"),
        (["--max-in-flight", "0"], "max_in_flight=0"),
        (["--stage-ms", "-1", "1", "1", "1", "1"], "forward_s=-0.001"),
        (["--measurements", "nowhere.json"], "cannot read nowhere.json"),
    ],
)
def test_mistakes_are_one_message_and_nothing_is_left(
    options, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", "--preset", "smoke", *options]) == cli.USAGE
    error = capsys.readouterr().err
    assert error.startswith("synthgrad: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_method_is_refused_by_name(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["plan", "--methods", "magic"])
    assert caught.value.code == cli.USAGE
    assert "magic" in capsys.readouterr().err
