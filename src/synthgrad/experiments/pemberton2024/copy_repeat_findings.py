"""What copy-repeat shows: the longest sequences by arm, and what lambda does to the gradients."""

from collections.abc import Sequence

from synthgrad.bench.findings import Findings
from synthgrad.bench.records.events import RunRecord
from synthgrad.experiments.pemberton2024.shared_findings import Runs, claims, curve, cuts, table


def find(records: Sequence[RunRecord]) -> Findings:
    """Return tables, figures and verdicts of the runs that finished; a pure function."""
    runs = Runs.of(records, _modelled, "steps")
    return Findings(
        claims=tuple(claims(runs)),
        tables=(table(runs, "Longest sequence modelled, and gradients compared"),),
        pictures=(
            curve(runs, "modelled", "Longest sequence modelled", "steps"),
            *cuts(runs, "Of sequences as long as an arm had come to at its last look."),
        ),
    )


def _modelled(run: RunRecord) -> float:
    (reached,) = run.of_kind("reached")
    return reached["modelled"]
