"""What each of two ranks does for test_rivals.py, which starts it once."""

from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from synthgrad.engines.pipeline import connect
from synthgrad.experiments.pipeline.late_messages import LateMessages
from synthgrad.experiments.pipeline.methods import NAMES, NUM_MICROBATCHES, Setting
from synthgrad.experiments.pipeline.recurrent import Characters
from synthgrad.experiments.pipeline.runner import Runner
from synthgrad.experiments.pipeline.schedule_times import HeldStage
from synthgrad.experiments.pipeline.stage_times import GOES_TO_HOLD_BY, LineMeter
from synthgrad.experiments.pipeline.workload import Workload
from synthgrad.planning import StageTimes

RANKS, STEPS, MAX_IN_FLIGHT, TARGET_DELAY = 2, 7, 4, 2


@dataclass(frozen=True, kw_only=True)
class Tiny(Workload):
    @property
    def title(self) -> str:
        return "tiny"

    def network(self, signal_in_time: bool = True) -> nn.Sequential:
        widths = [5, 7, 6, 8]
        layers = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise(widths)]
        return nn.Sequential(*layers, nn.Linear(8, self.num_classes)).double()

    def batches(self):
        source = torch.Generator().manual_seed(self.seed)
        while True:
            x = torch.randn(self.batch_size, 5, generator=source, dtype=torch.float64)
            yield x, torch.randint(self.num_classes, (self.batch_size,), generator=source)


TINY = Tiny(seed=3, batch_size=16, num_classes=3, learning_rate=0.1)
SETTING = Setting(workload=TINY, max_in_flight=MAX_IN_FLIGHT, target_delay=TARGET_DELAY)
TEXT = Characters(
    seed=1, batch_size=64, num_classes=65, learning_rate=0.1, layers=2, units=6, horizon=4
)

HELD = (
    StageTimes(forward_s=0.016, backward_weight_s=0.008, activation_bytes=1024),
    StageTimes(forward_s=0.016, backward_weight_s=0.008),
)


def parameters(runner: Runner) -> dict[str, list[torch.Tensor]]:
    """The parameters that this rank trains, by stage."""
    match runner:
        case object(stages=stages):
            found = {s.stage_index: s.submod for s in stages}
        case object(engine=engine):
            found = {s: engine.chain.stages[s].module for s in engine.stages}
        case object(module=module):
            found = {0 if runner.is_first else 1: module}
        case object(network=network):
            found = {0: network}
        case _:
            found = {}
    return {s: [p.detach().clone() for p in module.parameters()] for s, module in found.items()}


def train(setting: Setting, name: str, transport: Any, lanes: int, delay_s: float = 0.0) -> Any:
    runner = setting.make(name, transport, lanes=lanes, delay_s=delay_s)
    batches = list(islice(setting.workload.batches(), STEPS))
    runner.run(batches)
    runner.flush()
    dist.barrier()  # nobody lets go of what the other has not yet taken
    counted, spans = runner.counts(), runner.spans()
    return {
        "parameters": parameters(runner),
        "messages": counted.messages,
        "bytes": counted.bytes,
        "kinds": sorted({span.kind for span in spans}),
        "most": runner.most_in_flight(),
    }


def work() -> dict[str, Any]:
    with connect() as transport:
        found = {name: train(SETTING, name, transport, k) for k, name in enumerate(NAMES)}
        late = LateMessages(0.002)
        with late.between_stages():
            found["1f1b-4, delayed"] = train(SETTING, "1f1b-4", transport, 0)
        late.close()
        found["cdni, delayed"] = train(SETTING, "cdni", transport, 20, delay_s=0.002)
        text = Setting(workload=TEXT)
        for k, name in enumerate(("backprop", "ddp", "1f1b-4", "ddg")):
            found[f"text {name}"] = train(text, name, transport, 30 + k)
        held = HeldStage(HELD[transport.rank], transport.rank, RANKS)
        for _ in range(3):
            held.go()
        found["held"] = held.found()
        meter = LineMeter(TINY, transport)
        meter.go(GOES_TO_HOLD_BY - 1)
        found["line before"] = meter.found(repeats=2)
        meter.go(1)
        found["line"] = meter.found(repeats=2)
        assert set(NUM_MICROBATCHES) < set(found)
        return found
