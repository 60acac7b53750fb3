"""The report page, and a golden one: `python tests/bench/test_report.py` accepts a change to it."""

import base64
import hashlib
import json
import re
import shutil
import tempfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from fake_records import FakeArm, write_fake_records

from synthgrad.bench.report import write_report
from synthgrad.bench.scoring.claims import Claim
from synthgrad.errors import RecordError

GOLDEN = Path(__file__).parent / "golden_report.txt"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7 * 7 }}&amp;"

FIGURES = [
    "accounting.json",
    "accounting.svg",
    "accuracy.svg",
    "alignment.json",
    "alignment.svg",
    "curves.json",
    "loss.svg",
    "timing.json",
    "timing.svg",
]
CLAIM = Claim(
    claim="Time of training",
    paper="over 3-fold faster (Bisong 2017, abstract)",
    measured="1.60 times backprop's time an iteration, n = 20 rounds",
    verdict="not reproduced",
    reason="in one process on one device nothing is asynchronous",
)


def claims_about_cdni(summaries):
    return {"cdni-linear": [CLAIM]}


class Page(HTMLParser):
    """A page taken apart: its elements, the text that is seen, and its scripts."""

    HIDDEN = ("script", "style", "noscript", "svg")

    def __init__(self, path):
        super().__init__()
        self.elements = []
        self.lines = []
        self.scripts = []
        self._open_hidden = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open_hidden += tag in self.HIDDEN
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._open_hidden -= tag in self.HIDDEN

    def handle_data(self, data):
        if self.lasttag == "script" and self._open_hidden:
            self.scripts[-1] += data
        elif not self._open_hidden and data.strip():
            self.lines.append(" ".join(data.split()))

    @property
    def text(self):
        return "\n".join(self.lines) + "\n"

    @property
    def data(self):
        return json.loads(self.scripts[0])

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def golden_text(folder):
    write_fake_records(folder)
    return Page(write_report(folder, claims_about_cdni, title="Golden")).text


def one_arm(**changes):
    arm = FakeArm(
        arm="backprop",
        label="backprop",
        signal=None,
        limit=98.6,
        pace=1.0,
        milliseconds=5.0,
        updates_per_iteration=4,
    )
    return (replace(arm, **changes),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_fake_records(tmp_path_factory.mktemp("records"))
    write_report(folder, claims_about_cdni, title="A title", description="A description.")
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page(folder / "report.html")


class TestPureFunction:
    def test_the_golden_report(self, tmp_path):
        assert golden_text(tmp_path) == GOLDEN.read_text(encoding="utf-8")

    def test_the_same_records_give_the_same_bytes(self, folder, tmp_path):
        copy = tmp_path / "elsewhere"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("report.html", "figures"))
        write_report(copy, claims_about_cdni, title="A title", description="A description.")
        written = sorted(path.relative_to(copy) for path in copy.rglob("*") if path.is_file())
        assert [path.name for path in written if path.parent.name == "figures"] == FIGURES
        for path in written:
            assert (copy / path).read_bytes() == (folder / path).read_bytes(), path

    def test_a_second_report_is_the_same_as_the_first(self, folder):
        before = (folder / "report.html").read_bytes()
        write_report(folder, claims_about_cdni, title="A title", description="A description.")
        assert (folder / "report.html").read_bytes() == before


class TestContent:
    def test_title_description_and_verdict(self, page):
        for text in ("A title", "A description.", *CLAIM.to_json().values()):
            assert text.lower() in page.text.lower()

    def test_without_claims_there_is_no_section_for_them(self, tmp_path):
        page = Page(write_report(write_fake_records(tmp_path)))
        assert "verdicts" not in [attributes.get("id") for _, attributes in page.elements]
        assert "#verdicts" not in [link["href"] for link in page.all("a")]

    def test_arms_that_are_missing_are_told_with_their_reason(self, page):
        for reason in ("no C++ compiler", "loss is NaN at iteration 247", "at iteration 347"):
            assert reason in page.text

    def test_damaged_records_are_named_and_the_rest_is_shown(self, tmp_path):
        write_fake_records(tmp_path)
        (tmp_path / "runs/backprop-s0/run.json").write_text('{"schema": "1.0", ')
        with (tmp_path / "runs/no-signal-s1/events.jsonl").open("a") as events:
            events.write("garbage\n" + json.dumps({"event": "finished", "iteration": 600}) + "\n")
        text = Page(write_report(tmp_path)).text
        assert "runs/backprop-s0/run.json" in text
        assert "runs/no-signal-s1/events.jsonl" in text
        assert "runs/backprop-s1" in text

    def test_every_number_of_the_arms_leads_to_its_records(self, folder):
        tables = re.findall(r"<table data-sortable>.*?</table>", _html(folder), re.DOTALL)
        assert len(tables) == 2
        ids = set(re.findall(r' id="([^"]+)"', _html(folder)))
        num_numbers = 0
        for cell in re.findall(r"<td[^>]*>(.*?)</td>", "".join(tables), re.DOTALL):
            if re.search(r"\d|missed", cell):
                num_numbers += 1
                [href] = re.findall(r'<a href="([^"]+)">', cell)
                if href.startswith("#"):
                    assert href[1:] in ids
                else:
                    assert (folder / unquote(href)).is_file()
        assert num_numbers > 100

    def test_a_number_from_one_record_leads_right_to_it(self, tmp_path):
        page = Page(write_report(write_fake_records(tmp_path, arms=one_arm(), num_seeds=1)))
        assert "runs/backprop-s0/events.jsonl" in [link["href"] for link in page.all("a")]
        assert "#records-0" not in [link["href"] for link in page.all("a")]

    def test_every_record_is_listed_with_its_files(self, folder, page):
        links = {link["href"] for link in page.all("a")}
        files = [path for path in folder.rglob("*") if path.name in ("run.json", "events.jsonl")]
        assert len(files) == 2 * 19
        assert {path.relative_to(folder).as_posix() for path in files} <= links

    def test_links_to_files_of_the_report_hold(self, folder, page):
        links = [link["href"] for link in page.all("a") if link["href"].startswith("figures/")]
        assert links
        assert all((folder / link).is_file() for link in links)

    def test_what_is_drawn_is_what_the_files_say(self, folder, page):
        figure = json.loads((folder / "figures/accounting.json").read_text())
        assert page.data["accounting"] == figure

    def test_tables_can_be_read_without_seeing_them(self, page):
        assert len(page.all("caption")) == len(page.all("table"))
        assert all(head.get("scope") for head in page.all("th"))

    def test_without_javascript_the_figures_are_pictures(self, folder):
        [*pictures] = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)', _html(folder))
        assert [base64.b64decode(picture) for picture in pictures] == [
            (folder / f"figures/{name}.svg").read_bytes()
            for name in ("accuracy", "loss", "accounting", "timing", "alignment")
        ]


class TestEdges:
    def test_without_a_timing_record_stale_figures_go(self, tmp_path):
        write_report(write_fake_records(tmp_path))
        shutil.rmtree(tmp_path / "throughput")
        page = Page(write_report(tmp_path))
        assert not (tmp_path / "figures/timing.svg").exists()
        assert not (tmp_path / "figures/timing.json").exists()
        assert "timing" not in page.data
        assert "accounting" in page.data  # speed can be told from the runs

    def test_backprop_alone(self, tmp_path):
        page = Page(write_report(write_fake_records(tmp_path, arms=one_arm(), num_rounds=0)))
        assert list(page.data) == ["curves"]

    def test_without_backprop_there_are_no_ratios(self, tmp_path):
        arms = one_arm(arm="no-signal", label="no signal")
        page = Page(write_report(write_fake_records(tmp_path, arms=arms)))
        assert list(page.data) == ["curves"]
        assert "no signal" in page.text

    def test_only_arms_that_cannot_run(self, tmp_path):
        arms = one_arm(unavailable="data not found: put train-images there")
        page = Page(write_report(write_fake_records(tmp_path, arms=arms, num_rounds=0)))
        assert page.data == {}
        assert "not available: data not found: put train-images there" in page.text

    def test_a_share_of_the_iterations_without_a_snapshot_of_its_own_is_not_shown(self, tmp_path):
        folder = write_fake_records(tmp_path, arms=one_arm(), iterations=12, num_snapshots=2)
        lines = Page(write_report(folder)).lines
        shares = lines[
            lines.index("Number of iterations varied") : lines.index("Accuracy and loss")
        ]
        assert [line for line in shares if line.endswith("iterations")] == [
            "6 iterations",
            "12 iterations",
        ]

    def test_records_of_another_make(self, tmp_path):
        """Nothing beyond what a record must have."""
        folder = tmp_path / "runs/backprop-s0"
        folder.mkdir(parents=True)
        run = {"schema": "1.0", "protocol": "1.0", "kind": "run", "experiment": "mine"}
        run |= {"arm": "backprop", "seed": 0, "config": {"at": {"name": None}}}
        run |= {"started": "2026-01-02T03:04:05+00:00"}
        (folder / "run.json").write_text(json.dumps(run))
        assert "interrupted" in Page(write_report(tmp_path)).text

    def test_trials_of_tuning_are_listed_and_not_compared(self, tmp_path):
        write_fake_records(tmp_path)
        trial = tmp_path / "tune/backprop-s100-lr0.01"
        shutil.copytree(tmp_path / "runs/backprop-s0", trial)
        run = json.loads((trial / "run.json").read_text()) | {"kind": "tune", "seed": 100}
        (trial / "run.json").write_text(json.dumps(run))
        page = Page(write_report(tmp_path))
        assert "tune/backprop-s100-lr0.01" in page.text
        assert [seed["seed"] for seed in page.data["curves"]["arms"][0]["seeds"]] == [0, 1, 2]

    def test_nothing_to_report(self, tmp_path):
        with pytest.raises(RecordError, match="holds no run that can be reported"):
            write_report(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_only_damaged_records_are_named_in_the_error(self, tmp_path):
        (tmp_path / "runs/backprop-s0").mkdir(parents=True)
        (tmp_path / "runs/backprop-s0/run.json").write_text("{")
        with pytest.raises(RecordError, match=r"runs/backprop-s0/run\.json: damaged"):
            write_report(tmp_path)

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        write_fake_records(tmp_path)
        (tmp_path / "report.html").mkdir()
        with pytest.raises(RecordError, match="cannot write the report"):
            write_report(tmp_path)


class TestSafety:
    def test_nothing_is_loaded_from_elsewhere(self, folder, page):
        for tag, attributes in page.elements:
            for name in ("src", "href", "srcset", "data", "action", "poster"):
                value = attributes.get(name) or ""
                assert "//" not in value or value.startswith("data:"), (tag, value)
        assert not {"iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
        styles = re.findall(r"<style>.*?</style>", _html(folder), re.DOTALL)
        assert not [style for style in styles if "url(" in style or "@import" in style]

    def test_only_its_own_scripts_may_run(self, page):
        [policy] = [
            meta["content"]
            for meta in page.all("meta")
            if meta.get("http-equiv") == "Content-Security-Policy"
        ]
        directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
        assert directives["default-src"] == "'none'"
        digests = [hashlib.sha256(script.encode()).digest() for script in page.scripts[1:]]
        hashes = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
        assert directives["script-src"].split() == hashes
        names = {name for _, attributes in page.elements for name in attributes}
        assert not [name for name in names if name.startswith("on")]

    def test_texts_of_records_stay_texts(self, tmp_path):
        arms = (
            *one_arm(label=HOSTILE),
            *one_arm(arm="other", label="other", unavailable=HOSTILE),
        )
        write_fake_records(tmp_path, arms=arms, experiment=HOSTILE)
        for path in tmp_path.glob("runs/*/run.json"):
            run = json.loads(path.read_text())
            run["machine"] = {"cpu": HOSTILE, HOSTILE: HOSTILE, "load_average": None}
            run["packages"] = {HOSTILE: HOSTILE}
            run["git"] = {"commit": HOSTILE, "dirty": True}
            run["config"] = {HOSTILE: HOSTILE, "only": run["arm"] + HOSTILE}
            run["argv"] = [HOSTILE]
            run["preset"] = HOSTILE
            path.write_text(json.dumps(run))
        with (tmp_path / "runs/backprop-s0/events.jsonl").open("a") as events:
            event = {"event": "alignment", "iteration": 1, "interfaces": {HOSTILE: {"cosine": 1}}}
            events.write(json.dumps(event) + "\n")
        (tmp_path / "runs/<b>").mkdir()
        (tmp_path / "runs/<b>/run.json").write_text("{")
        claim = Claim(**(CLAIM.to_json() | {"claim": HOSTILE, "reason": HOSTILE}))
        report = write_report(
            tmp_path, lambda arms: {"backprop": [claim]}, title=HOSTILE, description=HOSTILE
        )
        page = Page(report)
        assert len(page.scripts) == 5  # the figures' data, Plotly, and three of our own
        assert not page.all("b")
        assert not [image for image in page.all("img") if image.get("src") == "x"]
        assert page.data["curves"]["arms"][0]["label"] == HOSTILE
        assert page.data["alignment"]["interfaces"] == [HOSTILE]
        assert page.text.count(" ".join(HOSTILE.split())) > 15


def _html(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        GOLDEN.write_text(golden_text(Path(temporary)), encoding="utf-8")
