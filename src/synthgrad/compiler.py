"""Whether this machine can compile what torch.compile generates; found before it fails."""

import importlib.util
import shutil
import sysconfig
from pathlib import Path


def missing_compiler(device: str) -> str | None:
    """Return why `torch.compile` cannot make code for a device here, or None."""
    if device.startswith("cuda"):
        return None if importlib.util.find_spec("triton") else "no Triton"
    # Late, because it takes seconds and only this arm needs it.
    from torch._inductor import config

    names = [name for name in (config.cpp.cxx or ()) if name]
    if not any(shutil.which(name) for name in names):
        return "no C++ compiler"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "no C headers of Python (Python.h), which compiled code needs"
    return None
