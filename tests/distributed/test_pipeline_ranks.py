"""The pipeline over real processes: equal to the reference, whatever a rank does in between."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pipeline_worker as worker
import pytest
import torch
from torch import Tensor

import synthgrad as sg
from synthgrad.engines.pipeline import launch
from synthgrad.engines.pipeline.checkpoints.files import find_latest, read
from synthgrad.errors import RankError

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(60)]
EXACT = {"rtol": 0, "atol": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    """A folder in which ranks note their process; none of them may be left."""
    yield tmp_path
    pids = [int(path.name[4:]) for path in tmp_path.glob("pid-*")]
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def reference(steps: int, *, delays: int = 2, every: int | None = None) -> Any:
    engine = sg.engines.Sequential(worker.chain(), **worker.GIVEN, target_delays=delays)
    losses = []
    for number, (x, y) in enumerate(worker.batches(steps), 1):
        losses.append(engine.step(x, y))
        if every and number % every == 0:
            engine.flush()
    engine.flush()
    return engine.chain.state_dict(), losses, engine.evaluate(worker.batches(3))


def together(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"stages.{key}": value for part in parts for key, value in part.items()}


@pytest.mark.parametrize(("num_ranks", "delays"), [(2, 2), (4, 1)])
def test_in_order_it_equals_the_reference(num_ranks: int, delays: int) -> None:
    found = launch(worker.equal_to_the_reference, 50, delays, num_ranks=num_ranks)
    trained, losses, evaluation = reference(50, delays=delays)
    torch.testing.assert_close(together([own for own, _, _ in found]), trained, **EXACT)
    assert found[-1][1] == losses
    assert all(each == evaluation for *_, each in found)


def test_free_ranks_lose_no_batch_and_apply_none_twice() -> None:
    found = launch(worker.free, 40, num_ranks=3)
    for stages, spans in found:
        for s in stages:
            for kind in ("forward", "backward", "fit")[: 3 if s < 3 else 2]:
                seen = Counter(b for k, stage, b in spans if (k, stage) == (kind, s))
                assert seen == Counter(range(40))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_started_again_and_changes_nothing(folder: Path, rank: int) -> None:
    found = launch(worker.train, folder, "kill", (rank, 6), max_restarts=1, grace_s=3)
    assert [begun for begun, _, _ in found] == [4, 4]
    trained, _, _ = reference(worker.STEPS, every=worker.EVERY)
    torch.testing.assert_close(together([own for _, own, _ in found]), trained, **EXACT)


def test_undisturbed_ranks_listen_on_loopback_alone(folder: Path) -> None:
    found = launch(worker.train, folder, None, (0, 0))
    trained, _, _ = reference(worker.STEPS, every=worker.EVERY)
    torch.testing.assert_close(together([own for _, own, _ in found]), trained, **EXACT)
    if sys.platform == "linux":
        loopback = {
            "0100007F",
            "00000000000000000000000001000000",
            "0000000000000000FFFF00000100007F",
        }
        for _, _, addresses in found:
            assert addresses, "gloo listens"
            assert set(addresses) <= loopback


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("stop", "rank 2 hangs, or is slower than timeout_s=2"),
        ("die", "rank 2 is gone"),
        ("nan", "rank 2 made an activation with NaN or infinity in it, at stage 3 in batch 5"),
        ("raise", "rank 2 failed in batch 5: MemoryError: no memory"),
    ],
)
def test_whoever_fails_is_named_by_the_others(folder: Path, wrong: str, words: str) -> None:
    with pytest.raises(RankError) as raised:
        launch(_train_shortly, folder, wrong, num_ranks=3, grace_s=3)
    told = dict(line.split(": ", 1) for line in str(raised.value).splitlines())
    assert words in told["rank 0"]
    assert words in told["rank 1"]


def _train_shortly(folder: Path, wrong: str) -> Any:
    return worker.train(folder, wrong, (2, 5), timeout_s=2.0)


def test_a_full_disk_leaves_the_old_checkpoint(folder: Path) -> None:
    found = launch(worker.fill_the_disk, folder)
    first, second, third = (f"step-{n:09d}" for n in (1, 2, 3))
    for message, before, between, after in found:
        assert second in message
        assert "rank 1" in message
        assert "training can go on" in message
        assert before == [first]
        assert between == [first]
        assert after == [first, third]


class Recorder:
    """In the place of an optimizer: keeps the gradients of each step for whoever averages them."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self.taken = list[list[Tensor | None]]()

    def step(self) -> None:
        self.taken.append([p.grad for p in self.parameters])

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def by_halves(steps: int, delays: int) -> dict[str, Tensor]:
    """One process: each half computed on its own, gradients averaged in the order of ranks."""
    given = worker.GIVEN | {"optimizer": Recorder, "synthesizer_optimizer": Recorder}
    given |= {"late_fit": "stored"}  # anew would need the update between two fits of a flush
    halves = [
        sg.engines.Sequential(worker.chain(), **given, target_delays=delays) for _ in range(2)
    ]
    recorders = [
        [r for r in (*half.optimizers, *half.synthesizer_optimizers) if r is not None]
        for half in halves
    ]
    real = [worker.ADAM(recorder.parameters) for recorder in recorders[0]]

    def update() -> None:
        for first, second, optimizer in zip(*recorders, real, strict=True):
            for ours, theirs in zip(first.taken, second.taken, strict=True):
                for parameter, a, b in zip(first.parameters, ours, theirs, strict=True):
                    parameter.grad = None if a is None else a / 2 + b / 2
                optimizer.step()
            first.zero_grad()
            first.taken.clear()
            second.taken.clear()
            for parameter, other in zip(first.parameters, second.parameters, strict=True):
                other.data.copy_(parameter.data)

    for x, y in worker.batches(steps, 8):
        for replica, half in enumerate(halves):
            half.step(worker.half(x, replica, 2), worker.half(y, replica, 2))
        update()
    for half in halves:
        half.flush()
    update()
    return halves[0].chain.state_dict()


@pytest.mark.parametrize("delays", [0, 2])
def test_two_by_two_equals_halves_averaged_in_order(folder: Path, delays: int) -> None:
    found = launch(worker.train_replicas, folder, 12, delays, num_ranks=4)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], **EXACT)
    torch.testing.assert_close(found[0], by_halves(12, delays), **EXACT)
    latest = find_latest(folder)
    assert latest is not None
    saved = read(latest, lambda name: name.startswith("stages."))
    torch.testing.assert_close(saved, dict(found[0]), **EXACT)
    joint = sg.engines.Sequential(
        worker.chain(), **worker.GIVEN, target_delays=delays, late_fit="stored"
    )
    for x, y in worker.batches(12, 8):
        joint.step(x, y)
    joint.flush()
    # The sums over the batch are in another order.
    torch.testing.assert_close(found[0], joint.chain.state_dict(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("num_ranks", "replicas"), [(4, 1), (1, 1), (4, 2)])
def test_a_checkpoint_loads_into_another_number_of_ranks(
    folder: Path, num_ranks: int, replicas: int
) -> None:
    two = launch(worker.train, folder, None, (0, 0), num_ranks=2)
    for old in folder.glob("step-*"):
        if old.name != "step-000000008":
            old.rename(folder / f"not-{old.name}")
    found = launch(worker.load_only, folder, replicas, num_ranks=num_ranks)
    assert [begun for begun, _ in found] == [8] * num_ranks
    for _, trained in found:
        torch.testing.assert_close(trained, together([own for _, own, _ in two]), **EXACT)


def test_ranks_end_with_the_process_that_started_them(folder: Path) -> None:
    started = subprocess.Popen([sys.executable, worker.__file__, str(folder)])
    deadline = time.monotonic() + 50
    while len(list(folder.glob("pid-*"))) < 2:
        assert time.monotonic() < deadline
        assert started.poll() is None
        time.sleep(0.05)
    started.kill()
    started.wait()
    for path in folder.glob("pid-*"):
        while _is_running(int(path.name[4:])):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
