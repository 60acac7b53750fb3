"""How a process joins the others: by torchrun's environment, or by the file that `launch` names."""

import os
import socket
import sys
from datetime import timedelta
from typing import Literal

import torch.distributed as dist

from synthgrad.engines.pipeline.wire.transport import DistributedTransport
from synthgrad.errors import EngineError

STORE_FILE = "SYNTHGRAD_STORE_FILE"
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def connect(
    *,
    backend: Literal["gloo", "nccl"] = "gloo",
    interface: str = LOOPBACK,
    timeout_s: float = 60.0,
) -> DistributedTransport:
    """Join the ranks that torchrun or `launch` started; use it in a `with` to leave them again.

    Args:
        backend: of torch.distributed: "gloo" for stages on the CPU, "nccl" for CUDA. With gloo,
            stages on CUDA work too; their messages go through the CPU's memory.
        interface: the network interface to listen on, by default loopback, so that nobody outside
            this machine can connect. Name another one (such as "eth0") for several machines, in a
            network that you trust: there is neither encryption nor a password. An interface that
            GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME names comes first.
        timeout_s: for joining, and for collective operations.

    Raises:
        EngineError: this process was not started as a rank.
    """
    given = {key: os.environ.get(key) for key in ("RANK", "WORLD_SIZE")}
    if None in given.values():
        raise EngineError(
            "this process is no rank: start the script by torchrun --nproc-per-node N, or a "
            "function by sg.engines.pipeline.launch(function, num_ranks=N)."
        )
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(variable, interface)
    if not dist.is_initialized():
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        timeout = timedelta(seconds=timeout_s)
        path = os.environ.get(STORE_FILE)
        if path is None:
            store = _store(rank, world_size, timeout)
            # torchrun keeps its store over restarts, with the addresses of ranks that are gone.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = dist.PrefixStore(f"attempt {attempt}", store)
        else:
            store = dist.FileStore(path, world_size)
        store.set_timeout(timeout)
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("torch", store),
            rank=rank,
            world_size=world_size,
            timeout=timeout,
        )
    else:
        store = dist.distributed_c10d._get_default_store()
    return DistributedTransport(dist.PrefixStore("synthgrad", store))


def _store(rank: int, world_size: int, timeout: timedelta) -> dist.Store:
    """Return the store at MASTER_ADDR and MASTER_PORT; torchrun has one there, else rank 0 has."""
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except (KeyError, ValueError) as error:
        raise EngineError(
            f"RANK is set and {error} is not: torchrun sets MASTER_ADDR and MASTER_PORT."
        ) from error
    hosts = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    # Torch would listen on every interface; on this one alone, nobody else can connect.
    listener = socket.create_server((host, port)).detach() if hosts else None
    return dist.TCPStore(
        host, port, world_size, is_master=hosts, timeout=timeout, master_listen_fd=listener
    )
