"""Czarnecki et al. 2017, the unifying table as an experiment: every error signal on the same nets.

The paper sets the methods side by side in one language; here they also train, with one schedule and
one rate for all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from synthgrad.bench.findings import Findings
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.running.job import Job
from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.cases import by_case, summarize_cases
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.formats import MISSING
from synthgrad.bench.scoring.summary import runs_by_arm
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.accuracy import gap_interval, gap_text
from synthgrad.experiments.comparison import Comparison, Rates
from synthgrad.experiments.grid import SMOKE, GridConfig, make_jobs, network_case
from synthgrad.experiments.grid_findings import (
    cost_table,
    error_table,
    errors_picture,
    gap_table,
    median_cosines,
)
from synthgrad.experiments.methods import methods
from synthgrad.experiments.networks import Kind
from synthgrad.experiments.signals_table import signals_table
from synthgrad.experiments.verdicts import judged

ArmName = Literal[
    "backprop",
    "no-signal",
    "dni",
    "cdni",
    "fa",
    "sign-symmetric",
    "dfa",
    "kickback",
    "critic",
    "local",
    "dgl",
    "predsim",
]
ARMS: tuple[ArmName, ...] = get_args(ArmName)
_IN_THE_TABLE: tuple[ArmName, ...] = ("dni", "cdni", "fa", "dfa", "kickback", "critic", "local")


@dataclass(frozen=True, kw_only=True)
class SignalsConfig(GridConfig):
    """What can be chosen besides the options of every grid.

    Args:
        arms: What to compare.
        fcn_depth: Layers of the fully connected network.
        fcn_width: Units of a hidden layer.
        fcn_iterations: Length of its runs; 0 leaves it out.
        fcn_seeds: So many of the seeds.
        cnn_depth: Layers of the convolutional network.
        cnn_filters: Its filters.
        cnn_iterations: Length of its runs; 0 leaves it out.
        cnn_seeds: So many of the seeds.
        dataset: The examples.
    """

    arms: tuple[ArmName, ...] = ARMS
    fcn_depth: int = 4
    fcn_width: int = 256
    fcn_iterations: int = 1_000
    fcn_seeds: int = 3
    cnn_depth: int = 3
    cnn_filters: int = 16
    cnn_iterations: int = 100
    cnn_seeds: int = 2
    dataset: Literal["mnist", "fashion-mnist", "cifar10"] = "mnist"


PRESETS = {
    "smoke": SignalsConfig(
        fcn_depth=3,
        fcn_width=16,
        fcn_iterations=3,
        fcn_seeds=1,
        cnn_iterations=0,
        **SMOKE,
    ),
    "quick": SignalsConfig(
        fcn_iterations=300, fcn_seeds=1, cnn_iterations=0, num_snapshots=5, rounds=5
    ),
    "full": SignalsConfig(),
    "gpu": SignalsConfig(
        fcn_iterations=0, cnn_filters=64, cnn_iterations=1_000, cnn_seeds=3, device="cuda"
    ),
    "paper": SignalsConfig(
        fcn_iterations=500_000,
        fcn_seeds=5,
        cnn_filters=64,
        cnn_iterations=500_000,
        cnn_seeds=5,
        learning_rate=3e-5,
        num_snapshots=200,
        device="cuda",
    ),
}


def jobs(config: SignalsConfig, preset: str, rates: Rates) -> Mapping[str, Job]:
    """Return what is run for each network."""
    sizes: dict[Kind, tuple[int, int, int, int]] = {
        "fcn": (config.fcn_depth, config.fcn_width, config.fcn_iterations, config.fcn_seeds),
        "cnn": (config.cnn_depth, config.cnn_filters, config.cnn_iterations, config.cnn_seeds),
    }
    cases = [
        network_case(
            config.dataset,
            kind,
            depth,
            width,
            iterations=iterations,
            num_seeds=num_seeds,
            methods=methods(kind, config.arms),
        )
        for kind, (depth, width, iterations, num_seeds) in sizes.items()
        if iterations
    ]
    return make_jobs(EXPERIMENT.name, preset, config, cases, rates)


def find(records: Sequence[RunRecord]) -> Findings:
    """Return the tables, the picture and the verdict; a pure function.

    The paper has no numbers for them.
    """
    cases = summarize_cases(records)
    return Findings(
        claims=tuple(claim for case in cases if (claim := _all_train(case, cases[case]))),
        tables=(
            error_table(cases),
            gap_table(cases, records),
            _alignment_table(records),
            cost_table(cases),
            signals_table(),
        ),
        pictures=errors_picture(cases),
    )


def _all_train(case: str, arms: Mapping[str, ArmSummary]) -> Claim | None:
    """Judge whether everything in the paper's table trains the stages below it."""
    found = {name: gap_interval(arms.get(name), arms.get("no-signal")) for name in _IN_THE_TABLE}
    gaps = {name: gap for name, gap in found.items() if gap}
    if not gaps:
        return None
    not_better = [name for name, gap in gaps.items() if not gap.least > 0]
    verdict: Verdict
    if not_better:
        verdict = "not reproduced"
        reason = f"In some seed no better than no signal: {', '.join(not_better)}."
    elif absent := [name for name in _IN_THE_TABLE if name not in gaps]:
        verdict, reason = "not comparable", f"Not measured: {', '.join(absent)}."
    else:
        verdict, reason = "reproduced", "Each is better than no signal in every seed."
    return judged(
        claim=f"each signal trains what is below it on {case}",
        paper=(
            "one view of synthetic gradients, feedback alignment, direct feedback alignment, "
            "Kickback, critics and local losses, each something in place of the gradient "
            "(recalled), without numbers: expected to be better than nothing"
        ),
        measured=(
            "test accuracy over no signal's, in points: "
            + ", ".join(f"{arms[name].label} {gap_text(gap)}" for name, gap in gaps.items())
        ),
        num_seeds=min(gap.num_pairs for gap in gaps.values()),
        verdict=verdict,
        reason=reason,
    )


def _alignment_table(records: Sequence[RunRecord]) -> Table:
    """Return how well each signal points where the true gradient does, at the end of training."""
    rows = list[tuple[str, ...]]()
    names = list[str]()
    for case, group in by_case(records).items():
        for runs in runs_by_arm(group).values():
            if cosines := median_cosines(runs):
                names += [name for name in cosines if name not in names]
                cells = [f"{cosines[n]:.2f}" if n in cosines else MISSING for n in names]
                rows.append((case, runs[0].label, *cells))
    return Table(
        title="Cosine between what is handed down and the true gradient, at the end of training",
        columns=("Network", "Arm", *names),
        rows=tuple((*row, *[MISSING] * (len(names) + 2 - len(row))) for row in rows),
        notes=("On a fixed probe batch, median over seeds; interfaces from the bottom up.",),
        num_text_columns=2,
    )


EXPERIMENT = Comparison(
    name="czarnecki2017/signals",
    title="Every error signal on the same networks: the unifying table of Czarnecki et al. 2017",
    description="Backprop, DNI, cDNI, FA, DFA, Kickback, a critic and local losses, side by side.",
    presets=PRESETS,
    arms=ARMS,
    jobs=jobs,
    findings=find,
)
