"""Work shared over several processes: each takes the next item when it is done with its own.

A process that dies, out of memory say, costs the item that it was at and nothing else. However the
work ends, no process is left behind.
"""

import multiprocessing
import pickle
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, TypeVar, cast

import torch

from synthgrad.bench.running.progress import Listener
from synthgrad.bench.running.threads import thread_counts
from synthgrad.errors import ConfigError, RecordError

T = TypeVar("T")

_PATIENCE_S = 20.0  # for a process to end when it is told to, before it is killed


def run_in_processes(
    work: Mapping[str, T],
    setup: Callable[[], Callable[[T, Listener], str]],
    *,
    processes: int,
    progress: Listener,
) -> Counter[str]:
    """Run items in several processes at once.

    Args:
        work: the items by name, in the order in which they are begun.
        setup: called once in every process; returns what runs an item, tells a listener of it, and
            returns how it ended.
        processes: how many at once; each gets an equal share of the cores as torch's threads.
        progress: is told what the processes tell.

    Returns:
        How the items ended, counted; "crashed" is also the item of a process that died.

    Raises:
        ConfigError: an item, or `setup`, cannot be sent to another process.
        Exception: what an item's run raised; the others are stopped.
        KeyboardInterrupt: by the user, or by SIGTERM; every process was told to stop and has ended.
    """
    _check_sendable(setup, work)
    waiting = deque(work.items())
    statuses = Counter[str]()
    crew: dict[Connection, _Worker] = {}
    with _terminated_like_interrupted():
        try:
            for _ in range(min(processes, len(work))):
                _hire(crew, setup, processes).give(waiting.popleft())
            while crew:
                for pipe in wait(list(crew)):
                    worker = crew[cast(Connection, pipe)]
                    try:
                        kind, value = worker.pipe.recv()
                    except (EOFError, OSError):  # the other end is gone
                        _dismiss(crew, worker)
                        if worker.item is not None:
                            statuses["crashed"] += 1
                            progress.note(f"{worker.item}: crashed: {worker.ending()}")
                            if waiting:
                                _hire(crew, setup, processes).give(waiting.popleft())
                        continue
                    match kind:
                        case "ended":
                            statuses[value] += 1
                            worker.give(waiting.popleft() if waiting else None)
                        case "raised":
                            raise value
                        case "describe":
                            worker.doing = value
                            doing = (each.doing for each in crew.values() if each.item)
                            progress.describe(", ".join(filter(None, doing)))
                        case _:
                            getattr(progress, kind)(value)
        finally:
            for worker in crew.values():
                worker.process.terminate()
            for worker in list(crew.values()):
                _dismiss(crew, worker)
    return statuses


@dataclass
class _Worker:
    """One process, as the one that hired it sees it; `item` is what it is at, None at the end."""

    process: Any
    pipe: Connection
    item: str | None = None
    doing: str = ""

    def give(self, named_item: tuple[str, Any] | None) -> None:
        """Hand over the next item; None sends the process home."""
        self.item, item = named_item or (None, None)
        self.doing = ""
        with suppress(OSError):  # it is dead already, which reading from it will tell
            self.pipe.send(None if named_item is None else (item,))

    def ending(self) -> str:
        """Return how a process that was not sent home ended."""
        code = self.process.exitcode
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            return f"its process {how}{', as when memory runs out' if code == -9 else ''}"
        return f"its process ended with exit code {code}"


def _hire(crew: dict[Connection, _Worker], setup: Callable[[], Any], processes: int) -> _Worker:
    # "spawn", because a fork of a process in which torch has started its threads can hang.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    threads = max(1, thread_counts()[-1] // processes)
    process = context.Process(target=_serve, args=(there, setup, threads), daemon=True)
    process.start()
    there.close()  # or its end would go unnoticed
    crew[here] = _Worker(process, here)
    return crew[here]


def _dismiss(crew: dict[Connection, _Worker], worker: _Worker) -> None:
    """Wait for a process to end, and let go of it."""
    worker.process.join(_PATIENCE_S)
    if worker.process.exitcode is None:
        worker.process.kill()
        worker.process.join()
    worker.pipe.close()
    del crew[worker.pipe]


def _check_sendable(setup: Callable[[], Any], work: Mapping[str, Any]) -> None:
    """Refuse what cannot be sent before anything is started."""
    for name, value in {"the work": setup, **work}.items():
        try:
            pickle.dumps(value)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"{name} cannot be sent to another process: {error}. Functions must stand on the "
                "level of a module; a partial of one is fine. Or use processes=1"
            ) from error


@contextmanager
def _terminated_like_interrupted() -> Generator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that it stops its processes."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where Python sets no signal handlers
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_IGN)  # once is enough: what follows is tidying up
    raise KeyboardInterrupt


class _Messenger:
    """The progress as a process sees it: what it is told goes through the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def describe(self, text: str, /) -> None:
        self.tell("describe", text)

    def advance(self, count: int, /) -> None:
        self.tell("advance", count)

    def note(self, line: str, /) -> None:
        self.tell("note", line)

    def tell(self, kind: str, value: object) -> None:
        try:
            self._pipe.send((kind, value))
        except OSError as error:  # whoever started this process is gone
            raise KeyboardInterrupt from error


def _serve(
    pipe: Connection, setup: Callable[[], Callable[[Any, Listener], str]], threads: int
) -> None:
    """Run items until there are no more: all that one of the processes does."""
    # Ctrl-C reaches every process of the terminal; the first one tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    torch.set_num_threads(threads)
    messenger = _Messenger(pipe)
    try:
        run = setup()
        while packed := pipe.recv():
            messenger.tell("ended", run(packed[0], messenger))
    except (KeyboardInterrupt, EOFError):
        pass
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))  # else it stays behind
        with suppress(KeyboardInterrupt):
            messenger.tell("raised", _sendable(error))


def _sendable(error: Exception) -> Exception:
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RecordError(f"{type(error).__name__}: {error}")
