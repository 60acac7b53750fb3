"""What each of two ranks does for test_ddp.py, which starts it once for all scenarios."""

import copy
import os
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import synthgrad as sg

RANKS, STEPS = 2, 12
CDNI = sg.SyntheticGradient(condition=sg.OneHot(3))
LOSS = partial(F.cross_entropy, reduction="none")
# Without running statistics, of which each rank would have its own.
CRITIC = sg.Critic(loss=LOSS, condition=sg.OneHot(3), critic="quadratic")
SCENARIOS: dict[str, dict[str, Any]] = {
    "every stage": {"net": {}, "ddp": {}},
    "skipping": {
        "net": {"update_probability": 0.5, "seed": 3},
        "ddp": {"find_unused_parameters": True},
    },
    "no signal": {
        "net": {"signal": {"0": sg.NoSignal(), "1": CDNI, "2": CDNI}},
        "ddp": {"find_unused_parameters": True},
    },
    "static graph": {"net": {}, "ddp": {"static_graph": True}},
    "direct feedback": {
        "net": {
            "signal": sg.DirectFeedbackAlignment(),
            "update_probability": 0.5,
            "seed": 3,
        },
        "ddp": {"find_unused_parameters": True},
    },
    "Kickback": {"net": {"signal": sg.Kickback()}, "ddp": {}},
    "feedback alignment": {"net": {"signal": sg.FeedbackAlignment()}, "ddp": {}},
    "sign-symmetric": {"net": {"signal": sg.SignSymmetric()}, "ddp": {}},
    "critic, synthetic input": {
        "net": {"signal": CRITIC, "synthetic_input": sg.SyntheticInput()},
        "ddp": {},
    },
    "critic, synthetic input, skipping": {
        "net": {
            "signal": CRITIC,
            "synthetic_input": sg.SyntheticInput(),
            "update_probability": 0.6,
            "seed": 2,
        },
        "ddp": {"find_unused_parameters": True},
    },
    "accumulating": {
        "net": {"update_probability": 0.6, "seed": 1, "accumulate": 2},
        "ddp": {"find_unused_parameters": True},
    },
}
REFUSED: dict[str, dict[str, Any]] = {
    "skipping without the flag": {"net": {"update_probability": 0.5}, "ddp": {}},
    "no signal without the flag": {"net": {"signal": sg.NoSignal()}, "ddp": {}},
    "skipping in a static graph": {
        "net": {"update_probability": 0.5},
        "ddp": {"find_unused_parameters": True, "static_graph": True},
    },
    "release='forward'": {"net": {"release": "forward"}, "ddp": {}},
}


def decoupled(**options: Any) -> sg.DecoupledModel:
    torch.manual_seed(1)
    widths = [(6, 10), (10, 9), (9, 8)]
    stages = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in widths]
    model = nn.Sequential(*stages, nn.Linear(8, 3)).double()
    x, _ = batch(0, 0)
    net = sg.decouple(model, "every", example_inputs=x, **{"signal": CDNI, **options})
    for p in net.synthesizer_parameters():
        nn.init.normal_(p, std=0.3)
    return net


def batch(number: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(10 * number + rank)
    x = torch.randn(4, 6, generator=source, dtype=torch.float64)
    return x, torch.randint(0, 3, (4,), generator=source)


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.1)


def note(net: sg.DecoupledModel, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What there is to compare after a backward pass."""
    return copy.deepcopy(
        {
            "updated": net.updated,
            "parameters": [p.detach() for p in net.parameters()],
            "gradients": [p.grad for p in net.parameters()],
            "adam": [dict(optimizer.state[p]) for p in net.parameters()],
        }
    )


def train(rank: int, options: dict[str, Any]) -> list[dict[str, Any]]:
    net = decoupled(**options["net"])
    wrapped = DistributedDataParallel(net, **options["ddp"])
    optimizer = adam(net)
    notes = []
    for number in range(STEPS):
        x, y = batch(number, rank)
        last = (number + 1) % net.accumulate == 0
        wrapped.require_backward_grad_sync = last
        F.cross_entropy(wrapped(x, condition=y), y).backward()
        if last:
            notes.append(note(net, optimizer))
            optimizer.step()
            optimizer.zero_grad()
    notes.append(note(net, optimizer))
    return notes


def train_sharded(rank: int, *, each_stage: bool) -> list[torch.Tensor]:
    """The parameters after training under FSDP, sharded as a whole or a stage at a time."""
    net = decoupled()
    for stage in net.model if each_stage else ():
        fully_shard(stage)
    fully_shard(net)
    optimizer = adam(net)
    for number in range(STEPS):
        x, y = batch(number, rank)
        F.cross_entropy(net(x, condition=y), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach().full_tensor() for p in net.parameters()]


def refusal(options: dict[str, Any]) -> str:
    wrapped = DistributedDataParallel(decoupled(**options["net"]), **options["ddp"])
    x, y = batch(0, 0)
    try:
        wrapped(x, condition=y)
    except sg.errors.InterfaceError as error:
        return str(error)
    return ""


def work(rank: int, folder: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=50),
    )
    results: dict[str, Any] = {name: train(rank, o) for name, o in SCENARIOS.items()}
    results |= {name: refusal(o) for name, o in REFUSED.items()}
    results |= {f"FSDP {e}": train_sharded(rank, each_stage=e) for e in (False, True)}
    torch.save(results, folder / f"rank{rank}.pt")
    dist.destroy_process_group()
