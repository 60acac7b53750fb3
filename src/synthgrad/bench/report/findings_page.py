"""The page of an experiment's findings: verdicts, tables, pictures, and where they come from."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from synthgrad.bench.figures.data import Json
from synthgrad.bench.figures.dots import dots_svg
from synthgrad.bench.figures.lines import lines_svg
from synthgrad.bench.figures.maps import heat_maps_svg, rdm_svg, surface_svg
from synthgrad.bench.figures.timeline import timeline_svg
from synthgrad.bench.findings import Findings, Kind, Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.records.reading import Problem
from synthgrad.bench.report.listing import list_all
from synthgrad.bench.report.measured import describe_conditions
from synthgrad.bench.report.page import data_uri, number_of, render
from synthgrad.bench.report.write import write_page

_DRAWN: dict[Kind, Callable[[Json], str]] = {
    "lines": lines_svg,
    "dots": dots_svg,
    "dissimilarities": lambda data: rdm_svg(data["rdms"], data.get("separation")),
    "surfaces": lambda data: surface_svg(**data),
    "heat-maps": heat_maps_svg,
    "timeline": timeline_svg,
}


def write_findings(
    directory: Path,
    findings: Findings,
    *,
    title: str,
    description: str,
    found: tuple[Sequence[RunRecord], Sequence[Problem]],
    cases: Mapping[str, str] | None = None,
) -> Path:
    """Write the page of some findings, and each figure as SVG with its numbers as JSON.

    Args:
        directory: the folder of the records.
        findings: what they show.
        title: of the page.
        description: one paragraph below it.
        found: what `read_records(directory)` returned.
        cases: links to the pages of single cases, by their names.

    Returns:
        The path of the page.

    Raises:
        RecordError: it cannot be written.
    """
    records, problems = found
    pictures = findings.pictures
    drawn = {picture.name: draw_picture(picture) for picture in pictures}
    page = render(
        "findings.html.j2",
        own_scripts=["theme.js"],
        claims=findings.claims,
        title=title,
        description=description,
        overview=_overview(records),
        tables=[table for table in findings.tables if table.rows],
        pictures=pictures,
        images={name: data_uri(svg) for name, svg in drawn.items()},
        cases=cases or {},
        conditions=describe_conditions(records) if records else {},
        problems=problems,
        unfinished=[record for record in records if record.reason],
        groups=list_all(records),
    )
    files = {f"{name}.svg": svg for name, svg in drawn.items()}
    files |= {
        f"{picture.name}.json": json.dumps(picture.data, allow_nan=False) + "\n"
        for picture in pictures
    }
    return write_page(directory, page, files)


def draw_picture(picture: Picture) -> str:
    """Return a picture as the text of an SVG file."""
    return _DRAWN[picture.kind](picture.data)


def _overview(records: Sequence[RunRecord]) -> list[str]:
    """Return the size of the experiment, a few words each."""
    cpus = [str((record.run.get("machine") or {}).get("cpu") or "") for record in records]
    presets = [f"preset {record.preset}" for record in records if record.preset]
    return [
        number_of(len({record.arm for record in records if record.arm}), "arm"),
        number_of(len({record.seed for record in records}), "seed"),
        number_of(len(records), "record"),
        *dict.fromkeys(presets),
        *dict.fromkeys(cpu for cpu in cpus if cpu),
    ]
