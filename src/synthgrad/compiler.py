"""Whether this machine can compile what torch.compile generates; found before it fails."""

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path


def missing_compiler(device: str) -> str | None:
    """Return why `torch.compile` cannot make code for a device here, or None."""
    if device.startswith("cuda"):
        if not importlib.util.find_spec("triton"):
            return "no Triton"
        compilers = (os.environ.get("CC", ""), "cc", "gcc", "clang")
        return None if any(map(_there, compilers)) else "no C compiler, which Triton needs"
    # Late, because it takes seconds and only this arm needs it.
    from torch._inductor import config

    if not any(_there(name or "") for name in config.cpp.cxx or ()):
        return "no C++ compiler"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "no C headers of Python (Python.h), which compiled code needs"
    return None


def _there(command: str) -> bool:
    """Whether a command can be found; it may have options, or a launcher in front."""
    words = command.split()
    return bool(words) and shutil.which(words[0]) is not None
