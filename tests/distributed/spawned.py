"""Ranks by torch.multiprocessing, for what is not the pipeline engine: they end within a minute."""

import time
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing


def run_ranks(worker: Any, folder: Path) -> list[Any]:
    """Return what each rank of a worker module noted in the folder."""
    started = torch.multiprocessing.start_processes(
        worker.work, args=(folder,), nprocs=worker.RANKS, join=False, start_method="spawn"
    )
    assert started is not None
    deadline = time.monotonic() + 60
    try:
        while not started.join(timeout=1):
            assert time.monotonic() < deadline, "the ranks did not end within 60 s"
    finally:
        for process in started.processes:
            process.kill()
            process.join()
    return [torch.load(folder / f"rank{r}.pt") for r in range(worker.RANKS)]
