"""Bisong 2017 (arXiv 1712.08314): synthetic gradients against backprop on MNIST.

The paper's digits are lost in the text that we have. Sizes and schedule are those of Jaderberg et
al. 2017, which its likely ancestor used too; the recipe is 500,000 iterations (preset `paper`), and
the other presets shrink it in proportion.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import synthgrad as sg
from synthgrad.bench.running.arms import Arm
from synthgrad.bench.running.job import Job
from synthgrad.bench.running.learner import Learner
from synthgrad.bench.running.plan import Plan
from synthgrad.bench.running.throughput import ThroughputPlan
from synthgrad.compiler import missing_compiler
from synthgrad.data import Dataset, load
from synthgrad.errors import ConfigError
from synthgrad.experiments.bisong2017_claims import judge
from synthgrad.experiments.comparison import Comparison
from synthgrad.experiments.engine_learners import (
    Recipe,
    make_pipeline_learner,
    make_wavefront_learner,
)
from synthgrad.experiments.networks import fcn
from synthgrad.experiments.training import make_learner

ArmName = Literal[
    "backprop",
    "backprop-compiled",
    "no-signal",
    "dni-linear",
    "dni-mlp",
    "cdni-linear",
    "cdni-mirror",
    "cdni-mirror-p02",
]

LABELS: dict[ArmName, str] = {
    "backprop": "backprop",
    "backprop-compiled": "backprop (compiled)",
    "no-signal": "no signal",
    "dni-linear": "DNI (linear)",
    "dni-mlp": "DNI (MLP 2 x 1024)",
    "cdni-linear": "cDNI (linear)",
    "cdni-mirror": "cDNI (mirror)",
    "cdni-mirror-p02": "cDNI (mirror), p = 0.2",
}
UPDATE_PROBABILITY = 0.2


@dataclass(frozen=True, kw_only=True)
class Bisong2017Config:
    """What can be chosen; everything but the last block decides the numbers of a run.

    Args:
        dataset: The examples; all but mnist must be on this machine (`synthgrad data get`).
        depth: Layers of the network, the last of them linear; each is a stage.
        width: Units of a hidden layer.
        batch_size: Examples in a batch.
        learning_rate: Of Adam, for stages and synthesizers alike.
        decay_at: Shares of the iterations after which the learning rate is divided by ten.
        iterations: Length of a run.
        snapshot_every: Iterations between two evaluations.
        compile_cache: Let the compiled arm reuse what was compiled before. Its cold time is then
            that of its first run only.
        seeds: One run of each arm for each.
        dni_mlp_seeds: Run dni-mlp, which takes about ten times backprop's time, with only so many.
        tune_seeds: For `synthgrad tune`; none of the seeds above.
        arms: What to compare.
        engine: What runs the decoupled arms: loop, the ordinary loop with one backward pass;
            wavefront, every stage at once, each on its own batch; or pipeline, stages on several
            processes. Backprop's arms stay as they are.
        ranks: Processes of the pipeline, all but the first of one thread.
        compile_engine: Compile the wavefront's tick, in most of a minute for each run.
        device: cpu, cuda, cuda:1, ...
        threads: For every arm, or best: each arm's own best, by a short calibration.
        rounds: Rounds of the interleaved timing.
        block_iterations: Timed iterations of one block of it.
        data_dir: Where to look for the data first.

    Raises:
        ConfigError: A value cannot work.
    """

    dataset: Literal["mnist", "fashion-mnist", "cifar10"] = "mnist"
    depth: int = 4
    width: int = 256
    batch_size: int = 256
    learning_rate: float = 1e-3
    decay_at: tuple[float, ...] = (0.6, 0.8)
    iterations: int = 3_000
    snapshot_every: int = 50
    compile_cache: bool = False

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    dni_mlp_seeds: int | None = None
    tune_seeds: tuple[int, ...] = (1000, 1001)
    arms: tuple[ArmName, ...] = tuple(LABELS)
    engine: Literal["loop", "wavefront", "pipeline"] = "loop"
    ranks: int = 2
    compile_engine: bool = False
    device: str = "cpu"
    threads: int | Literal["best"] = "best"
    rounds: int = 200
    block_iterations: int = 5
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        if self.compile_engine and self.engine != "wavefront":
            raise ConfigError(
                f"compile_engine compiles the wavefront's tick, and engine={self.engine!r} has "
                "none: use engine='wavefront', or the arm backprop-compiled"
            )
        if self.engine == "pipeline" and not 2 <= self.ranks <= self.depth:
            raise ConfigError(
                f"ranks={self.ranks} must be 2 or more, and each gets one of depth={self.depth} "
                "stages"
            )
        if self.engine == "pipeline" and self.device != "cpu":
            raise ConfigError(
                f"engine='pipeline' starts its ranks on this machine's CPU, not on "
                f"device={self.device!r}; sg.engines.Pipeline itself runs on CUDA"
            )
        if self.engine != "loop" and set(self.arms) <= {"backprop", "backprop-compiled"}:
            raise ConfigError(
                f"engine={self.engine!r} runs decoupled arms, and {', '.join(self.arms)} are none: "
                "add one, such as cdni-linear"
            )
        if self.depth < 2 or self.width < 1:
            raise ConfigError(
                f"depth={self.depth} must be 2 or more, to have an interface, and "
                f"width={self.width} 1 or more"
            )
        if not all(0 < share < 1 for share in self.decay_at):
            raise ConfigError(f"decay_at={self.decay_at} holds shares of the run, between 0 and 1")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate={self.learning_rate} must be above 0")
        if self.dni_mlp_seeds is not None and self.dni_mlp_seeds < 1:
            raise ConfigError(f"dni_mlp_seeds={self.dni_mlp_seeds} must be 1 or more")
        if both := set(self.seeds) & set(self.tune_seeds):
            raise ConfigError(
                f"tune_seeds and seeds share {sorted(both)}; tune on seeds of its own"
            )


PRESETS = {
    "smoke": Bisong2017Config(
        iterations=12,
        snapshot_every=6,
        compile_cache=True,
        seeds=(0,),
        tune_seeds=(1000,),
        threads=1,
        rounds=2,
        block_iterations=1,
    ),
    "quick": Bisong2017Config(
        iterations=800,
        compile_cache=True,
        seeds=(0, 1, 2),
        dni_mlp_seeds=1,
        rounds=30,
    ),
    "full": Bisong2017Config(),
    "paper": Bisong2017Config(
        iterations=500_000, learning_rate=3e-5, snapshot_every=2_500, device="cuda"
    ),
}


def make_job(
    config: Bisong2017Config, preset: str = "", rates: Mapping[str, float] | None = None
) -> Job:
    """Return what is to be run.

    Args:
        config: the config.
        preset: the name of the preset that it was made from.
        rates: learning rates of single arms, from tuning; the others take the config's.
    """
    decided = asdict(config)
    for name in ("seeds", "dni_mlp_seeds", "tune_seeds", "arms", "data_dir"):
        del decided[name]
    for name in ("device", "threads", "rounds", "block_iterations"):
        del decided[name]  # the job itself adds them where they belong
    rates = rates or {}
    return Job(
        experiment=EXPERIMENT.name,
        preset=preset,
        arms=tuple(
            replace(
                make_arm(
                    name, replace(config, learning_rate=rates.get(name, config.learning_rate))
                ),
                tuned=name in rates,
            )
            for name in config.arms
        ),
        seeds=config.seeds,
        plan=Plan(
            iterations=config.iterations,
            batch_size=config.batch_size,
            snapshot_every=config.snapshot_every,
            decay_at=tuple(round(share * config.iterations) for share in config.decay_at),
        ),
        throughput=ThroughputPlan(rounds=config.rounds, block_iterations=config.block_iterations),
        threads=config.threads,
        device=config.device,
        config=decided,
        load=partial(load, config.dataset, config.data_dir),
    )


def make_jobs(config: Bisong2017Config, preset: str, rates: Mapping[str, float]) -> dict[str, Job]:
    """Return the job as the only case."""
    return {"": make_job(config, preset, rates)}


def make_arm(name: ArmName, config: Bisong2017Config) -> Arm:
    """Return one arm of the comparison."""
    probability = _probability(name)
    return Arm(
        name=name,
        label=LABELS[name],
        build=partial(_build, name, config),
        options={"learning_rate": config.learning_rate, "update_probability": probability},
        update_probability=probability,
        num_seeds=config.dni_mlp_seeds if name == "dni-mlp" else None,
        missing=partial(_missing, name, config.device),
    )


def _signal(name: ArmName, num_classes: int) -> sg.ErrorSignal | None:
    """Return what an arm's interfaces hand down; None for the two that have none."""
    labels = sg.OneHot(num_classes)
    match name:
        case "backprop" | "backprop-compiled":
            return None
        case "no-signal":
            return sg.NoSignal()
        case "dni-linear":
            return sg.SyntheticGradient(synthesizer="linear")
        case "dni-mlp":
            return sg.SyntheticGradient(synthesizer="mlp")
        case "cdni-linear":
            return sg.SyntheticGradient(synthesizer="linear", condition=labels)
        case "cdni-mirror" | "cdni-mirror-p02":
            return sg.SyntheticGradient(synthesizer="mirror", condition=labels)


def _probability(name: ArmName) -> float:
    return UPDATE_PROBABILITY if name == "cdni-mirror-p02" else 1.0


def _build(name: ArmName, config: Bisong2017Config, seed: int, data: Dataset) -> Learner:
    probability = _probability(name)
    compiles = name == "backprop-compiled"
    network = partial(fcn, data.input_shape, data.num_classes, config.depth, config.width)
    signal = _signal(name, data.num_classes)
    if signal is not None and config.engine != "loop":
        recipe = Recipe(
            make_network=network,
            signal=signal,
            seed=seed,
            learning_rate=config.learning_rate,
            update_probability=probability,
        )
        if config.engine == "pipeline":
            return make_pipeline_learner(recipe, data, num_ranks=config.ranks)
        return make_wavefront_learner(
            recipe, data, batch_size=config.batch_size, compile=config.compile_engine
        )
    return make_learner(
        network,
        signal,
        seed=seed,
        data=data,
        learning_rate=config.learning_rate,
        compile_options={"fx_graph_cache": config.compile_cache} if compiles else None,
        update_probability=probability,
    )


def _missing(name: ArmName, device: str) -> str | None:
    return missing_compiler(device) if name == "backprop-compiled" else None


EXPERIMENT = Comparison(
    name="bisong2017",
    title="Does decoupling make training faster? Bisong 2017, measured again",
    description="Synthetic gradients against backprop on MNIST: time, accuracy, accounting.",
    presets=PRESETS,
    arms=tuple(LABELS),
    jobs=make_jobs,
    claims=judge,
)
