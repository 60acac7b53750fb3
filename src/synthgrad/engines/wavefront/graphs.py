"""A tick recorded once, as a CUDA graph, and replayed: one launch in place of hundreds.

A recording runs on the very memory that it was made with, so batches are copied into buffers of
its own, and what a tick changes it changes in place.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from synthgrad.engines.wavefront.plan import Masks, Outcome

log = logging.getLogger(__name__)


class Recorder(Protocol):
    """How a function without arguments is recorded on a device."""

    def warm_up(self, function: Callable[[], object]) -> None:
        """Run it as it will be recorded, a few times, and put back the random state."""
        ...

    def record(self, function: Callable[[], Outcome]) -> tuple[Callable[[], object], Outcome]:
        """Record it without running it; return what replays it, and where its results will be."""
        ...


class CudaRecorder:
    """Record CUDA graphs that share one pool of memory, because they never run at the same time.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = None

    def warm_up(self, function: Callable[[], object]) -> None:
        """Run it three times on the stream of the recording: libraries set themselves up there."""
        current = torch.cuda.current_stream(self._device)
        random = torch.cuda.get_rng_state(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                for _ in range(3):
                    function()
        finally:
            current.wait_stream(self._stream)
            torch.cuda.set_rng_state(random, self._device)

    def record(self, function: Callable[[], Outcome]) -> tuple[Callable[[], object], Outcome]:
        """Record it as one CUDA graph; the default generator's draws go on at each replay."""
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the device, such as one that loads data.
        mode = "thread_local"
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode=mode),
        ):
            outcome = function()
        self._pool = graph.pool()
        return graph.replay, outcome


class RecordingError(Exception):
    """A tick that runs could not be recorded; nothing has changed."""


class Recorded:
    """A tick on batches of one shape, recorded when it first comes up.

    There are two recordings: of the tick in which every stage does everything, and of the one with
    masks, for while the line fills and drains and for skipping; the masks are an input of it.

    Args:
        run: from (inputs, labels, masks) to the outcome; changes tensors in place.
        changed: all the tensors that it changes, which a trial run must leave as they were.
        blank: a batch like those to come.
        num_stages: how many the masks are of.
        recorder: how.
    """

    def __init__(
        self,
        run: Callable[[Tensor, Tensor, Masks | None], Outcome],
        changed: Sequence[Tensor],
        blank: tuple[Tensor, Tensor],
        num_stages: int,
        recorder: Recorder,
    ) -> None:
        self._run = run
        self._changed = changed
        self._inputs, self._labels = (t.clone() for t in blank)
        shape = (len(Masks._fields), num_stages)
        self._rows = torch.ones(shape, dtype=torch.bool, device=self._inputs.device)
        self._recorder = recorder
        self._recordings = dict[bool, tuple[Callable[[], object], Outcome]]()

    def __call__(self, inputs: Tensor, labels: Tensor, rows: Tensor | None) -> Outcome:
        """Run a tick.

        Args:
            inputs: of the bottom stage's batch.
            labels: of the same.
            rows: the masks, one below the other, in memory that the device can copy from while
                the host goes on; None if every stage does everything.

        Raises:
            RecordingError: it runs, and could not be recorded.
        """
        self._inputs.copy_(inputs)
        self._labels.copy_(labels)
        if rows is not None:
            self._rows.copy_(rows, non_blocking=True)
        masked = rows is not None
        if masked not in self._recordings:
            self._recordings[masked] = self._record(masked)
        replay, outcome = self._recordings[masked]
        replay()
        # The next replay overwrites what this one returned.
        return outcome._replace(loss=outcome.loss.clone())

    def _record(self, masked: bool) -> tuple[Callable[[], object], Outcome]:
        masks = Masks(*self._rows.unbind()) if masked else None

        def function() -> Outcome:
            return self._run(self._inputs, self._labels, masks)

        saved = [t.clone() for t in self._changed]
        try:
            self._recorder.warm_up(function)
        finally:
            for tensor, was in zip(self._changed, saved, strict=True):
                tensor.copy_(was)
        try:
            return self._recorder.record(function)
        except Exception as error:  # whatever a driver or a layer may object to
            raise RecordingError(f"{type(error).__name__}: {error}") from error
