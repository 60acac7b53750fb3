"""`synthgrad plan`: my model, my links: what would I gain, and from what latency on?

It simulates; nothing is trained. What it starts from is measured here on an MLP, or given: stage
times on the command line, a file of measurements, or a folder of records that hold some.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import synthgrad as sg
from synthgrad.bench.running.tasks import Task
from synthgrad.bench.running.threads import num_threads
from synthgrad.errors import ConfigError
from synthgrad.experiments.plan.findings import find
from synthgrad.experiments.study import Study
from synthgrad.planning import (
    METHODS,
    Case,
    Conditions,
    Failures,
    Link,
    Measurements,
    Method,
    Schedule,
    StageTimes,
    binding_latency,
    break_even_latency,
    measure_stages,
    read_measurements,
    sensitivities,
    useful_share,
)
from synthgrad.planning.links import LINKS, LinkName
from synthgrad.planning.schedules import PIPELINES_THAT_WAIT
from synthgrad.planning.simulate import MAX_STAGES, MAX_STAGES_OF_SIMPY

GIVEN_LINK = "as given"
# Stages: a curve and a bisection are dozens of simulations, and jitter makes each ten times longer.
_CURVES_UP_TO, _CURVES_WITH_JITTER_UP_TO = 64, 8
_MEASURED_STAGES = 4
_NUM_CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """What can be chosen.

    Args:
        stages: Numbers of stages, one a process. More than were measured are a larger model: inner
            stages are repeated; fewer are put together.
        links: What lies between them; or give a latency.
        latency_ms: One way, instead of links.
        bandwidth_mbit: With it; no limit by default.
        jitter_ms: Mean of what a message is late by.
        compute_jitter: Standard deviation of an operation's time over its mean.
        slow_factor: By how much the stage in the middle is slower than it would be.
        max_in_flight: Batches between two stages, where nobody waits for a gradient.
        mtbf_hours: Mean time between failures of one machine; none by default.
        restart_s: From a failure to the job at work again.
        checkpoint_every_s: Work between two checkpoints.
        measurements: A JSON file, or a folder of records, with stage times; else they are measured.
        stage_ms: Or these: forward, backward, update, predict and fit of one stage for a batch.
        activation_kib: With stage_ms: what goes up for a batch.
        batch_size: Examples in a batch.
        depth: Layers of the MLP that is measured, in 4 stages.
        width: Units of a layer.
        rounds: How often each stage is timed.
        num_latencies: Points of the curves over latency.
        methods: What is planned.
        seeds: Of jitter and failures; the first is taken.

    Raises:
        ConfigError: A value cannot work.
    """

    stages: tuple[int, ...] = (2, 8, 64)
    links: tuple[LinkName, ...] = ("machine", "lan", "wan", "home")
    latency_ms: float | None = None
    bandwidth_mbit: float | None = None
    jitter_ms: float = 0.0
    compute_jitter: float = 0.0
    slow_factor: float = 1.0
    max_in_flight: int = 4
    mtbf_hours: float | None = None
    restart_s: float = 120.0
    checkpoint_every_s: float = 600.0
    measurements: Path | None = None
    stage_ms: tuple[float, ...] = ()
    activation_kib: float = 512.0
    batch_size: int = 256
    depth: int = 16
    width: int = 512
    rounds: int = 9
    num_latencies: int = 13
    methods: tuple[Method, ...] = METHODS
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        if not self.stages or not all(1 <= count <= MAX_STAGES for count in self.stages):
            raise ConfigError(f"stages={self.stages} must be numbers from 1 to {MAX_STAGES:,}")
        if not self.links and self.latency_ms is None:
            raise ConfigError("links=() and no latency_ms: give one of them")
        if self.bandwidth_mbit is not None and self.latency_ms is None:
            raise ConfigError("bandwidth_mbit belongs to latency_ms: give both")
        if self.measurements is not None and self.stage_ms:
            raise ConfigError("give measurements or stage_ms, not both")
        if len(self.stage_ms) not in (0, 5):
            raise ConfigError(
                f"stage_ms={self.stage_ms} must be five numbers: forward, backward, update, "
                "predict, fit"
            )
        if self.depth < _MEASURED_STAGES or self.width < 1 or self.num_latencies < 2:
            raise ConfigError(
                f"depth={self.depth} must be {_MEASURED_STAGES} or more, width={self.width} 1 or "
                f"more and num_latencies={self.num_latencies} 2 or more"
            )
        if not self.seeds or not self.methods:
            raise ConfigError("seeds and methods must each hold one or more")
        # What these refuse is told before anything is measured.
        Schedule(method="dni", max_in_flight=self.max_in_flight)
        self.failures()
        for link in self.all_links(Link()).values():
            self.conditions(link)

    def conditions(self, link: Link) -> Conditions:
        """Return what the stages run under, over a link."""
        return Conditions(
            link=replace(link, jitter_s=self.jitter_ms / 1000),
            compute_jitter=self.compute_jitter,
            slow_factor=self.slow_factor,
            seed=self.seeds[0],
        )

    def failures(self) -> Failures | None:
        """Return how machines fail; None where they do not."""
        if self.mtbf_hours is None:
            return None
        return Failures(
            mtbf_s=3600 * self.mtbf_hours,
            restart_s=self.restart_s,
            checkpoint_every_s=self.checkpoint_every_s,
        )

    def given(self) -> Measurements | None:
        """Return the stage times that were given; None where they are to be measured.

        Raises:
            RecordError: a file of them is damaged.
        """
        if self.measurements is not None:
            return read_measurements(self.measurements)
        if not self.stage_ms:
            return None
        forward, backward, update, predict, fit = (ms / 1000 for ms in self.stage_ms)
        stage = StageTimes(
            forward_s=forward,
            backward_input_s=backward / 2,
            backward_weight_s=backward / 2,
            update_s=update,
            predict_s=predict,
            fit_s=fit,
            activation_bytes=1024 * self.activation_kib,
        )
        return Measurements(stages=(stage,), batch_size=self.batch_size)

    def all_links(self, measured: Link) -> dict[str, Link]:
        """Return the links by their names for people."""
        if self.latency_ms is None:
            return {LINKS[name].label: LINKS[name].link(measured) for name in self.links}
        bandwidth = {}
        if self.bandwidth_mbit is not None:
            bandwidth = {"bandwidth_bytes_per_s": self.bandwidth_mbit * 1e6 / 8}
        link = replace(measured, latency_s=self.latency_ms / 1000, latency_down_s=None)
        return {GIVEN_LINK: replace(link, **bandwidth)}


PRESETS = {
    "smoke": PlanConfig(
        stages=(2, 4), links=("lan", "wan"), width=64, batch_size=32, rounds=2, num_latencies=5
    ),
    "quick": PlanConfig(),
    "full": PlanConfig(stages=(2, 8, 64, 256, 1_000, 10_000), rounds=25),
    "paper": PlanConfig(stages=(2, 4, 8, 16, 32, 64, 128, 256, 1_000, 10_000), rounds=101),
}


def make_tasks(config: PlanConfig) -> list[Task]:
    """Return the one task; what was given is read here, so that a damaged file is told at once."""
    given = config.given()
    return [
        Task(
            name=f"plan-s{config.seeds[0]}",
            arm="plan",
            label="plan",
            seed=config.seeds[0],
            options={"stage_times": "measured here" if given is None else given.to_json()},
            measure=partial(measure, config, given),
        )
    ]


def measure(config: PlanConfig, given: Measurements | None) -> Iterator[Mapping[str, Any]]:
    """Yield what the plan starts from and everything that it says."""
    measured = measure_mlp(config) if given is None else given
    yield {"event": "measurements", **measured.to_json()}
    links = config.all_links(measured.link)
    is_random = config.conditions(Link()).is_random
    most = _CURVES_WITH_JITTER_UP_TO if is_random else _CURVES_UP_TO
    for label, link in links.items():
        yield {"event": "link", "label": label, **link.to_json()}
    for num_stages in config.stages:
        for label, link in links.items():
            case = _case(config, measured, num_stages, link)
            yield from _planned(config, case, label)
        if 2 <= num_stages <= most:
            yield from _over_latency(config, _case(config, measured, num_stages, Link()))
    fewest = min((count for count in config.stages if count > 1), default=most + 1)
    if fewest <= most:
        for label, link in links.items():
            yield from _sensitivity(_case(config, measured, fewest, link), label)


def measure_mlp(config: PlanConfig) -> Measurements:
    """Time the stages of an MLP with linear, label-conditioned synthesizers, on one thread."""
    width, size = config.width, config.batch_size
    layers = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(config.depth - 1)]
    x, y = torch.randn(size, width), torch.randint(0, _NUM_CLASSES, (size,))
    chain = sg.Chain.from_sequential(
        nn.Sequential(*layers, nn.Linear(width, _NUM_CLASSES)),
        stages=_MEASURED_STAGES,
        signal=sg.SyntheticGradient(synthesizer="linear", condition=sg.OneHot(_NUM_CLASSES)),
        example_inputs=x,
    )
    with num_threads(1):
        return measure_stages(
            chain,
            x,
            y,
            loss=nn.functional.cross_entropy,
            optimizer=partial(torch.optim.SGD, lr=1e-3, fused=True),
            num_classes=_NUM_CLASSES,
            rounds=config.rounds,
            source=(
                f"measured in one process of one thread: MLP of {config.depth} layers of {width} "
                f"units in {_MEASURED_STAGES} stages, batches of {size}, linear synthesizers"
            ),
        )


def _case(config: PlanConfig, measured: Measurements, num_stages: int, link: Link) -> Case:
    return Case(
        stages=measured.spread(num_stages),
        conditions=config.conditions(link),
        batch_size=measured.batch_size,
        max_in_flight=config.max_in_flight,
    )


def _planned(config: PlanConfig, case: Case, link: str) -> Iterator[Mapping[str, Any]]:
    """Yield what each method reaches in a case; those that cannot be simulated with the reason."""
    num_stages, failures = len(case.stages), config.failures()
    for method in config.methods:
        told = {"event": "planned", "link": link, "stages": num_stages, "method": method}
        if reason := _why_not(method, case):
            yield told | {"reason": reason}
            continue
        outcome = case.outcome(method)
        found = asdict(outcome) | told
        del found["schedule"]
        found["num_microbatches"] = outcome.schedule.num_microbatches
        if failures is not None:
            synchronous = outcome.schedule.is_synchronous
            found["useful_share"] = useful_share(
                failures,
                num_stages=1 if method == "backprop" else num_stages,
                # The first batch takes as long as all others where each empties the line.
                fill_s=0.0 if synchronous else outcome.first_batch_s,
                seed=config.seeds[0],
            )
        yield found


def _why_not(method: Method, case: Case) -> str:
    """Return why a method is not simulated in a case; empty where it is."""
    if method in ("dni-free", "stashing") and len(case.stages) > MAX_STAGES_OF_SIMPY:
        return f"simulated up to {MAX_STAGES_OF_SIMPY} stages"
    if method == "ddp" and len(case.stages) > case.batch_size:
        return "no more processes than examples in a batch"
    if method == "ddp" and not any(stage.parameter_bytes for stage in case.stages):
        return "not known how many bytes the parameters have"
    return ""


def _over_latency(config: PlanConfig, case: Case) -> Iterator[Mapping[str, Any]]:
    """Yield what methods reach at one latency after the other, and where they cross."""
    latencies = [
        10 ** (-5 + 5 * k / (config.num_latencies - 1)) for k in range(config.num_latencies)
    ]
    methods: list[Method] = [m for m in config.methods if m not in ("backprop", "ddp", "dni-free")]
    alone = case.outcome("backprop").batches_per_second
    for method in methods:
        yield {
            "event": "curve",
            "stages": len(case.stages),
            "method": method,
            "latency_s": latencies,
            "over_backprop": [
                case.with_latency(latency_s).outcome(method).batches_per_second / alone
                for latency_s in latencies
            ],
        }
    yield {
        "event": "thresholds",
        "stages": len(case.stages),
        "gain_at_no_latency": case.gain(),
        "gain_over_best_at_no_latency": case.gain("dni", PIPELINES_THAT_WAIT),
        "over_1f1b_s": break_even_latency(case),
        "over_best_s": break_even_latency(case, "dni", PIPELINES_THAT_WAIT),
        "best_below_backprop_s": break_even_latency(case, "backprop", PIPELINES_THAT_WAIT),
        "in_flight_binds_s": binding_latency(case),
    }


def _sensitivity(case: Case, link: str) -> Iterator[Mapping[str, Any]]:
    gain = case.gain()
    for one in sensitivities(case):
        yield {
            "event": "sensitivity",
            "link": link,
            "stages": len(case.stages),
            "gain": gain,
            **asdict(one),
        }


EXPERIMENT = Study(
    name="plan",
    title="A plan: what would a pipeline gain, and from what latency on?",
    description=(
        "Throughput of backprop in one process, pipelines that wait for gradients, and pipelines "
        "that do not, simulated from stage times over links from one machine to the open internet."
    ),
    presets=PRESETS,
    arms=("plan",),
    tasks=make_tasks,
    findings=find,
    place=("seeds", "measurements"),
)
