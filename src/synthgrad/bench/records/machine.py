"""Where a number was measured: the machine, the packages and the commit, for every record.

No host name, user name or path is among them, so a record can be published as it is. What a system
does not tell is None.
"""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("synthgrad", "torch", "numpy", "scipy")
_GPU_FIELDS = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit")


def describe_machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Describe the machine as it is now.

    Args:
        device: where the run trains; a CUDA device is described as well.

    Returns:
        `cpu` (model), `num_cores` (those this process may use), `memory_bytes`, `load_average` (1,
        5 and 15 minutes), `os`, `torch_threads`, and `gpu`: None, or its `name`, `memory_bytes`,
        `cuda`, `driver`, `clock_mhz`, `max_clock_mhz`, `memory_clock_mhz` and `power_limit_w`.
    """
    device = torch.device(device)
    has_gpu = device.type == "cuda" and torch.cuda.is_available()
    return {
        "cpu": _first_value("/proc/cpuinfo", "model name") or platform.machine() or None,
        "num_cores": _num_cores(),
        "memory_bytes": _memory_bytes(),
        "load_average": _load_average(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "torch_threads": torch.get_num_threads(),
        "gpu": _describe_gpu(device) if has_gpu else None,
    }


def describe_packages() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that decide the numbers."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def describe_git(cwd: Path | str) -> dict[str, Any]:
    """Return the commit that the files of a folder belong to, and whether tracked files differ.

    Args:
        cwd: a folder of source code.

    Returns:
        `commit` and `dirty`; both None outside a repository, in one without a commit, without git,
        and in a folder that merely lies inside somebody else's repository without being tracked.
    """
    commit = None
    if _output(["git", "ls-files", "--error-unmatch", "."], cwd) is not None:
        commit = _output(["git", "rev-parse", "--verify", "HEAD"], cwd)
    if commit is None:
        return {"commit": None, "dirty": None}
    changes = _output(["git", "status", "--porcelain", "--untracked-files=no"], cwd)
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _describe_gpu(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    driver, *numbers = _gpu_settings(str(getattr(properties, "uuid", "")))
    clock, max_clock, memory_clock, power_limit = (_to_float(text) for text in numbers)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "driver": driver,
        "clock_mhz": clock,
        "max_clock_mhz": max_clock,
        "memory_clock_mhz": memory_clock,
        "power_limit_w": power_limit,
    }


def _gpu_settings(uuid: str) -> list[str | None]:
    # By UUID, because torch renumbers the devices that CUDA_VISIBLE_DEVICES leaves and nvidia-smi
    # does not.
    query = f"--query-gpu={','.join(_GPU_FIELDS)}"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits", f"--id=GPU-{uuid}"]
    fields = [field.strip() for field in (_output(command) or "").split(",")]
    return list(fields) if len(fields) == len(_GPU_FIELDS) else [None] * len(_GPU_FIELDS)


def _to_float(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:  # "[N/A]" where the driver does not tell
        return None


def _output(command: list[str], cwd: Path | str | None = None) -> str | None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _num_cores() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        return os.cpu_count()


def _memory_bytes() -> int | None:
    total = _first_value("/proc/meminfo", "MemTotal")
    return int(total.split()[0]) * 1024 if total else None


def _load_average() -> list[float] | None:
    try:
        return list(os.getloadavg())
    except (AttributeError, OSError):  # not on Windows, and not in every container
        return None


def _first_value(path: str, key: str) -> str | None:
    """Return the value of the first "key : value" line of a file of /proc."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:  # not on macOS or Windows
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None
