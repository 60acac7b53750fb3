"""Build the wheel, install it into an empty environment, and run the benchmark there, offline.

What the wheel needs besides itself comes from this environment's packages through a .pth file, so
that nothing is downloaded: what is checked is that the *wheel* holds everything of ours (MNIST,
templates, the command) and works away from the repository.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, "."],
            cwd=REPOSITORY,
        )
        (wheel,) = work.glob("*.whl")
        size_mib = wheel.stat().st_size / 2**20
        print(f"{wheel.name}: {size_mib:.1f} MiB")
        python = empty_environment(work / "env")
        install = ["-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)]
        run([str(python), *install], cwd=work)
        (work / "out").mkdir()
        command = [str(python.parent / "synthgrad"), "run", "bisong2017"]
        offline = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
        run([*command, "--preset", "smoke", "--out", "out"], cwd=work, env=offline)
        show = [str(python.parent / "synthgrad"), "report", "out", "--format", "json"]
        arms = json.loads(run(show, cwd=work, capture=True))
        # Without a compiler one arm is not available; any other reason is a fault of the wheel.
        excused = ("backprop-compiled", "unavailable")
        missing = [
            arm["arm"]
            for arm in arms
            if arm["status"] != "finished" and (arm["arm"], arm["status"]) != excused
        ]
        if not arms or missing:
            sys.exit(f"the wheel's smoke run left arms unfinished: {missing or 'all'}")
        print(f"the wheel works: {len(arms)} arms")


def empty_environment(folder: Path) -> Path:
    """Make an environment that sees the dependencies of this one, but not synthgrad's source."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([str(python), "-c", ask], text=True).strip())
    for name in Path(sysconfig.get_path("purelib")).iterdir():
        # Link all but the editable install of the source tree and what venv brought itself.
        if "synthgrad" not in name.name and not (site / name.name).exists():
            (site / name.name).symlink_to(name)
    return python


def run(
    command: list[str], *, cwd: Path, env: dict[str, str] | None = None, capture: bool = False
) -> str:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=kept | (env or {}),
        text=True,
        stdout=subprocess.PIPE if capture else None,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {done.returncode}")
    return done.stdout or ""


if __name__ == "__main__":
    main()
