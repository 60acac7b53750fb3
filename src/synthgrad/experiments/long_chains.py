"""Long chains: 16 layers with an interface after each, and what makes them learn.

A chain of many synthesizers, each fitted to what the one above predicts, learns slowly. Each arm is
a remedy, with the same budget for all: shorter chains, some of the true gradient, targets that look
further up, targets of one size, and signals that need no chain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import synthgrad as sg
from synthgrad.bench.figures.panels import Line, Panel, lines_data
from synthgrad.bench.findings import Findings, Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.running.job import Job
from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.cases import by_case, summarize_cases
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.bench.scoring.summary import runs_by_arm
from synthgrad.experiments.accuracy import errors, gap_interval, gap_text
from synthgrad.experiments.comparison import Comparison, Rates
from synthgrad.experiments.grid import SMOKE, GridConfig, Method, Signal, make_jobs, network_case
from synthgrad.experiments.grid_findings import (
    cost_table,
    error_table,
    errors_picture,
    gap_table,
    median_cosines,
)
from synthgrad.experiments.methods import critic
from synthgrad.experiments.verdicts import judged

ArmName = Literal[
    "backprop",
    "cdni",
    "low-rank",
    "mix-01",
    "mix-05",
    "normalized",
    "trace-05",
    "trace-09",
    "trace-1",
    "stages-of-2",
    "low-rank-stages-of-2",
    "stages-of-4",
    "local",
    "local-every-4th",
    "critic",
]
ARMS: tuple[ArmName, ...] = get_args(ArmName)
LABELS: dict[ArmName, str] = {
    "backprop": "backprop",
    "cdni": "cDNI after every layer",
    "low-rank": "low-rank cDNI after every layer",
    "mix-01": "a tenth of the true gradient",
    "mix-05": "half of the true gradient",
    "normalized": "normalized targets",
    "trace-05": "trace decay 0.5",
    "trace-09": "trace decay 0.9",
    "trace-1": "trace decay 1",
    "stages-of-2": "cDNI after every 2nd layer",
    "low-rank-stages-of-2": "low-rank cDNI after every 2nd layer",
    "stages-of-4": "cDNI after every 4th layer",
    "local": "local loss after every layer",
    "local-every-4th": "local loss after every 4th, cDNI between",
    "critic": "critic after every layer",
}
# What should be better than what, by how many points at least, and what that shows.
_EXPECTED: tuple[tuple[ArmName, ArmName, float, str], ...] = (
    ("backprop", "cdni", 5.0, "a long chain of synthesizers learns slowly"),
    ("stages-of-4", "cdni", 0.0, "a shorter chain learns faster"),
    ("local", "cdni", 0.0, "local losses need no chain"),
)
_LEARNED = 50.0  # percent


@dataclass(frozen=True, kw_only=True)
class LongChainsConfig(GridConfig):
    """What can be chosen besides the options of every grid.

    Args:
        depth: Layers of the network, the last of them linear.
        width: Units of a hidden layer.
        iterations: Length of a run.
        num_seeds: So many of the seeds.
        arms: What to compare.
        dataset: The examples.
    """

    depth: int = 16
    width: int = 128
    iterations: int = 1_000
    num_seeds: int = 3
    arms: tuple[ArmName, ...] = ARMS
    dataset: Literal["mnist", "fashion-mnist"] = "mnist"


PRESETS = {
    "smoke": LongChainsConfig(
        depth=6,
        width=8,
        iterations=2,
        num_seeds=1,
        **SMOKE,
    ),
    "quick": LongChainsConfig(iterations=500, num_seeds=1, num_snapshots=5, rounds=5, threads=1),
    "full": LongChainsConfig(),
    "paper": LongChainsConfig(iterations=50_000, num_seeds=5, num_snapshots=50, device="cuda"),
}


def jobs(config: LongChainsConfig, preset: str, rates: Rates) -> Mapping[str, Job]:
    """Return what is run: one case, named by its network."""
    case = network_case(
        config.dataset,
        "fcn",
        config.depth,
        config.width,
        iterations=config.iterations,
        num_seeds=config.num_seeds,
        methods=[_method(name, config.depth) for name in config.arms],
    )
    return make_jobs(EXPERIMENT.name, preset, config, [case], rates)


def _method(name: ArmName, depth: int) -> Method:
    labels = sg.OneHot(10)
    cdni = sg.SyntheticGradient(condition=labels)
    low_rank = sg.SyntheticGradient(condition=labels, synthesizer="low-rank")
    local = sg.LocalLoss(num_classes=10)
    layers = [f"layer{k}" for k in range(1, depth)]
    every_4th = layers[3::4]
    signals: dict[ArmName, Signal | None] = {
        "backprop": None,
        "cdni": cdni,
        "low-rank": low_rank,
        "mix-01": sg.SyntheticGradient(condition=labels, mix=0.1),
        "mix-05": sg.SyntheticGradient(condition=labels, mix=0.5),
        "normalized": sg.SyntheticGradient(condition=labels, normalize_targets=True),
        "trace-05": sg.SyntheticGradient(condition=labels, trace_decay=0.5),
        "trace-09": sg.SyntheticGradient(condition=labels, trace_decay=0.9),
        "trace-1": sg.SyntheticGradient(condition=labels, trace_decay=1.0),
        "stages-of-2": cdni,
        "low-rank-stages-of-2": low_rank,
        "stages-of-4": cdni,
        "local": local,
        "local-every-4th": {layer: local if layer in every_4th else cdni for layer in layers},
        "critic": critic,
    }
    every_2nd = layers[1::2]
    cuts = {
        "stages-of-2": every_2nd,
        "low-rank-stages-of-2": every_2nd,
        "stages-of-4": every_4th,
    }
    options = {"at": cuts[name]} if name in cuts else {}
    return Method(name=name, label=LABELS[name], signal=signals[name], options=options)


def find(records: Sequence[RunRecord]) -> Findings:
    """Return tables and pictures; a pure function."""
    cases = summarize_cases(records)
    return Findings(
        claims=tuple(claim for case in cases for claim in _claims(case, cases[case])),
        tables=(error_table(cases), gap_table(cases, records), cost_table(cases)),
        pictures=(*errors_picture(cases), *_alignment_by_depth(records)),
    )


def _claims(case: str, arms: Mapping[str, ArmSummary]) -> list[Claim]:
    """Judge what we had measured before this experiment: long chains learn slowly, two remedies."""
    backprop = arms.get("backprop")
    learned = backprop is not None and 100 - max(errors(backprop), default=100.0) > _LEARNED
    made = list[Claim]()
    for arm, other, least, what in _EXPECTED:
        better, worse = arms.get(arm), arms.get(other)
        gap = gap_interval(better, worse)
        if better is None or worse is None or gap is None:
            continue
        verdict: Verdict
        if not learned:
            verdict = "not comparable"
            reason = f"Backprop itself is not above {_LEARNED:g} % in every seed."
        elif gap.least > least:
            verdict, reason = "reproduced", f"In every seed by more than {least:g} points."
        else:
            verdict = "not reproduced"
            reason = f"In some seed by {least:g} points or less."
        made.append(
            judged(
                claim=f"{what} on {case}",
                paper=(
                    "no paper: our earlier measurement (MNIST, 16 layers of 256 units, 2,500 to "
                    "3,000 updates) had backprop at 97.9 %, cDNI after every layer at 60 %, after "
                    "every 4th at 98.3 %, and local losses at 97.8 to 98.0 %"
                ),
                measured=(
                    f"{better.label} over {worse.label}: {gap_text(gap)} points after "
                    f"{better.iterations:,} iterations"
                ),
                num_seeds=gap.num_pairs,
                verdict=verdict,
                reason=reason,
            )
        )
    return made


def _alignment_by_depth(records: Sequence[RunRecord]) -> list[Picture]:
    """Return how well each signal points where the true gradient does, interface by interface."""
    panels = list[Panel]()
    for case, group in by_case(records).items():
        arms = runs_by_arm(group)
        for share, title in ((0.1, "after a tenth of the run"), (1.0, "at the end")):
            lines = [line for runs in arms.values() if (line := _line(runs, share))]
            if lines:
                panels.append(
                    Panel(
                        title=f"{case}, {title}",
                        x_label="interface, from the bottom",
                        y_label="cosine with the true gradient",
                        lines=lines,
                        marks=[0.0],
                    )
                )
    if not panels:
        return []
    return [
        Picture(
            name="alignment-by-depth",
            title="What comes down against the true gradient, by depth",
            kind="lines",
            data=lines_data(panels),
            note="Median over seeds, on a fixed probe batch.",
        )
    ]


def _line(runs: Sequence[RunRecord], share: float) -> Line | None:
    found = median_cosines(runs, share=share)
    if not found or not all(run.of_kind("alignment") for run in runs):
        return None
    cosines = {int(name.removeprefix("layer")): cosine for name, cosine in found.items()}
    places = sorted(cosines)
    return Line(label=runs[0].label, x=places, y=[cosines[place] for place in places])


EXPERIMENT = Comparison(
    name="long-chains",
    title="Long chains of synthesizers: why they learn slowly, and what helps",
    description="16 layers with an interface after each; every arm is a remedy.",
    presets=PRESETS,
    arms=ARMS,
    jobs=jobs,
    findings=find,
)
