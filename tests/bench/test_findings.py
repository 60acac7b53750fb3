"""Findings and their page: hostile texts stay texts, pictures have their numbers beside them."""

import json
import shutil
from dataclasses import replace

import pytest
from fake_records import write_fake_records

from synthgrad.bench.figures.panels import Dot, Dots, Line, Panel, dots_data, lines_data
from synthgrad.bench.findings import KINDS, Findings, Picture
from synthgrad.bench.records.reading import read_records
from synthgrad.bench.report.findings_page import draw_picture, write_findings
from synthgrad.bench.scoring.cases import by_case, summarize_cases
from synthgrad.bench.scoring.claims import Claim
from synthgrad.bench.scoring.table import Table
from synthgrad.errors import ConfigError

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7 * 7 }}&amp;"
CLAIM = Claim(claim="c", paper="p", measured=HOSTILE, verdict="reproduced", reason="r")
TABLE = Table(title="t", columns=("Place", HOSTILE), rows=(("a", HOSTILE), ("b", "2")))
LINES = lines_data(
    [
        Panel(
            title="a panel",
            x_label="x",
            y_label="y",
            lines=[
                Line(label=HOSTILE, x=[1, 10], y=[0.0, None], low=[0, 0], high=[1, 1]),
                Line(label="$b$", x=[1, 10], y=[1, 2]),
            ],
            log_x=True,
            log_y=True,
            marks=[1.0],
        )
    ]
)
DOTS = dots_data(
    [
        Dots(
            title=f"panel {k}",
            x_label="error (%)",
            rows=[
                Dot(label="a", value=1.5, points=[1, 2], low=1, high=2, paper=3.0),
                Dot(label="b", value=None),
            ],
            log_x=True,
            marks=[2.0],
        )
        for k in range(4)
    ]
)
PICTURES = (
    Picture(name="curves", title=HOSTILE, kind="lines", data=LINES, note=HOSTILE),
    Picture(name="errors", title="errors", kind="dots", data=DOTS),
)
FINDINGS = Findings(claims=(CLAIM,), tables=(TABLE,), pictures=PICTURES)


def page(folder, findings=FINDINGS, **more):
    found = read_records(folder)
    path = write_findings(folder, findings, title=HOSTILE, description="d", found=found, **more)
    return path.read_text()


@pytest.fixture
def folder(tmp_path):
    write_fake_records(tmp_path)
    return tmp_path


def test_texts_from_records_stay_texts(folder):
    text = page(folder, cases={HOSTILE: "case/report.html"})
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "{{" in text
    assert text.count("{{ 7 * 7 }}") >= 6


def test_every_picture_is_there_with_its_numbers(folder):
    text = page(folder)
    for picture in PICTURES:
        drawn = (folder / "figures" / f"{picture.name}.svg").read_text()
        assert drawn == draw_picture(picture)
        assert drawn == draw_picture(picture), "the same numbers give the same bytes"
        stored = json.loads((folder / "figures" / f"{picture.name}.json").read_text())
        assert stored == json.loads(json.dumps(picture.data))
        assert f"figures/{picture.name}.svg" in text
    assert "<script>" not in (folder / "figures/curves.svg").read_text()


def test_the_page_names_what_is_missing(folder):
    text = page(folder)
    assert "no C++ compiler" in text
    assert "reproduced" in text


def test_nothing_found_still_makes_a_page(folder):
    text = page(folder, Findings())
    assert 'id="verdicts"' not in text
    assert 'id="tables"' not in text


def test_a_picture_has_a_name_for_a_file_and_a_known_kind():
    with pytest.raises(ConfigError, match="a-z"):
        Picture(name="../up", title="t", kind="lines", data=LINES)
    with pytest.raises(ConfigError, match="lines"):
        Picture(name="up", title="t", kind="pie", data=LINES)
    for kind in KINDS:
        Picture(name="up", title="t", kind=kind, data={})


def test_findings_as_json_hold_no_nan():
    text = json.dumps(FINDINGS.to_json(), allow_nan=False)
    assert set(json.loads(text)) == {"claims", "tables", "figures"}


def test_tables_end_with_the_claims_and_leave_out_what_has_no_rows():
    empty = Table(title="none", columns=("a",), rows=())
    tables = Findings(claims=(CLAIM,), tables=(empty, TABLE)).all_tables()
    assert [table.title for table in tables] == ["t", "The paper says / we measured / verdict"]


def test_cases_are_summarized_apart(tmp_path):
    for case, width in (("wide", 64), ("narrow", 8)):
        write_fake_records(tmp_path / case)
        for run in (tmp_path / case).rglob("run.json"):
            content = json.loads(run.read_text())
            content["config"] |= {"case": case, "width": width}
            run.write_text(json.dumps(content))
    records, problems = read_records(tmp_path)
    assert not problems, "other widths in other cases are no strangers"
    assert set(by_case(records)) == {"wide", "narrow"}
    summaries = summarize_cases(records)
    assert set(summaries) == {"wide", "narrow"}
    shutil.rmtree(tmp_path / "narrow")
    alone = summarize_cases(read_records(tmp_path)[0])
    assert alone["wide"] == summaries["wide"]


def test_a_record_without_a_case_is_of_the_only_one(folder):
    records, _ = read_records(folder)
    assert {record.case for record in records} == {""}
    assert list(summarize_cases(records)) == [""]
    stranger = replace(records[0], run={**records[0].run, "config": {"case": "x"}})
    assert stranger.case == "x"
