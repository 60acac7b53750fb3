"""Czarnecki et al. 2017, deep networks: up to 50 hidden ReLU layers, one interface in the middle.

The lower half then learns from nothing but what a single synthesizer says. The paper asks whether
that still trains; how wide its networks were and how long they were trained is not known to us.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import synthgrad as sg
from synthgrad.bench.findings import Findings
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.running.job import Job
from synthgrad.bench.scoring.cases import summarize_cases
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.experiments.accuracy import Cases, Gap, errors, gap_interval, gap_text
from synthgrad.experiments.comparison import Comparison, Rates
from synthgrad.experiments.grid import SMOKE, Case, GridConfig, Method, make_jobs
from synthgrad.experiments.grid_findings import (
    error_table,
    errors_over,
    errors_picture,
    gap_table,
)
from synthgrad.experiments.networks import deep, middle
from synthgrad.experiments.verdicts import judged

ArmName = Literal["backprop", "no-signal", "dni", "cdni"]
LABELS: dict[ArmName, str] = {
    "backprop": "backprop",
    "no-signal": "lower half not trained",
    "dni": "one DNI in the middle",
    "cdni": "one cDNI in the middle",
}
# Points of accuracy.
_CLOSE = 1.0
_WELL_ABOVE = 5.0
_CHANCE = 10.0


@dataclass(frozen=True, kw_only=True)
class DeepConfig(GridConfig):
    """What can be chosen besides the options of every grid.

    Args:
        num_hidden: Hidden layers of each network; up to 50 in the paper.
        width: Units of each.
        iterations: Length of a run.
        num_seeds: So many of the seeds.
        arms: What to compare.
        dataset: The examples.
    """

    num_hidden: tuple[int, ...] = (2, 10, 50)
    width: int = 128
    iterations: int = 1_000
    num_seeds: int = 3
    arms: tuple[ArmName, ...] = tuple(LABELS)
    dataset: Literal["mnist", "fashion-mnist"] = "mnist"


PRESETS = {
    "smoke": DeepConfig(
        num_hidden=(2, 6),
        width=8,
        iterations=4,
        num_seeds=1,
        **SMOKE,
    ),
    "quick": DeepConfig(
        num_hidden=(2, 20), width=64, iterations=400, num_seeds=1, num_snapshots=5, rounds=5
    ),
    "full": DeepConfig(),
    "paper": DeepConfig(
        num_hidden=(2, 5, 10, 20, 30, 40, 50),
        width=256,
        iterations=500_000,
        num_seeds=5,
        learning_rate=3e-5,
        num_snapshots=200,
        device="cuda",
    ),
}


def jobs(config: DeepConfig, preset: str, rates: Rates) -> Mapping[str, Job]:
    """Return what is run for each depth, by case: "hidden-50", ..."""
    cases = [
        Case(
            name=f"hidden-{num_hidden}",
            dataset=config.dataset,
            make_network=partial(deep, num_hidden=num_hidden, width=config.width),
            facts={"network": "deep", "num_hidden": num_hidden, "width": config.width},
            iterations=config.iterations,
            num_seeds=config.num_seeds,
            methods=[m for m in _methods(num_hidden) if m.name in config.arms],
        )
        for num_hidden in config.num_hidden
    ]
    return make_jobs(EXPERIMENT.name, preset, config, cases, rates)


def _methods(num_hidden: int) -> list[Method]:
    cut = [middle(deep((1,), 2, num_hidden, 1))]
    signals: dict[ArmName, sg.ErrorSignal | None] = {
        "backprop": None,
        "no-signal": sg.NoSignal(),
        "dni": sg.SyntheticGradient(),
        "cdni": sg.SyntheticGradient(condition=sg.OneHot(10)),
    }
    return [
        Method(
            name=name,
            label=LABELS[name],
            signal=signal,
            options={"num_stages": 2} if signal is None else {"at": cut},
        )
        for name, signal in signals.items()
    ]


def find(records: Sequence[RunRecord]) -> Findings:
    """Return tables, pictures and verdicts; a pure function."""
    cases = summarize_cases(records)
    depths = {
        record.case: float(record.config["num_hidden"])
        for record in records
        if "num_hidden" in record.config
    }
    return Findings(
        claims=_claims(cases, depths),
        tables=(error_table(cases), gap_table(cases, records)),
        pictures=(
            *errors_over(
                cases,
                depths,
                x_label="hidden layers",
                title="Test error over the number of hidden layers",
            ),
            *errors_picture(cases),
        ),
    )


def _claims(cases: Cases, depths: Mapping[str, float]) -> tuple[Claim, ...]:
    known = sorted((case for case in cases if case in depths), key=depths.__getitem__)
    if not known:
        return ()
    deepest = known[-1]
    arms = cases[deepest]
    backprop, signal = arms.get("backprop"), arms.get("cdni")
    gap = gap_interval(signal, backprop)
    if gap is None or signal is None or backprop is None:
        return ()
    above = gap_interval(backprop, arms.get("no-signal"))
    verdict, reason = _judge(gap, above, 100 - max(errors(backprop), default=100.0))
    return (
        judged(
            claim=f"{depths[deepest]:.0f} hidden layers with one interface in the middle",
            paper="deep ReLU networks of up to 50 hidden layers train with one SG (recalled)",
            measured=(
                f"cDNI {gap_text(gap)} points of backprop's test accuracy after "
                f"{signal.iterations:,} iterations, and backprop {gap_text(above)} points over "
                "a lower half that is not trained"
            ),
            num_seeds=gap.num_pairs,
            verdict=verdict,
            reason=reason,
        ),
    )


def _judge(gap: Gap, above: Gap | None, least_accuracy: float) -> tuple[Verdict, str]:
    """Judge cDNI by backprop, if what backprop does for the lower half shows at all.

    Args:
        gap: of cDNI over backprop.
        above: of backprop over a lower half that is not trained.
        least_accuracy: of backprop, over its seeds.
    """
    if above is None or min(above.least, least_accuracy - _CHANCE) < _WELL_ABOVE:
        return "not comparable", (
            f"Backprop is not {_WELL_ABOVE:g} points above chance and above a lower half that is "
            "not trained in every seed: there is nothing to be close to."
        )
    if gap.least >= -_CLOSE:
        return "reproduced", f"In every seed it is within {_CLOSE:g} point of backprop."
    return "not reproduced", f"In some seed it is more than {_CLOSE:g} point below backprop."


EXPERIMENT = Comparison(
    name="czarnecki2017/deep",
    title="Deep networks with one interface in the middle, after Czarnecki et al. 2017",
    description="ReLU networks of up to 50 hidden layers, cut once in the middle.",
    presets=PRESETS,
    arms=tuple(LABELS),
    jobs=jobs,
    findings=find,
)
