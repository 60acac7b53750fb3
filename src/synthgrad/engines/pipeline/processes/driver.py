"""A pipeline driven from one ordinary process: a script, a notebook or a benchmark.

This process is rank 0. The other ranks are processes that do what it does, call by call, each on a
pipeline that it has made by the same function. They join by a group of their own, not torch's
default one, so that several pipelines can be there at once.
"""

import copy
import os
import pickle
import signal
import tempfile
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Self

import torch.distributed as dist
from torch import Tensor

from synthgrad.engines.evaluation import Evaluation
from synthgrad.engines.pipeline.engine import Pipeline
from synthgrad.engines.pipeline.processes.ranks import Rank
from synthgrad.engines.pipeline.wire.connect import LOOPBACK
from synthgrad.engines.pipeline.wire.transport import DistributedTransport, Transport
from synthgrad.errors import ConfigError, DivergedError, RankError

# How long a rank may take to say why it ended.
_GRACE_S = 8.0


class Driver:
    """A pipeline whose other ranks follow this process.

    Use it as a context manager, or `close` it; processes that are left end with this one. An
    exception inside a call ends the other ranks, and with them what they have learned, unless it is
    said otherwise there; what is refused at the door (labels, a state of another chain) is not
    inside.

    Args:
        make_engine: from a transport (and `args`) to a `Pipeline` on it, called on every rank; a
            function on the level of a module that other processes can import (a script needs its
            `if __name__ == "__main__":`). Each rank must make the same chain, from the same seed;
            neither replicas nor synthetic inputs, for only this process has data.
        args: for it; they go through pickle, to processes of this one.
        num_ranks: how many, this process among them.
        threads: of torch, in each of the others.
        timeout_s: for joining.

    Attributes:
        engine: this process's part of the pipeline.

    Raises:
        ConfigError: a number is too small, the engine refuses its options, or it is one that
            cannot be driven.
        RankError: a rank did not come.
    """

    def __init__(
        self,
        make_engine: Callable[..., Pipeline],
        *args: Any,
        num_ranks: int = 2,
        threads: int = 1,
        timeout_s: float = 60.0,
    ) -> None:
        if num_ranks < 1 or threads < 1:
            raise ConfigError(f"num_ranks={num_ranks} and threads={threads} must be 1 or more.")
        folder = tempfile.TemporaryDirectory(prefix="synthgrad-")
        store = Path(folder.name) / "store"
        self._ranks = list[Rank]()
        self._lines = list[Connection]()
        self._end = weakref.finalize(self, _end, self._ranks, self._lines, folder)
        try:
            for number in range(1, num_ranks):
                ours, theirs = Pipe()
                self._lines.append(ours)
                following = (number, num_ranks, str(store), timeout_s, theirs, make_engine, args)
                self._ranks.append(
                    Rank(
                        number,
                        num_ranks,
                        store=store,
                        threads=threads,
                        worker=_follow,
                        args=following,
                    )
                )
                theirs.close()  # or its end would go unnoticed
            self._welcome(timeout_s)
            self.engine = make_engine(_join(0, num_ranks, str(store), timeout_s), *args)
            if self.engine.unlocked or self.engine.place.num_replicas > 1:
                raise ConfigError(
                    "a driver has the data in one process, and replicas or synthetic inputs want "
                    "it on every rank: start those by torchrun or launch()."
                )
        except BaseException as error:
            is_about_ranks = isinstance(error, RankError | RuntimeError)
            reason = self._reason() if is_about_ranks and self._end.alive else None
            self._end()
            if reason is not None:
                raise reason from error
            raise
        self._rates = _Rates(self.engine)

    def step(self, inputs: Any, labels: Tensor, *, condition: Tensor | None = None) -> None:
        """Train all ranks on a batch; see `Pipeline.step`.

        The loss stays at the top of the line, and nothing waits for it.

        Raises:
            ConditionError: the condition does not suit a signal; nothing has changed.
            RankError: another rank is gone, or failed.
            DivergedError: a rank made NaN or infinity.
        """
        self.engine.check_condition(labels if condition is None else condition)
        self._call("step", lambda: self.engine.step(inputs, labels, condition=condition))

    def flush(self) -> None:
        """Return when every rank is done with all batches, and has fitted every target."""
        self._call("flush", self.engine.flush)
        self._hear()

    def evaluate(self, batches: Iterable[tuple[Any, Tensor]]) -> Evaluation:
        """Return loss and accuracy over batches of (inputs, labels), in eval mode.

        An error of the batches themselves is raised here, and the ranks go on.
        """
        reading = _Reading(batches)
        found = self._call("evaluate", lambda: self.engine.evaluate(reading))
        if reading.error is not None:
            raise reading.error
        return found

    def collect(self) -> None:
        """Put what the other ranks have trained into the chain of `engine`."""
        self.flush()
        self._call("collect", self.engine.collect)

    def scale_learning_rates(self, factor: float) -> None:
        """Set every learning rate to `factor` times what it was at the start."""
        self._call("rates", lambda: self._rates.scale(factor), factor)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that decides the following steps, of all ranks; it flushes first."""
        state = copy.deepcopy(self._call("state", self.engine.state_dict))
        for other in self._hear():
            state["stages"] |= other["stages"]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from such a state, of any number of ranks.

        Raises:
            EngineError: it is of another chain; nothing has changed.
        """
        self.engine.chain.check_state(int(state["num_stages"]))
        # A copy, or this rank's optimizers would go on training inside the caller's state.
        self._call("load", lambda: self.engine.load_state_dict(copy.deepcopy(state)), state)
        self._hear()

    def close(self) -> None:
        """Flush, and end the other ranks."""
        if self._end.alive:
            try:
                self._call("close", self.engine.close)
                self._hear()
                for rank in self._ranks:
                    rank.hear()
            finally:
                self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self.close()
        else:
            self._end()

    def _call(self, name: str, own: Callable[[], Any], argument: Any = None) -> Any:
        """Let the others do what this rank does, and do it."""
        if not self._end.alive:
            raise RankError("the other ranks of this driver have ended: make a new one.")
        try:
            for line in self._lines:
                _say(line, (name, argument))
        except OSError as error:
            raise self._reason() or RankError("a rank is gone.") from error
        try:
            return own()
        except RankError as error:
            if (reason := self._reason()) is not None:
                raise reason from error
            raise
        except BaseException:
            self._end()  # the others wait for a batch that does not come
            raise

    def _hear(self) -> Sequence[Any]:
        """Return what the others answer."""
        try:
            answers = [_hear(line) for line in self._lines]
        except (EOFError, OSError) as error:
            raise self._reason() or RankError("a rank is gone.") from error
        except BaseException:
            self._end()  # or the answer would be taken for that to the next question
            raise
        for answer in answers:
            if isinstance(answer, _Diverged):
                self._end()
                raise DivergedError(answer)
        return answers

    def _welcome(self, timeout_s: float) -> None:
        """Wait until every rank has begun; one that cannot is heard at once."""
        for rank, line in zip(self._ranks, self._lines, strict=True):
            if not wait([line, rank.pipe], timeout_s):
                raise RankError(f"rank {rank.number} did not come within timeout_s={timeout_s:g}.")
            try:
                _hear(line)
            except (EOFError, OSError) as error:
                raise self._reason() or RankError(f"rank {rank.number} did not come.") from error

    def _reason(self) -> RankError | DivergedError | None:
        """Return why another rank has ended, if one has, and end them all."""
        failed = list[Rank]()
        diverged = None
        for rank, line in zip(self._ranks, self._lines, strict=False):
            if rank.pipe.poll(_GRACE_S if not failed else 0.0):
                rank.hear()
                failed += [rank] if rank.failure is not None else []
            diverged = diverged or _said_that_it_diverged(line)
        self._end()
        if diverged is not None:
            return DivergedError(diverged)
        if failed:
            return RankError("\n".join(f"rank {r.number}: {r.failure}" for r in failed))
        return None


class _Rates:
    """The learning rates of one rank."""

    def __init__(self, engine: Pipeline) -> None:
        self._engine = engine
        self._base = [group["lr"] for group in self._groups()]

    def scale(self, factor: float) -> None:
        for group, rate in zip(self._groups(), self._base, strict=True):
            group["lr"] = rate * factor

    def _groups(self) -> Sequence[dict[str, Any]]:
        # Asked for each time: loading a state gives an optimizer other groups.
        return [group for o in self._engine.optimizers for group in o.param_groups]


class _Reading:
    """Batches that end where reading them fails, with the error kept."""

    def __init__(self, batches: Iterable[tuple[Any, Tensor]]) -> None:
        self._batches = batches
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        try:
            yield from self._batches
        except Exception as error:
            self.error = error


def _join(rank: int, num_ranks: int, store: str, timeout_s: float) -> Transport:
    """Meet the others in a file, and connect over loopback."""
    timeout = timedelta(seconds=timeout_s)
    shared = dist.FileStore(store, num_ranks)
    shared.set_timeout(timeout)
    meeting = dist.PrefixStore("torch", shared)
    with _on_loopback():
        group = dist.ProcessGroupGloo(meeting, rank, num_ranks, timeout=timeout)
    return DistributedTransport(dist.PrefixStore("synthgrad", shared), group)


@contextmanager
def _on_loopback() -> Generator[None]:
    """Let gloo listen there, unless the environment names an interface, which stays as it is."""
    name = "GLOO_SOCKET_IFNAME"
    given = os.environ.get(name)
    os.environ.setdefault(name, LOOPBACK)
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]


def _follow(
    rank: int,
    num_ranks: int,
    store: str,
    timeout_s: float,
    line: Connection,
    make_engine: Callable[..., Pipeline],
    args: tuple[Any, ...],
) -> None:
    """Do what rank 0 does, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for rank 0, which may want to save
    _say(line, "here")
    engine = make_engine(_join(rank, num_ranks, store, timeout_s), *args)
    rates = _Rates(engine)
    try:
        while True:
            name, argument = _hear(line)
            match name:
                case "step":
                    engine.step()
                case "flush":
                    engine.flush()
                    _say(line, None)
                case "evaluate":
                    engine.evaluate()
                case "collect":
                    engine.collect()
                case "rates":
                    rates.scale(argument)
                case "state":
                    _say(line, engine.state_dict())
                case "load":
                    engine.load_state_dict(argument)
                    _say(line, None)
                case _:
                    engine.close()
                    _say(line, None)
                    return
    except DivergedError as error:
        _say(line, _Diverged(str(error)))
        raise


class _Diverged(str):
    """A rank's last word, after NaN or infinity."""


def _say(line: Connection, what: Any) -> None:
    """Send a copy; `Connection.send` would share the memory of tensors."""
    line.send_bytes(pickle.dumps(what))


def _hear(line: Connection) -> Any:
    return pickle.loads(line.recv_bytes())


def _said_that_it_diverged(line: Connection) -> str | None:
    try:
        while line.poll():
            if isinstance(said := _hear(line), _Diverged):
                return str(said)
    except (EOFError, OSError):
        pass
    return None


def _end(
    ranks: list[Rank], lines: list[Connection], folder: tempfile.TemporaryDirectory[str]
) -> None:
    for line in lines:
        line.close()
    for rank in ranks:
        rank.end()
    folder.cleanup()
