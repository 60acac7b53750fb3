"""Under torchrun: a killed rank is started again, and the example runs as it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pipeline_worker as worker
import pytest
import torch

import synthgrad as sg

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(60)]
HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "pipeline_mnist.py"


def torchrun(*arguments: object) -> str:
    """Run two ranks to their end; return what they printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--standalone", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=55)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_elastic_restart_changes_nothing(tmp_path: Path) -> None:
    torchrun("--max-restarts=1", HERE / "elastic_script.py", tmp_path)
    engine = sg.engines.Sequential(worker.chain(), **worker.GIVEN, target_delays=2)
    for number, (x, y) in enumerate(worker.batches(worker.STEPS), 1):
        engine.step(x, y)
        if number % worker.EVERY == 0:
            engine.flush()
    engine.flush()
    found = [torch.load(path, weights_only=True) for path in tmp_path.glob("learned-*")]
    assert [each["begun"] for each in found] == [4, 4]
    together = {f"stages.{k}": v for each in found for k, v in each["learned"].items()}
    torch.testing.assert_close(together, engine.chain.state_dict(), rtol=0, atol=0)


def test_the_example_trains_and_goes_on(tmp_path: Path) -> None:
    small = ["--units=32", "--batch-size=64", f"--checkpoints={tmp_path}", "--checkpoint-every=20"]
    told = torchrun(EXAMPLE, *small, "--steps=40")
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step-000000020",
        "step-000000040",
    ]
    found = re.search(r"step 40: validation accuracy ([\d.]+) %", told)
    assert found is not None
    assert float(found[1]) > 40, "a guess is right in 10 %"


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 100
