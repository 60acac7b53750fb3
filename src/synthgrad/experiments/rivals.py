"""The rivals: what else opens the locks, each at its own best rate of one grid once it is tuned.

Backprop, DNI, cDNI, feedback alignment, direct feedback alignment and local losses on MNIST and on
CIFAR-10, compared at equal updates, at equal seconds and in memory. Tune first, else all have the
config's rate; the records, and so the page, tell which:

    synthgrad tune rivals --preset full
    synthgrad run rivals --preset full --tuned runs/rivals-full-tune
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from synthgrad.bench.findings import Findings
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.running.job import Job
from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.cases import summarize_cases
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.formats import MISSING
from synthgrad.bench.scoring.table import Table
from synthgrad.experiments.accuracy import gap_interval, gap_text
from synthgrad.experiments.comparison import Comparison, Rates
from synthgrad.experiments.grid import SMOKE, GridConfig, make_jobs, network_case
from synthgrad.experiments.grid_findings import (
    cost_table,
    error_table,
    errors_picture,
    gap_table,
)
from synthgrad.experiments.methods import methods
from synthgrad.experiments.verdicts import judged

ArmName = Literal["backprop", "dni", "cdni", "fa", "dfa", "local", "dgl", "predsim"]
ARMS: tuple[ArmName, ...] = get_args(ArmName)
# Iterations after 10 epochs of 196 batches of 256, the first place where we know the logs' numbers.
_LOGS_BEGIN = 1_960


@dataclass(frozen=True, kw_only=True)
class RivalsConfig(GridConfig):
    """What can be chosen besides the options of every grid.

    Args:
        arms: What to compare.
        mnist_depth: Layers of the fully connected network on MNIST.
        mnist_width: Units of a hidden layer.
        mnist_iterations: Length of its runs; 0 leaves it out.
        mnist_seeds: So many of the seeds.
        cifar10_depth: Layers of the convolutional network on CIFAR-10.
        cifar10_filters: Its filters.
        cifar10_iterations: Length of its runs; 0 leaves it out.
        cifar10_seeds: So many of the seeds.
    """

    arms: tuple[ArmName, ...] = ARMS
    mnist_depth: int = 4
    mnist_width: int = 256
    mnist_iterations: int = 600
    mnist_seeds: int = 3
    cifar10_depth: int = 3
    cifar10_filters: int = 16
    cifar10_iterations: int = 100
    cifar10_seeds: int = 3


PRESETS = {
    "smoke": RivalsConfig(
        mnist_depth=3,
        mnist_width=16,
        mnist_iterations=3,
        mnist_seeds=1,
        cifar10_iterations=0,
        **SMOKE,
    ),
    "quick": RivalsConfig(
        mnist_iterations=300,
        mnist_seeds=1,
        cifar10_iterations=0,
        num_snapshots=5,
        tune_seeds=(1000,),
        rounds=5,
    ),
    "full": RivalsConfig(),
    "paper": RivalsConfig(
        mnist_iterations=50_000,
        cifar10_filters=128,
        cifar10_depth=4,
        cifar10_iterations=20_000,
        cifar10_seeds=5,
        num_snapshots=100,
        device="cuda",
        rounds=200,
    ),
}


def jobs(config: RivalsConfig, preset: str, rates: Rates) -> Mapping[str, Job]:
    """Return what is run on each data set."""
    cases = [
        network_case(
            "mnist",
            "fcn",
            config.mnist_depth,
            config.mnist_width,
            iterations=config.mnist_iterations,
            num_seeds=config.mnist_seeds,
            methods=methods("fcn", config.arms),
        ),
        network_case(
            "cifar10",
            "cnn",
            config.cifar10_depth,
            config.cifar10_filters,
            iterations=config.cifar10_iterations,
            num_seeds=config.cifar10_seeds,
            methods=methods("cnn", config.arms),
        ),
    ]
    wanted = [case for case in cases if case.iterations]
    return make_jobs(EXPERIMENT.name, preset, config, wanted, rates)


def find(records: Sequence[RunRecord]) -> Findings:
    """Return tables and pictures; a pure function."""
    cases = summarize_cases(records)
    return Findings(
        claims=tuple(claim for case in cases if (claim := _order(case, cases[case]))),
        tables=(
            error_table(cases),
            gap_table(cases, records),
            cost_table(cases),
            _rates_table(records),
        ),
        pictures=errors_picture(cases),
    )


def _order(case: str, arms: Mapping[str, ArmSummary]) -> Claim | None:
    """Judge the order of methods that public logs end in: backprop and DGL, then cDNI, then DNI."""
    pairs = (("backprop", "cdni"), ("dgl", "cdni"), ("cdni", "dni"))
    found = [(pair, gap_interval(arms.get(pair[0]), arms.get(pair[1]))) for pair in pairs]
    gaps = {pair: gap for pair, gap in found if gap}
    if len(gaps) < len(pairs):
        return None
    iterations = min(arms[name].iterations for pair in pairs for name in pair)
    verdict: Verdict
    if not case.startswith("cifar10-cnn"):
        verdict, reason = "not comparable", "The logs are of a convolutional network on CIFAR-10."
    elif min(gap.least for gap in gaps.values()) > 0:
        verdict, reason = "reproduced", "Every step of that order holds in every seed."
    elif iterations < _LOGS_BEGIN:
        verdict = "not comparable"
        reason = (
            f"The order does not hold yet; the logs show it from {_LOGS_BEGIN:,} iterations on."
        )
    else:
        verdict, reason = "not reproduced", "Some step of that order does not hold in some seed."
    return judged(
        claim=f"order of backprop, DGL, cDNI and DNI on {case}",
        paper=(
            "public logs (eugenium/DGL; three convolutions, 2,000 epochs or 1,500 for DGL, one "
            "seed) have best test accuracies of 85.7, 85.6, 84.2 and 65.2 %: the first two are "
            "level, the others follow in this order"
        ),
        measured=(
            f"after {iterations:,} iterations, in points: "
            + ", ".join(f"{a} over {b} {gap_text(gap)}" for (a, b), gap in gaps.items())
        ),
        num_seeds=min(gap.num_pairs for gap in gaps.values()),
        verdict=verdict,
        reason=reason,
    )


def _rates_table(records: Sequence[RunRecord]) -> Table:
    """Return the rate of each arm in each case, and whether it was tuned."""
    rates: dict[str, dict[str, str]] = {}
    tuned = set[bool]()
    for record in records:
        if record.kind == "run" and record.config.get("learning_rate"):
            mark = " *" if record.tuned else ""
            rate = f"{record.config['learning_rate']:g}{mark}"
            rates.setdefault(record.label, {})[record.case] = rate
            tuned.add(record.tuned)
    names = sorted({case for by in rates.values() for case in by})
    return Table(
        title="Learning rate of each arm",
        columns=("Arm", *names),
        rows=tuple(
            (label, *(by.get(name, MISSING) for name in names)) for label, by in rates.items()
        ),
        notes=(
            "* tuned: the best on validation data of the grid that `synthgrad tune` tried."
            if True in tuned
            else "No rate was tuned, as far as the records say: they are the config's.",
        ),
    )


EXPERIMENT = Comparison(
    name="rivals",
    title="The rivals: backprop, synthetic gradients, feedback alignment, local losses",
    description="Same budget for all: accuracy at equal updates and seconds, and memory.",
    presets=PRESETS,
    arms=ARMS,
    jobs=jobs,
    findings=find,
)
