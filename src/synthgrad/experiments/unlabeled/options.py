"""DNI without labels: what units, size, target scale, rate and fitting first do for it.

The paper's own DNI without labels falls behind backprop as networks get deeper. Each arm changes
one option of the default, a linear synthesizer of per-example gradients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import synthgrad as sg
from synthgrad.bench.findings import Findings
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.running.job import Job
from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.cases import summarize_cases
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.experiments.accuracy import gap_interval, gap_text
from synthgrad.experiments.comparison import Comparison, Rates
from synthgrad.experiments.grid import SMOKE, Case, GridConfig, Method, Signal, make_jobs
from synthgrad.experiments.grid_findings import cost_table, error_table, errors_picture, gap_table
from synthgrad.experiments.jaderberg2017.numbers import recalled_error, unlike_paper
from synthgrad.experiments.methods import cdni
from synthgrad.experiments.networks import fcn
from synthgrad.experiments.verdicts import judged

ArmName = Literal[
    "backprop",
    "no-signal",
    "dni",
    "batch-mean",
    "normalized",
    "hidden-256",
    "fit-first",
    "rate-x10",
    "trace-1",
    "trace-1-rate-x10",
    "cdni",
]
ARMS: tuple[ArmName, ...] = get_args(ArmName)
LABELS: dict[ArmName, str] = {
    "backprop": "backprop",
    "no-signal": "no signal",
    "dni": "DNI, the default",
    "batch-mean": "DNI of batch-mean gradients",
    "normalized": "DNI, normalized targets",
    "hidden-256": "DNI, one hidden layer of 256",
    "fit-first": "DNI, fitted 200 times first",
    "rate-x10": "DNI, synthesizer rate x 10",
    "trace-1": "DNI, trace decay 1",
    "trace-1-rate-x10": "DNI, trace decay 1, synthesizer rate x 10",
    "cdni": "cDNI, for comparison",
}
_FIT_FIRST = 200


@dataclass(frozen=True, kw_only=True)
class OptionsConfig(GridConfig):
    """What can be chosen besides the options of every grid.

    Args:
        depths: Layers of each network, the last of them linear.
        width: Units of a hidden layer.
        iterations: Length of a run.
        num_seeds: So many of the seeds.
        arms: What to compare.
        dataset: The examples.
    """

    depths: tuple[int, ...] = (6,)
    width: int = 256
    iterations: int = 1_000
    num_seeds: int = 3
    arms: tuple[ArmName, ...] = ARMS
    dataset: Literal["mnist", "fashion-mnist"] = "mnist"


PRESETS = {
    "smoke": OptionsConfig(
        depths=(3,),
        width=8,
        iterations=2,
        num_seeds=1,
        **SMOKE,
    ),
    "quick": OptionsConfig(
        depths=(4,), iterations=300, num_seeds=1, num_snapshots=5, rounds=5, threads=1
    ),
    "full": OptionsConfig(),
    "paper": OptionsConfig(
        depths=(3, 4, 5, 6),
        iterations=500_000,
        num_seeds=5,
        learning_rate=3e-5,
        num_snapshots=200,
        device="cuda",
    ),
}


def jobs(config: OptionsConfig, preset: str, rates: Rates) -> Mapping[str, Job]:
    """Return what is run for each depth."""
    methods = [_method(name) for name in config.arms]
    cases = [
        Case(
            name=f"{config.dataset}-fcn{depth}",
            dataset=config.dataset,
            make_network=partial(fcn, depth=depth, width=config.width),
            facts={"network": "fcn", "depth": depth, "width": config.width},
            iterations=config.iterations,
            num_seeds=config.num_seeds,
            methods=methods,
        )
        for depth in config.depths
    ]
    return make_jobs(EXPERIMENT.name, preset, config, cases, rates)


def _method(name: ArmName) -> Method:
    signals: dict[ArmName, Signal | None] = {
        "backprop": None,
        "no-signal": sg.NoSignal(),
        "normalized": sg.SyntheticGradient(normalize_targets=True),
        "hidden-256": sg.SyntheticGradient(synthesizer=partial(sg.synthesizers.mlp, hidden=(256,))),
        "fit-first": sg.SyntheticGradient(fit_first=_FIT_FIRST),
        "trace-1": sg.SyntheticGradient(trace_decay=1.0),
        "trace-1-rate-x10": sg.SyntheticGradient(trace_decay=1.0),
        "cdni": partial(cdni, "linear"),
    }
    options: dict[ArmName, dict[str, object]] = {
        # Told that the loss is a sum, a synthesizer predicts what arrives: gradients of the mean.
        "batch-mean": {"reduction": "sum"},
        "rate-x10": {"synthesizer_rate_factor": 10.0},
        "trace-1-rate-x10": {"synthesizer_rate_factor": 10.0},
    }
    return Method(
        name=name,
        label=LABELS[name],
        signal=signals.get(name, sg.SyntheticGradient()),
        options=options.get(name, {}),
    )


def find(records: Sequence[RunRecord]) -> Findings:
    """Return tables and a picture; a pure function."""
    cases = summarize_cases(records)
    return Findings(
        claims=tuple(claim for case in cases if (claim := _behind(case, cases[case]))),
        tables=(error_table(cases), gap_table(cases, records), cost_table(cases)),
        pictures=errors_picture(cases),
    )


def _behind(case: str, arms: Mapping[str, ArmSummary]) -> Claim | None:
    """Judge the claim that DNI without labels falls behind backprop."""
    backprop = arms.get("backprop")
    gap = gap_interval(arms.get("dni"), backprop)
    ours, theirs = recalled_error(case, "dni"), recalled_error(case, "backprop")
    if gap is None or backprop is None or ours is None or theirs is None:
        return None
    verdict: Verdict
    if unlike := unlike_paper(case, backprop):
        verdict, reason = "not comparable", unlike
    elif gap.most < 0:
        verdict, reason = "reproduced", "It is behind in every seed."
    else:
        verdict, reason = "not reproduced", "It is not behind in every seed."
    return judged(
        claim=f"DNI without labels behind backprop on {case}",
        paper=f"{theirs - ours:+.1f} points of accuracy (recalled)",
        measured=f"{gap_text(gap)} points after {arms['dni'].iterations:,} iterations",
        num_seeds=gap.num_pairs,
        verdict=verdict,
        reason=reason,
    )


EXPERIMENT = Comparison(
    name="unlabeled/options",
    title="Synthetic gradients without labels: what their options do",
    description="DNI that does not see the labels, one option changed at a time.",
    presets=PRESETS,
    arms=ARMS,
    jobs=jobs,
    findings=find,
)
