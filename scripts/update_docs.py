"""Write the tables and pictures of README and docs from the committed records.

Every number that we publish comes from a record: a page marks the place with
`<!-- begin NAME -->` and `<!-- end NAME -->`, and what stands between is made here.

    python scripts/update_docs.py            # write
    python scripts/update_docs.py --check    # fail if a page does not match its record
"""

import argparse
import json
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from synthgrad.bench.findings import Findings
from synthgrad.bench.records.reading import read_records
from synthgrad.bench.report import write_report
from synthgrad.bench.report.findings_page import draw_picture
from synthgrad.bench.scoring.formats import MISSING
from synthgrad.bench.scoring.summary import summarize
from synthgrad.bench.scoring.table import (
    Table,
    accuracy_table,
    arms_table,
    claims_table,
    cost_table,
    iterations_table,
    list_claims,
    to_markdown,
)
from synthgrad.experiments import EXPERIMENTS, bisong2017
from synthgrad.experiments.comparison import Comparison
from synthgrad.experiments.pipeline.methods import LABELS
from synthgrad.experiments.signals_table import signals_table
from synthgrad.experiments.study import Study
from synthgrad.planning.checked import check_against, checks_table

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "benchmarks" / "records"
FULL = RECORDS / "bisong2017-full"
_NO_RECORD = "*No record yet.*"
FIGURES = ROOT / "docs" / "figures"
_NUM_ENGINES_TABLES = 7
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    blocks = make_blocks()
    stale = [page.name for page in PAGES if not sync(page, blocks, check=check)]
    pictures = figures()
    stale += [name for name, text in pictures.items() if not sync_figure(name, text, check=check)]
    stale += [path.name for path in FIGURES.glob("*.svg") if path.name not in pictures]
    if stale:
        sys.exit(f"not what the records say: {', '.join(stale)}. Run python scripts/update_docs.py")


def make_blocks() -> dict[str, str]:
    """Return the text of every block by name."""
    records, problems = read_records(FULL)
    if problems:
        sys.exit(f"damaged records: {problems}")
    summaries = summarize(records, claims=bisong2017.EXPERIMENT.claims)
    tables: dict[str, Callable[[], Table]] = {
        "arms": lambda: arms_table(summaries),
        "accuracy": lambda: accuracy_table(summaries),
        "cost": lambda: cost_table(summaries),
        "iterations": lambda: iterations_table(records),
        "claims": lambda: claims_table(summaries),
    }
    made = {f"bisong2017-{name}": to_markdown(make()) for name, make in tables.items()}
    made |= {"step-time": step_time(), "recurrent-cost": recurrent_cost()}
    made |= {"pipeline-link": pipeline_link(), "plan-check": plan_check(), "late-fit": late_fit()}
    made |= {"signals": to_markdown(signals_table())}
    made |= {e.folder_name: _NO_RECORD for e in EXPERIMENTS.values()}
    for name, findings in all_findings().items():
        made[name] = whole(name, findings)
        made |= {
            f"{name}-{number}": to_markdown(table)
            for number, table in enumerate(findings.tables, 1)
            if table.rows
        }
    for name in ("engines", "engines-gpu"):  # not every kind of device was at hand
        for number in range(1, _NUM_ENGINES_TABLES + 1):
            made.setdefault(f"{name}-{number}", "*Not recorded.*")
    return made


def whole(name: str, findings: Findings) -> str:
    """Return everything that an experiment found: verdicts, tables, pictures."""
    parts = [to_markdown(list_claims(findings.claims))] if findings.claims else []
    parts += [f"*{table.title}*\n\n{to_markdown(table)}" for table in findings.tables if table.rows]
    for picture in findings.pictures:
        parts.append(f"![{picture.title}](figures/{name}-{picture.name}.svg)")
        parts += [f"*{picture.title}.* {picture.note}"]
    return "\n\n".join(part.strip() for part in parts)


@cache
def all_findings() -> dict[str, Findings]:
    """Return what each experiment's committed records show, by the experiment's folder name.

    That is the name of the `full` record's findings; a record of a GPU has "-gpu" behind it, one
    with another synthesizer its name.
    """
    found = dict[str, Findings]()
    for experiment in EXPERIMENTS.values():
        for kind in ("full", "gpu", "low-rank", "one-convolution", "longer"):
            folder = RECORDS / f"{experiment.folder_name}-{kind}"
            if not folder.is_dir() or not isinstance(experiment, (Comparison, Study)):
                continue
            records, problems = read_records(folder)
            if problems:
                sys.exit(f"damaged records: {problems}")
            if experiment.findings:
                ending = "" if kind == "full" else f"-{kind}"
                found[experiment.folder_name + ending] = experiment.findings(records)
    return found


def step_time() -> str:
    record = json.loads((RECORDS / "step_time.json").read_text())
    names = {"fcn": "4-layer FCN, linear synthesizers", "cnn": "CIFAR-10 CNN-3"}
    rows = [
        f"| {names[network]} | {name} "
        f"| {r['time_ratio']:.2f} ({r['quartiles'][0]:.2f} to {r['quartiles'][1]:.2f}) "
        f"| {r['flop_bound']:.2f} |"
        for network, methods in record["results"].items()
        for name, r in methods.items()
    ]
    head = ["| network | signal | step time over backprop's | bound by operations |"]
    return "\n".join([*head, "| --- | --- | --- | --- |", *rows])


def plan_check() -> str:
    """Return simulated beside measured throughput, of all records of pipelines."""
    records = [
        record
        for folder in sorted(RECORDS.glob("pipeline-*-full"))
        for record in read_records(folder)[0]
    ]
    checks = check_against(records)
    if not checks:
        return (
            "*There is no record of a pipeline on several ranks yet to hold the simulator against.*"
        )
    return to_markdown(checks_table(checks))


def recurrent_cost() -> str:
    results = json.loads((RECORDS / "recurrent_cost.json").read_text())["results"]
    whole = {(row["horizon"], row["length"]): row["time"] for row in results["whole_sequence"]}
    lengths = sorted({length for _, length in whole})
    head = [
        "| T | over truncated BPTT with the same T | bound by multiplications | "
        + " | ".join(f"over BPTT through {length} steps" for length in lengths)
        + " |",
        "| ---: | --- | ---: | " + " | ".join("---:" for _ in lengths) + " |",
    ]
    rows = list[str]()
    for row in results["same_horizon"]:
        low, high = row["time"]["quartiles"]
        places = [(row["horizon"], length) for length in lengths]
        over_whole = [f"{whole[at]['ratio']:.2f}" if at in whole else MISSING for at in places]
        rows.append(
            f"| {row['horizon']} | {row['time']['ratio']:.2f} ({low:.2f} to {high:.2f}) "
            f"| {row['bound']:.2f} | {' | '.join(over_whole)} |"
        )
    return "\n".join([*head, *rows])


def late_fit() -> str:
    record = json.loads((RECORDS / "late_fit.json").read_text())
    found = dict[tuple[str, str], list[list[float]]]()
    for row in record["results"]:
        place = (str(row["delay"]), {None: MISSING, "again": "anew"}.get(*[row["late_fit"]] * 2))
        found.setdefault(place, []).append(row["val_accuracy"])
    rows = [
        f"| {' | '.join(place)} | "
        + " | ".join(f"{statistics.median(at):.1f}" for at in zip(*seeds, strict=True))
        + " |"
        for place, seeds in found.items()
    ]
    updates = [f"after {number:,} updates" for number in record["updates"]]
    head = ["| Delay | Late fit | " + " | ".join(updates) + " |"]
    return "\n".join([*head, "| ---: | --- |" + " ---: |" * len(updates), *rows])


def pipeline_link() -> str:
    path = RECORDS / "pipeline_link.json"
    if not path.exists():
        return _NO_RECORD
    results = json.loads(path.read_text())["results"]
    rates = list(dict.fromkeys(row["rate_mbit"] for row in results))
    found = {(row["method"], row["rate_mbit"]): row for row in results}

    def cell(method: str, rate: int | None) -> str:
        row = found[method, rate]
        low, high = row["interval"]
        return f"{row['over_backprop']:.2f} ({low:.2f} to {high:.2f})"

    titles = ["no cap" if rate is None else f"{rate:,} Mbit/s" for rate in rates]
    rows = [
        f"| {LABELS[method]} | {found[method, rates[0]]['bytes_a_batch'] / 1e6:.2f} | "
        f"{' | '.join(cell(method, rate) for rate in rates)} |"
        for method in dict.fromkeys(row["method"] for row in results)
    ]
    head = [
        f"| method | MB sent a batch | {' | '.join(titles)} |",
        f"| --- | ---: | {' | '.join('---' for _ in rates)} |",
    ]
    return "\n".join([*head, *rows])


def figures() -> dict[str, str]:
    """Return the pictures by file name, drawn from the record."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "record"
        shutil.copytree(FULL, copy)
        write_report(copy, claims=bisong2017.EXPERIMENT.claims)
        made = (copy / "figures").glob("*.svg")
        drawn = {f"bisong2017-{path.name}": path.read_text() for path in made}
    for name, findings in all_findings().items():
        for picture in findings.pictures:
            drawn[f"{name}-{picture.name}.svg"] = draw_picture(picture)
    return drawn


def sync(page: Path, blocks: dict[str, str], *, check: bool) -> bool:
    text = page.read_text()

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in blocks:
            sys.exit(f"{page.name} asks for {name!r}; there are {', '.join(blocks)}")
        return f"<!-- begin {name} -->\n{blocks[name].strip()}\n<!-- end {name} -->"

    pattern = r"<!-- begin (?P<name>[\w-]+) -->\n.*?<!-- end (?P=name) -->"
    made = re.sub(pattern, fill, text, flags=re.DOTALL)
    if not check and made != text:
        page.write_text(made)
    return not check or made == text


def sync_figure(name: str, text: str, *, check: bool) -> bool:
    path = FIGURES / name
    if check:
        return path.exists() and path.read_text() == text
    FIGURES.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return True


if __name__ == "__main__":
    main()
