"""The experiment `engines`: where decoupling pays on one device, and how far each engine could go.

Three kinds of measurement: what the machine does at its best, how fast every engine trains a
network (blocks in turn), and what each method has learned after the same updates.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from synthgrad.bench.running.tasks import Task
from synthgrad.bench.running.threads import thread_counts
from synthgrad.data import Dataset, load
from synthgrad.errors import ConfigError
from synthgrad.experiments.engines.cases import SIGNAL_LABELS, Case, Cut, parse_case
from synthgrad.experiments.engines.findings import find
from synthgrad.experiments.engines.peaks import measure_peaks
from synthgrad.experiments.engines.timing import time_case
from synthgrad.experiments.engines.trainers import FORMS, Form
from synthgrad.experiments.engines.training import train_case
from synthgrad.experiments.study import Study

Part = Literal["machine", "throughput", "training"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, kw_only=True)
class EnginesConfig:
    """What can be chosen.

    Args:
        cases: What is timed in every form: LAYERSxUNITS@BATCH:SIGNAL/LAYERS OF A STAGE,..., such as
            32x64@128:cdni/4,local/1. The networks are equal residual layers; with fcn- in front
            it is that of the papers.
        forms: Of backprop: eager, compiled, graph (a CUDA graph), compiled-graph.
        wavefront_forms: Of the wavefront. With eager comes the sequential engine.
        sweep: Further cases, for the maps.
        sweep_forms: Of backprop and of the wavefront there.
        training: Cases that are trained for their accuracy; backprop and each cut.
        parts: What to measure now. A record that holds a part of it can be gone on with.
        learning_rate: Of Adam, for backprop and for stages with a local loss.
        cdni_rate: Of Adam, for the stages of a residual network under cDNI; the papers' network
            keeps `learning_rate`. A chain of synthesizers may want slower stages.
        synthesizer_rate: Of Adam, for the synthesizers there, and likewise.
        head_rate: Of Adam, for the heads of local losses.
        decay_at: Shares of the updates after which the rates are divided by ten.
        examples: That every training run sees, and so makes examples / batch updates.
        num_snapshots: Evaluations of a training run.
        training_form: In which training runs; eager where that cannot run.
        seeds: One training run of each method for each.
        device: cpu, cuda, cuda:1, ...
        threads: For every arm, or best: each arm's own best.
        wavefront_threads: For the compiled wavefront, which compiles anew for each number: best, or
            eager, what its eager form is fastest with; it is the wavefront that may lose by it.
        training_threads: For training runs, whose result does not depend on it.
        rounds: Of the interleaved timing; a round holds one block of every arm.
        sweep_rounds: Likewise, of the sweep.
        block_iterations: Timed updates of a block.
        repeats: How often each peak of the machine is timed.
        data_dir: Where to look for the data first.

    Raises:
        ConfigError: A value cannot work.
    """

    cases: tuple[str, ...] = (
        "32x32@16:cdni/4,local/1",
        "32x64@32:cdni/4,cdni/8,local/1",
        "32x64@128:local/1",
        "16x256@256:cdni/4,local/4,local/1",
    )
    forms: tuple[Form, ...] = FORMS
    wavefront_forms: tuple[Form, ...] = FORMS
    sweep: tuple[str, ...] = ()
    sweep_forms: tuple[Form, ...] = ("eager", "compiled")
    training: tuple[str, ...] = cases
    parts: tuple[Part, ...] = PARTS
    learning_rate: float = 1e-3
    cdni_rate: float = 1e-3
    synthesizer_rate: float = 1e-3
    head_rate: float = 1e-3
    decay_at: tuple[float, ...] = (0.6, 0.85)
    examples: int = 160_000
    num_snapshots: int = 20
    training_form: Form = "compiled"
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"
    threads: int | Literal["best"] = "best"
    wavefront_threads: Literal["best", "eager"] = "best"
    training_threads: int = 1
    rounds: int = 200
    sweep_rounds: int = 30
    block_iterations: int = 2
    repeats: int = 7
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        for name in ("learning_rate", "cdni_rate", "synthesizer_rate", "head_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0")
        for name in ("examples", "num_snapshots", "block_iterations", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be 1 or more")
        if min(self.rounds, self.sweep_rounds) < 0:
            raise ConfigError("rounds and sweep_rounds must be 0 or more")
        if self.threads != "best" and self.threads < 1:
            raise ConfigError(f"threads={self.threads} must be 1 or more, or 'best'")
        if not all(0 < share < 1 for share in self.decay_at):
            raise ConfigError(f"decay_at={self.decay_at} holds shares of the run, between 0 and 1")
        timed = [parse_case(text).name for text in (*self.cases, *self.sweep)]
        trained = [parse_case(text).name for text in self.training]
        for names in (timed, trained):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ConfigError(
                    f"{', '.join(sorted(twice))} stands there twice: put all its cuts into one case"
                )


_PLACES = ((64, 16), (64, 256), (64, 1024), (256, 16), (256, 1024), (1024, 16), (1024, 256))
_PLACES_ON_CPU = ((32, 128), (32, 1024), (64, 16), (64, 1024), (256, 16), (256, 128), (1024, 16))

PRESETS = {
    "smoke": EnginesConfig(
        cases=("4x16@16:cdni/2,local/1",),
        forms=("eager", "graph"),
        wavefront_forms=("eager",),
        sweep=("4x32@16:cdni/2", "8x16@16:cdni/2"),
        sweep_forms=("eager",),
        training=("4x16@16:cdni/2,local/1",),
        examples=96,
        num_snapshots=2,
        training_form="eager",
        seeds=(0,),
        threads=1,
        rounds=2,
        sweep_rounds=2,
        block_iterations=1,
        repeats=1,
    ),
    "quick": EnginesConfig(
        cases=("32x32@16:cdni/4",),
        training=("32x32@16:cdni/4",),
        examples=16_000,
        threads=1,
        rounds=30,
        seeds=(0,),
    ),
    # What two cores do in an hour; the sweep holds one network a place of the maps.
    "full": EnginesConfig(
        sweep=(
            *(f"{layers}x64@32:local/1" for layers in (4, 8, 64)),
            *(f"32x{width}@{batch}:local/1" for width, batch in _PLACES_ON_CPU),
            "16x64@32:local/1,cdni/1,cdni/2,cdni/4,cdni/8",
        ),
        wavefront_threads="eager",
    ),
    # For one GPU, where the benchmark paper claims its speed-up; a few minutes.
    "paper": EnginesConfig(
        cases=("fcn-4x256@256:cdni/1", "32x256@256:cdni/4,local/1"),
        wavefront_forms=("eager", "graph"),
        sweep=(
            *(f"{layers}x256@256:local/1" for layers in (4, 8, 16, 64)),
            *(f"32x{width}@{batch}:local/1" for width, batch in _PLACES),
            "16x64@64:cdni/1,cdni/2,cdni/4,cdni/8",
        ),
        sweep_forms=("graph",),
        training=("fcn-4x256@256:cdni/1", "32x256@256:cdni/4,local/1"),
        examples=768_000,
        training_form="graph",
        device="cuda",
        threads=1,
    ),
}


def tasks(config: EnginesConfig) -> Sequence[Task]:
    """Return the machine's peaks, the timing of each case, the training runs, and the sweep."""
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device={config.device!r}, and torch finds no CUDA device here")
    return [
        *(_machine(config) if "machine" in config.parts else ()),
        *(_throughput(config, config.cases) if "throughput" in config.parts else ()),
        *(_training(config) if "training" in config.parts else ()),
        *(_throughput(config, config.sweep) if "throughput" in config.parts else ()),
    ]


def _machine(config: EnginesConfig) -> Iterator[Task]:
    measure = partial(measure_peaks, config.device, _counts(config), repeats=config.repeats)
    yield Task(name="machine", arm="machine", label="the machine", seed=0, measure=measure)


def _throughput(config: EnginesConfig, texts: Sequence[str]) -> Iterator[Task]:
    for case in map(parse_case, texts):
        yield Task(
            name=f"throughput/{case.name}",
            arm="throughput",
            label="throughput",
            seed=0,
            options=_describe(case),
            measure=partial(_time, config, case, swept=texts is config.sweep),
        )


def _training(config: EnginesConfig) -> Iterator[Task]:
    for seed in config.seeds:
        for text in config.training:
            case = parse_case(text)
            for cut in (None, *case.cuts):
                yield Task(
                    name=f"training/{case.name}-{cut.name if cut else 'backprop'}-s{seed}",
                    arm=f"wavefront-{cut.signal}" if cut else "backprop",
                    label=f"wavefront, {SIGNAL_LABELS[cut.signal]}" if cut else "backprop",
                    seed=seed,
                    options={**_describe(case), "cut": cut.name if cut else None},
                    measure=partial(_train, config, case, cut, seed),
                )


def _describe(case: Case) -> dict[str, Any]:
    return {
        "case": case.name,
        "network": case.kind,
        "layers": case.layers,
        "width": case.width,
        "batch_size": case.batch_size,
    }


def _time(config: EnginesConfig, case: Case, *, swept: bool) -> Iterator[Mapping[str, Any]]:
    return time_case(
        case,
        _data(config),
        (config.sweep_forms if swept else config.forms),
        (config.sweep_forms if swept else config.wavefront_forms),
        seed=0,
        rates=partial(_rates, config, case),
        counts=_counts(config),
        compiles_once=config.wavefront_threads == "eager",
        rounds=config.sweep_rounds if swept else config.rounds,
        block_iterations=config.block_iterations,
    )


def _train(
    config: EnginesConfig, case: Case, cut: Cut | None, seed: int
) -> Iterator[Mapping[str, Any]]:
    return train_case(
        case,
        cut,
        _data(config),
        config.training_form,
        seed=seed,
        rates=_rates(config, case, cut),
        updates=max(1, config.examples // case.batch_size),
        num_snapshots=config.num_snapshots,
        decay_at=config.decay_at,
        threads=config.training_threads,
    )


def _rates(config: EnginesConfig, case: Case, cut: Cut | None) -> tuple[float, float]:
    """Return the rates of the stages, and of what their signal fits."""
    if cut is None or cut.signal == "local":
        return config.learning_rate, config.head_rate
    if case.kind == "fcn":
        return config.learning_rate, config.learning_rate
    return config.cdni_rate, config.synthesizer_rate


def _data(config: EnginesConfig) -> Dataset:
    return load("mnist", config.data_dir).to(torch.device(config.device))


def _counts(config: EnginesConfig) -> tuple[int, ...]:
    return thread_counts() if config.threads == "best" else (config.threads,)


EXPERIMENT = Study(
    name="engines",
    title="Where decoupling pays on one device",
    description=(
        "Every stage at once (the wavefront engine) against the best of backprop, on MNIST: "
        "throughput, accuracy after the same updates, and the distance of each to what the "
        "machine allows."
    ),
    presets=PRESETS,
    arms=("machine", "throughput", "backprop", "wavefront-cdni", "wavefront-local"),
    tasks=tasks,
    findings=find,
    place=(
        *("seeds", "data_dir", "parts"),
        *("cases", "sweep", "training", "training_threads"),
    ),
)
