"""The page itself: everything that it shows, put into its template.

Nothing in it is loaded from elsewhere, and its Content-Security-Policy makes a browser refuse to:
of scripts it allows exactly those that are in it, by their hashes.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from synthgrad.bench.figures.data import Json
from synthgrad.bench.figures.style import arm_style
from synthgrad.bench.figures.thinning import MAX_SEEDS
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.records.reading import Problem
from synthgrad.bench.report.listing import list_records
from synthgrad.bench.report.measured import describe_conditions, describe_seconds, options_table
from synthgrad.bench.report.tables import arms_table, iterations_table
from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.claims import Claim

_SCRIPTS = ("theme.js", "tables.js", "plots.js")


def render_page(
    records: Sequence[RunRecord],
    problems: Sequence[Problem],
    summaries: Sequence[ArmSummary],
    numbers: Mapping[str, Json],
    pictures: Mapping[str, str],
    *,
    title: str,
    description: str,
) -> str:
    """Return the report page as HTML.

    Args:
        records: everything that was read.
        problems: what could not be read.
        summaries: the arms, at least one.
        numbers: the figures' thinned data by name, without figures that have none.
        pictures: the figures as SVG by name, for a browser without JavaScript.
        title: the page's title.
        description: one paragraph below it.
    """
    return render(
        "report.html.j2",
        own_scripts=_SCRIPTS,
        libraries=[get_plotlyjs()],
        title=title,
        description=description,
        overview=_overview(records, summaries),
        claims=[claim for summary in summaries for claim in summary.claim],
        summaries=summaries,
        styles=[arm_style(index) for index in range(len(summaries))],
        arms=arms_table(summaries),
        iterations=iterations_table(summaries, records),
        numbers=numbers,
        images={name: data_uri(picture) for name, picture in pictures.items()},
        max_seeds=MAX_SEEDS,
        conditions=describe_conditions(records),
        seconds_in_short=describe_seconds(summaries)[0],
        seconds_in_full=describe_seconds(summaries)[1],
        options=options_table(summaries, records),
        problems=problems,
        groups=list_records(summaries, records),
    )


def render(
    template: str,
    *,
    own_scripts: Sequence[str],
    libraries: Sequence[str] = (),
    claims: Sequence[Claim],
    **values: Any,
) -> str:
    """Return a page made of `base.html.j2` and the template that extends it.

    Args:
        template: its file.
        own_scripts: files of scripts, beside the templates.
        libraries: scripts that come before them, as text.
        claims: what is claimed, with the verdicts.
        **values: what the templates show besides.
    """
    environment = Environment(
        loader=PackageLoader("synthgrad.bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    scripts = [*libraries, *(environment.get_template(name).render() for name in own_scripts)]
    return environment.get_template(template).render(
        policy=_policy(scripts),
        scripts=[Markup(script) for script in scripts],
        claims=claims,
        tally=Counter(claim.verdict for claim in claims),
        **values,
    )


def _overview(records: Sequence[RunRecord], summaries: Sequence[ArmSummary]) -> list[str]:
    """Return the size of the experiment, a few words each."""
    seeds = {record.seed for record in records if record.kind == "run"}
    cpus = [str((record.run.get("machine") or {}).get("cpu") or "") for record in records]
    presets = [f"preset {record.preset}" for record in records if record.preset]
    return [
        number_of(len(summaries), "arm"),
        number_of(len(seeds), "seed"),
        number_of(max(summary.iterations for summary in summaries), "iteration"),
        *dict.fromkeys(presets),
        *dict.fromkeys(cpu for cpu in cpus if cpu),
    ]


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun: "3 arms"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _policy(scripts: Sequence[str]) -> str:
    """Return the Content-Security-Policy: these scripts, styles within the page, no requests."""
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def data_uri(svg: str) -> str:
    """Return a picture as a link that needs no file."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
