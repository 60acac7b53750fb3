"""Every experiment from its command to its page, on the real data, at its smallest."""

import json

import pytest

import synthgrad.cli as cli
from synthgrad.bench.records.reading import read_records
from synthgrad.experiments import EXPERIMENTS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_smoke(name, tmp_path, capsys):
    experiment = EXPERIMENTS[name]
    assert set(experiment.presets) >= {"smoke", "quick", "full", "paper"}
    assert cli.main(["run", name, "--preset", "smoke", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"report: {tmp_path / 'report.html'}" in printed
    records, problems = read_records(tmp_path)
    assert not problems
    assert {record.status for record in records} <= {"finished", "unavailable"}
    assert {record.arm for record in records if record.kind != "throughput"} == set(experiment.arms)
    page = (tmp_path / "report.html").read_text()
    assert "<table" in page
    assert 'src="data:image/svg+xml' in page
    assert cli.main(["report", str(tmp_path), "--format", "json"]) == 0
    json.loads(capsys.readouterr().out)
    assert cli.main(["run", name, "--preset", "smoke", "--out", str(tmp_path)]) == 0
    again, _ = read_records(tmp_path)
    assert len(again) == len(records), "what is finished is kept"
