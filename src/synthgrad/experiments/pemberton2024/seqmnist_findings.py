"""What sequential MNIST shows: accuracy by arm, and what lambda does to the gradients."""

from collections.abc import Iterator, Sequence

from synthgrad.bench.findings import Findings
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.claims import Claim
from synthgrad.experiments.accuracy import gap_text, paired_gap
from synthgrad.experiments.pemberton2024.arms import bp
from synthgrad.experiments.pemberton2024.shared_findings import (
    Runs,
    better,
    boundary_cosines,
    claims,
    curve,
    cuts,
    table,
)
from synthgrad.experiments.verdicts import judged


def find(records: Sequence[RunRecord]) -> Findings:
    """Return tables, figures and verdicts of the runs that finished; a pure function."""
    runs = Runs.of(records, _test_accuracy, "% of test digits")
    return Findings(
        claims=(
            *claims(runs),
            *better(
                runs,
                bp(1.0, sees_label=True),
                bp(0.0, sees_label=True),
                "no paper: fewer bootstraps, less bias, with the label as well",
            ),
            *_less_bias_with_labels(runs),
        ),
        tables=(table(runs, "Test accuracy, and gradients compared"),),
        pictures=(
            curve(
                runs,
                "validation_accuracy_percent",
                "Validation accuracy",
                "% of validation digits",
            ),
            *cuts(runs, "The loss comes after the last cut."),
        ),
    )


def _test_accuracy(run: RunRecord) -> float:
    (test,) = run.of_kind("test")
    return test["accuracy_percent"]


def _first_cut(run: RunRecord) -> float:
    return boundary_cosines(run)[0]


def _less_bias_with_labels(runs: Runs) -> Iterator[Claim]:
    """Judge the bias where it can be seen: with the label, the true gradient can be predicted."""
    most, none = (runs.by_seed(bp(d, sees_label=True), _first_cut) for d in (1.0, 0.0))
    gap = paired_gap(most, none)
    if gap is None:
        return
    less = gap.least > 0
    yield judged(
        claim="farthest from the loss, a synthesizer that sees the label points better with "
        "lambda = 1 than with 0",
        paper="no paper: expected, as an error comes through one cut an update with lambda = 0",
        measured=f"{gap_text(gap)} in the cosine at the first cut, mean over the looks",
        num_seeds=gap.num_pairs,
        verdict="reproduced" if less else "not reproduced",
        reason=f"It does {'' if less else 'not '}in every seed.",
    )
