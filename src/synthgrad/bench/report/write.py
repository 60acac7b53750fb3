"""From a folder of records to its report: the page, the figures and the figures' data.

A pure function of the records: the same records give the same bytes, and no clock is read.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from synthgrad.bench.figures import data, paper
from synthgrad.bench.figures.data import Json
from synthgrad.bench.figures.thinning import thin
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.records.reading import Problem, read_records
from synthgrad.bench.report.page import render_page
from synthgrad.bench.scoring.summary import ClaimsFunction, summarize
from synthgrad.errors import RecordError

PAGE = "report.html"
FIGURES = "figures"

_DESCRIPTION = "What each arm reached, in what time, and how that compares with backprop."
_DRAWN: dict[str, tuple[str, Callable[[Json], str]]] = {
    "accuracy": ("curves", paper.accuracy_svg),
    "loss": ("curves", paper.loss_svg),
    "alignment": ("alignment", paper.alignment_svg),
    "timing": ("timing", paper.timing_svg),
    "accounting": ("accounting", paper.accounting_svg),
}


def write_report(
    directory: Path | str,
    claims: ClaimsFunction | None = None,
    *,
    title: str = "",
    description: str = _DESCRIPTION,
    found: tuple[list[RunRecord], list[Problem]] | None = None,
) -> Path:
    """Read the records of a folder and write their report into it.

    Writes `report.html`, which needs nothing else, and into `figures/` each figure as SVG with its
    numbers as JSON. A figure that the records have no numbers for is removed.

    Args:
        directory: the folder that `synthgrad run --out` filled.
        claims: what a paper claims, as `summarize` takes it.
        title: the page's title; by default the experiment's name.
        description: one paragraph below it.
        found: what `read_records(directory)` returned, if it has been called already.

    Returns:
        The path of the page.

    Raises:
        RecordError: there are no runs to report, their protocols do not fit together, or the report
            cannot be written.
    """
    directory = Path(directory)
    records, problems = found or read_records(directory)
    summaries = summarize(records, claims=claims)
    if not summaries:
        damages = "".join(f"\n  {problem}" for problem in problems)
        raise RecordError(
            f"{directory} holds no run that can be reported; fill it with "
            f"`synthgrad run EXPERIMENT --out {directory}`{damages}"
        )
    numbers = {
        "curves": data.curves(records, summaries),
        "alignment": data.alignment(records, summaries),
        "timing": data.timing(records, summaries),
        "accounting": data.accounting(summaries),
    }
    numbers = {name: figure for name, figure in numbers.items() if figure["arms"]}
    drawn = thin(numbers)
    pictures = {
        name: draw(drawn[source]) for name, (source, draw) in _DRAWN.items() if source in drawn
    }
    page = render_page(
        records,
        problems,
        summaries,
        drawn,
        pictures,
        title=title or " and ".join(dict.fromkeys(record.experiment for record in records)),
        description=description,
    )
    files = {f"{name}.json": json.dumps(figure) + "\n" for name, figure in numbers.items()}
    files |= {f"{name}.svg": picture for name, picture in pictures.items()}
    may_be = [*(f"{name}.svg" for name in _DRAWN), *(f"{s}.json" for s, _ in _DRAWN.values())]
    return write_page(directory, page, files, stale=[name for name in may_be if name not in files])


def write_page(
    directory: Path, page: str, figures: Mapping[str, str], *, stale: Iterable[str] = ()
) -> Path:
    """Write a page and its figures.

    Args:
        directory: where the page goes; the figures go into `figures/` in it.
        page: its text.
        figures: texts by file name.
        stale: figures of an earlier page that there are no numbers for now.

    Returns:
        The path of the page.

    Raises:
        RecordError: they cannot be written.
    """
    try:
        (directory / FIGURES).mkdir(exist_ok=True)
        for name in stale:
            (directory / FIGURES / name).unlink(missing_ok=True)
        for name, text in figures.items():
            _write_text(directory / FIGURES / name, text)
        _write_text(directory / PAGE, page)
    except OSError as error:
        raise RecordError(
            f"cannot write the report into {directory}: {error.strerror or error}; copy the folder "
            "to where it can be written"
        ) from error
    return directory / PAGE


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
