"""What the ranks run in the tests of the pipeline with real processes, and what they do wrong."""

import os
import resource
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import synthgrad as sg
from synthgrad.errors import CheckpointError

ADAM = partial(torch.optim.Adam, lr=1e-2)
GIVEN = {"loss": F.cross_entropy, "optimizer": ADAM, "synthesizer_optimizer": ADAM}
SIGNAL = sg.SyntheticGradient(condition=sg.OneHot(3))
STEPS, EVERY = 12, 4


def chain(signal: sg.ErrorSignal = SIGNAL) -> sg.Chain:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3)]
    model = nn.Sequential(*layers, nn.Linear(6, 3)).double()
    example = torch.zeros(2, 6, dtype=torch.float64)
    return sg.Chain.from_sequential(model, signal=signal, example_inputs=example)


def batches(count: int, size: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 6, dtype=torch.float64, generator=generator),
            torch.randint(0, 3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def learned(engine: sg.engines.Pipeline) -> dict[str, Tensor]:
    return {
        f"{s}.{key}": value.clone()
        for s in engine.stages
        for key, value in engine.chain.stages[s].state_dict().items()
    }


def note_process(folder: Path) -> None:
    (folder / f"pid-{os.getpid()}").touch()


def listeners() -> list[str]:
    """The addresses on which this process listens, as the kernel writes them."""
    own = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            own.add(os.readlink(descriptor))
        except OSError:
            continue
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in own:
                found.append(columns[1].partition(":")[0])
    return found


def train(folder: Path, wrong: str | None, where: tuple[int, int], **given: Any) -> Any:
    """Train to the end from the latest checkpoint; at (rank, batch) do what is wrong, once."""
    note_process(folder)
    transport = sg.engines.pipeline.connect(timeout_s=20)
    own = chain()
    did = folder / "did wrong"

    def go_wrong(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if not engine.chain.training or engine.num_steps != where[1] or did.exists():
            return None
        did.touch()
        match wrong:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(1000)
            case "die":
                os._exit(3)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "nan":
                return output * float("nan")
            case "raise":
                raise MemoryError("no memory for this batch")
            case _:
                return None
        return None

    with sg.engines.Pipeline(
        own, **GIVEN, transport=transport, **{"timeout_s": 20.0, **given}
    ) as engine:
        if wrong and engine.rank == where[0]:
            own.stages[engine.stages[-1]].module.register_forward_hook(go_wrong)
        begun = engine.load(folder)
        for x, y in batches(STEPS)[begun:]:
            engine.step(x, y)
            if engine.num_steps % EVERY == 0:
                engine.save(folder)
            if engine.num_steps == EVERY:
                engine.wait_saved()  # so that the tests know from where a run goes on
        engine.flush()
        engine.wait_saved()
        return begun, learned(engine), listeners()


def fill_the_disk(folder: Path) -> Any:
    """The second checkpoint finds no room on rank 1; training goes on, and the third one does."""
    note_process(folder)
    with sg.engines.Pipeline(chain(), **GIVEN, timeout_s=20) as engine:
        data = batches(STEPS)
        engine.step(*data[0])
        engine.save(folder)
        engine.wait_saved()
        before = sorted(path.name for path in folder.glob("step-*[0-9]"))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if engine.rank == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        engine.step(*data[1])
        engine.save(folder)
        try:
            engine.wait_saved()
            message = "written"
        except CheckpointError as error:
            message = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        between = sorted(path.name for path in folder.glob("step-*[0-9]"))
        engine.step(*data[2])
        engine.save(folder)
        engine.wait_saved()
        return message, before, between, sorted(path.name for path in folder.glob("step-*[0-9]"))


def half(x: Tensor, replica: int, count: int) -> Tensor:
    return x.chunk(count)[replica]


def train_replicas(folder: Path, steps: int, delays: int) -> Any:
    """Two stages by two replicas, each line with its half of every batch."""
    note_process(folder)
    with sg.engines.Pipeline(
        chain(), **GIVEN, replicas=2, target_delays=delays, late_fit="stored", timeout_s=20
    ) as engine:
        for x, y in batches(steps, 8):
            mine = engine.place.replica
            engine.step(half(x, mine, 2), half(y, mine, 2))
        engine.flush()
        engine.save(folder)
        engine.collect()
        return engine.chain.state_dict()


def load_only(folder: Path, replicas: int) -> Any:
    with sg.engines.Pipeline(chain(), **GIVEN, replicas=replicas, timeout_s=20) as engine:
        begun = engine.load(folder)
        for x, y in batches(STEPS)[begun:]:
            engine.step(x, y)
        engine.flush()
        engine.collect()
        return begun, engine.chain.state_dict()


def equal_to_the_reference(steps: int, delays: int) -> Any:
    with sg.engines.Pipeline(chain(), **GIVEN, target_delays=delays, timeout_s=20) as engine:
        losses = [engine.step(x, y) for x, y in batches(steps)]
        engine.flush()
        return learned(engine), losses, engine.evaluate(batches(3))


def free(steps: int) -> Any:
    with sg.engines.Pipeline(chain(), **GIVEN, mode="free", timeline=True, timeout_s=20) as engine:
        for x, y in batches(steps):
            engine.step(x, y)
        engine.flush()
        return engine.stages, [(s.kind, s.stage, s.batch) for s in engine.timeline]


def on_cuda(steps: int, mode: str) -> Any:
    with sg.engines.Pipeline(chain().cuda(), **GIVEN, mode=mode, timeout_s=60) as engine:
        for x, y in batches(steps):
            engine.step(x.cuda(), y.cuda())
        engine.flush()
        assert engine.evaluate((x.cuda(), y.cuda()) for x, y in batches(2)).num_examples == 8
        return {key: value.cpu() for key, value in learned(engine).items()}, engine.num_steps


def wait_for_ever(folder: Path) -> None:
    note_process(folder)
    time.sleep(1000)


if __name__ == "__main__":
    sg.engines.pipeline.launch(wait_for_ever, Path(sys.argv[1]))
