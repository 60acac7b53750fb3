"""What each of three ranks does for test_torch_schedule.py, which starts it once."""

import os
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

import synthgrad as sg
from synthgrad.engines.pipeline.torch_schedule import ScheduleDNI

RANKS, STEPS, BATCH = 3, 6, 8
CONDITION = sg.OneHot(3)
ADAM = partial(torch.optim.Adam, lr=0.01)
SCENARIOS: dict[str, dict[str, Any]] = {
    "one micro-batch": {"microbatches": 1, "delay": 1},
    "four": {"microbatches": 4, "delay": 1},
    "four, two late": {"microbatches": 4, "delay": 2},
    "four, all late": {"microbatches": 4, "delay": 4},
}


def chain() -> sg.Chain:
    torch.manual_seed(1)
    parts = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in [(6, 10), (10, 9)]]
    model = nn.Sequential(*parts, nn.Linear(9, 3)).double()
    made = sg.Chain.from_sequential(
        model,
        example_inputs=batch(0)[0],
        signal=sg.SyntheticGradient(condition=CONDITION, synthesizer="mlp"),
    )
    for stage in made:
        for p in stage.synthesizer_parameters():
            nn.init.normal_(p, std=0.3)
    return made


def batch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(number)
    x = torch.randn(BATCH, 6, generator=source, dtype=torch.float64)
    return x, torch.randint(0, 3, (BATCH,), generator=source)


def of_rank(made: sg.Chain, rank: int) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in made.stages[rank].named_parameters()}


def train(rank: int, *, microbatches: int, delay: int) -> dict[str, Any]:
    made = chain()
    stage = PipelineStage(made.stages[rank].module, rank, RANKS, torch.device("cpu"))
    schedule = ScheduleDNI(
        stage,
        microbatches,
        F.cross_entropy,
        interface=made.stages[rank].interface,
        target_delay=delay,
    )
    optimizer = ADAM(made.stages[rank].parameters())
    losses: list[torch.Tensor] = []
    seen = []
    for number in range(STEPS):
        x, y = batch(number)
        schedule.step(*((x,) if rank == 0 else ()), target=y, losses=losses)
        optimizer.step()
        optimizer.zero_grad()
        seen += [loss.detach() for loss in losses]
    before = of_rank(made, rank)
    x, y = batch(0)
    output = schedule.eval(*((x,) if rank == 0 else ()), target=y)
    late = {name: p.grad for name, p in made.stages[rank].named_parameters() if p.grad is not None}
    return {"parameters": before, "losses": seen, "output": output, "late": late}


def refusals(rank: int) -> list[str]:
    made = chain()
    stage = PipelineStage(made.stages[rank].module, rank, RANKS, torch.device("cpu"))
    own = made.stages[rank].interface
    said = []
    if rank == RANKS - 1:
        wrong: list[dict[str, Any]] = [{"interface": made.stages[0].interface}]
    else:
        mixed = sg.Chain.from_sequential(
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
            example_inputs=torch.zeros(2, 2),
            signal=sg.SyntheticGradient(mix=0.5),
        )
        wrong = [
            {"interface": None},
            {"interface": own, "target_delay": 0},
            {"interface": own, "target_delay": 5},
            {"interface": mixed.stages[0].interface},
        ]
    for options in wrong:
        try:
            ScheduleDNI(stage, 4, F.cross_entropy, **options)
        except sg.errors.ConfigError as error:
            said.append(str(error))
    return said


def plain(rank: int) -> dict[str, torch.Tensor]:
    """Gradients by torch's own 1F1B, which must still work beside ours."""
    made = chain()
    stage = PipelineStage(made.stages[rank].module, rank, RANKS, torch.device("cpu"))
    x, y = batch(0)
    schedule = Schedule1F1B(stage, 4, F.cross_entropy)
    schedule.step(*((x,) if rank == 0 else ()), target=y)
    return {name: p.grad for name, p in made.stages[rank].module.named_parameters()}


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.FileStore(str(folder / "store"), RANKS)
    patience = timedelta(seconds=60)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS, timeout=patience)
    found: dict[str, Any] = {name: train(rank, **options) for name, options in SCENARIOS.items()}
    found["refusals"] = refusals(rank)
    found["1F1B"] = plain(rank)
    torch.save(found, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
