"""What does a slow network leave of a pipeline? Two ranks in two network namespaces.

A pair of virtual interfaces joins them, and a token bucket (tc's tbf) caps what goes through, in
each direction. Backprop on the first rank needs no network and is the measure within each launch.
Needs root, iproute2, and a kernel with namespaces and tbf; without them it says so and ends well.

    python benchmarks/pipeline_link.py              # writes benchmarks/records/pipeline_link.json
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from synthgrad.bench.records.events import Block
from synthgrad.bench.records.machine import describe_git, describe_machine, describe_packages
from synthgrad.bench.scoring.scores import paired_ratio
from synthgrad.experiments.pipeline.mlp import PRESETS, MlpConfig
from synthgrad.experiments.pipeline.timing import Blocks, Entry, merge, time_blocks

OUT = Path(__file__).parent / "records" / "pipeline_link.json"
METHODS = ("backprop", "ddp", "1f1b-2", "1f1b-4", "1f1b-8", "stashing", "cdni")
SPACES = ("synthgrad-a", "synthgrad-b")
LINKS = ("synthgrad0", "synthgrad1")
ADDRESSES = ("10.213.0.1", "10.213.0.2")
PORT = "29713"
RATES_MBIT = (None, 1_000, 300, 100)


def blocks(config: MlpConfig, rounds: int) -> Blocks:
    return Blocks(
        setting=config.setting(config.workload(0)),
        # A batch of DDP sends all gradients, which a slow link takes seconds for.
        entries=tuple(Entry(arm=m, method=m, every=3 if m == "ddp" else 1) for m in METHODS),
        rounds=rounds,
        steps=config.steps,
        timeline=0,
    )


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def joined(rate_mbit: int | None) -> Generator[None]:
    """Two namespaces with a link between them, and none of it left behind."""
    with ExitStack() as stack:
        for space in SPACES:
            ip("netns", "add", space)
            stack.callback(ip, "netns", "del", space)  # and with it the interface inside
        a, b = LINKS
        ip("link", "add", a, "netns", SPACES[0], "type", "veth", "peer", b, "netns", SPACES[1])
        for space, link, address in zip(SPACES, LINKS, ADDRESSES, strict=True):
            ip("-n", space, "address", "add", f"{address}/24", "dev", link)
            ip("-n", space, "link", "set", link, "up")
            ip("-n", space, "link", "set", "lo", "up")
            if rate_mbit is not None:
                cap = f"rate {rate_mbit}mbit burst 64kbit latency 100ms"
                command = f"netns exec {space} tc qdisc add dev {link} root tbf {cap}"
                ip(*command.split())
        yield


def in_namespaces(config: MlpConfig, rounds: int, rate_mbit: int | None) -> list[dict[str, Any]]:
    """Return the block events of one launch over a link of that rate."""
    with joined(rate_mbit), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ranks = list[subprocess.Popen[bytes]]()
        for rank, space in enumerate(SPACES):
            environment = {
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": ADDRESSES[0],
                "MASTER_PORT": PORT,
                "GLOO_SOCKET_IFNAME": LINKS[rank],
            }
            own = [__file__, "--rounds", str(rounds), "--preset", preset_of(config)]
            command = [sys.executable, *own, "--as-rank", f"{folder}/{rank}.pt"]
            started = subprocess.Popen(["ip", "netns", "exec", space, *command], env=environment)
            stack.callback(started.kill)
            ranks.append(started)
        for rank in ranks:
            if rank.wait(timeout=600):
                raise SystemExit(f"a rank ended with exit code {rank.returncode}")
        noted = [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]
        return [e for e in merge(noted, blocks(config, rounds)) if e["event"] == "block"]


def preset_of(config: MlpConfig) -> str:
    return next(name for name, preset in PRESETS.items() if preset == config)


def summarize(events: Sequence[dict[str, Any]], rate_mbit: int | None) -> list[dict[str, Any]]:
    """Return a row for each method: its throughput over backprop's on the first rank."""
    timed = [Block.from_event(event) for event in events]
    rows = list[dict[str, Any]]()
    for method in METHODS[1:]:
        found = paired_ratio(timed, "backprop", method)
        own = [event for event in events if event["arm"] == method]
        sent = sum(sum(e["bytes"]) for e in own) / sum(e["iterations"] for e in own)
        rows.append(
            {
                "rate_mbit": rate_mbit,
                "method": method,
                "over_backprop": found.ratio,
                "interval": [x if math.isfinite(x) else None for x in (found.low, found.high)],
                "blocks": len(own),
                "bytes_a_batch": sent,
            }
        )
    return rows


def why_not() -> str:
    """Return why no namespace can be made here; empty where it can."""
    try:
        with joined(RATES_MBIT[-1]):
            return ""
    except FileNotFoundError:
        return "there is no `ip` here (iproute2)"
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.decode().strip()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="full")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--as-rank", type=Path, help="what a rank is started with; writes there")
    chosen = parser.parse_args()
    config = PRESETS[chosen.preset]
    if chosen.as_rank:
        torch.save(time_blocks(blocks(config, chosen.rounds)), chosen.as_rank)
        return
    if reason := why_not():
        print(f"skipped: no two networks on this machine: {reason}")
        return
    results = list[dict[str, Any]]()
    for rate in RATES_MBIT:
        results += summarize(in_namespaces(config, chosen.rounds, rate), rate)
        for row in results[-len(METHODS) + 1 :]:
            print(row["rate_mbit"], row["method"], round(row["over_backprop"], 2), flush=True)
    record = {
        "what": f"{config.workload(0).title}, batch {config.batch_size}; throughput over that of "
        "one-thread backprop on the first rank, in the same launch",
        "config": asdict(replace(config, data_dir=None)),
        "rounds": chosen.rounds,
        "git": describe_git(Path(__file__).parent),
        "machine": describe_machine(),
        "packages": describe_packages(),
        "results": results,
    }
    chosen.out.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
