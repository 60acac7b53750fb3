"""The methods by name: each makes, on a rank, what that rank runs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import synthgrad as sg
from synthgrad.engines.pipeline import Delayed, Transport
from synthgrad.errors import ConfigError
from synthgrad.experiments.pipeline.by_engine import ByEngine
from synthgrad.experiments.pipeline.lanes import OwnLanes
from synthgrad.experiments.pipeline.late_gradients import LateGradients
from synthgrad.experiments.pipeline.one_process import OneProcess, Replicas
from synthgrad.experiments.pipeline.runner import Runner
from synthgrad.experiments.pipeline.torch_schedules import TorchSchedule
from synthgrad.experiments.pipeline.workload import Workload

Name = Literal[
    "backprop",
    "backprop-2",
    "ddp",
    "gpipe",
    "1f1b-2",
    "1f1b-4",
    "1f1b-8",
    "zero-bubble",
    "ddg",
    "stashing",
    "dgl",
    "cdni",
    "cdni-low-rank",
    "cdni-free",
    "dni",
]
NAMES: tuple[Name, ...] = get_args(Name)
LABELS: dict[Name, str] = {
    "backprop": "backprop, one thread",
    "backprop-2": "backprop, two threads",
    "ddp": "DDP",
    "gpipe": "GPipe, 4 micro-batches",
    "1f1b-2": "1F1B, 2 micro-batches",
    "1f1b-4": "1F1B, 4 micro-batches",
    "1f1b-8": "1F1B, 8 micro-batches",
    "zero-bubble": "interleaved zero bubble, 4 micro-batches",
    "ddg": "delayed gradients (DDG)",
    "stashing": "asynchronous, weights stashed",
    "dgl": "local losses (DGL)",
    "cdni": "cDNI, ordered",
    "cdni-low-rank": "cDNI, low-rank, ordered",
    "cdni-free": "cDNI, free",
    "dni": "DNI, ordered",
}
ONE_F_ONE_B: tuple[Name, ...] = ("1f1b-2", "1f1b-4", "1f1b-8")
BY_TORCH: tuple[Name, ...] = ("gpipe", *ONE_F_ONE_B, "zero-bubble")
ON_ALL_RANKS: tuple[Name, ...] = tuple(
    name for name in NAMES if name not in ("backprop", "backprop-2")
)
NUM_MICROBATCHES: dict[Name, int] = {
    "gpipe": 4,
    "1f1b-2": 2,
    "1f1b-4": 4,
    "1f1b-8": 8,
    "zero-bubble": 4,
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the methods of one launch are made.

    Args:
        workload: what they train.
        max_in_flight: batches under way, for the engine and for stashing.
        target_delay: of the engine in ordered mode, in batches.
        late_fit: of the engine.

    Raises:
        ConfigError: more targets are late than batches may be under way.
    """

    workload: Workload
    max_in_flight: int = 4
    target_delay: int = 3
    late_fit: Literal["stored", "again"] = "again"

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 1 <= self.target_delay < self.max_in_flight:
            raise ConfigError(
                f"target_delay={self.target_delay} must be from 1 to below "
                f"max_in_flight={self.max_in_flight}"
            )

    def make(self, name: Name, transport: Transport, *, lanes: int, delay_s: float = 0.0) -> Runner:
        """Make a method on this rank.

        Args:
            name: which.
            transport: to all ranks.
            lanes: a number that no other method of this launch has.
            delay_s: added to every message of those that have our transport; torch's schedules are
                delayed by `LateMessages`.
        """
        rank, num_ranks = transport.rank, transport.num_ranks

        def own() -> Transport:
            seen = OwnLanes(transport, lanes)
            return Delayed(seen, delay_s) if delay_s else seen

        def engine(signal: sg.ErrorSignal | None = None, *, free: bool = False) -> Runner:
            return ByEngine(
                self.workload,
                own(),
                signal,
                mode="free" if free else "ordered",
                target_delays=self.target_delay,
                max_in_flight=self.max_in_flight,
                late_fit=self.late_fit,
            )

        workload, classes = self.workload, self.workload.num_classes
        makers: dict[Name, Callable[[], Runner]] = {
            "backprop": lambda: OneProcess(workload, rank, threads=1),
            "backprop-2": lambda: OneProcess(workload, rank, threads=2),
            "ddp": lambda: Replicas(workload, rank, num_ranks),
            "ddg": lambda: LateGradients(workload, own(), lag=1),
            "stashing": lambda: LateGradients(workload, own(), lag=self.max_in_flight - 1),
            "dgl": lambda: engine(sg.LocalLoss(num_classes=classes)),
            "cdni": engine,
            "cdni-low-rank": lambda: engine(replace(workload, synthesizer="low-rank").cdni()),
            "cdni-free": lambda: engine(free=True),
            "dni": lambda: engine(sg.SyntheticGradient(synthesizer=workload.synthesizer)),
        }
        if name in BY_TORCH:
            kind = "1f1b" if name in ONE_F_ONE_B else name
            assert kind in ("gpipe", "1f1b", "zero-bubble")
            return TorchSchedule(kind, NUM_MICROBATCHES[name], workload, rank, num_ranks)
        return makers[name]()
