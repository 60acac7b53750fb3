"""The order of DNI as a schedule of torch's own pipelining, for those who train by `PipelineStage`.

It stands on private parts of `torch.distributed.pipelining`, which change without notice; this file
is all that does. Where they differ it refuses, and `engines.Pipeline` needs none of them.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.pipelining import PipelineStage

from synthgrad.engines.late_fit import LateFit
from synthgrad.errors import ConfigError, EngineError
from synthgrad.interface import Crossing, Interface
from synthgrad.signals import Need

SUPPORTED = ("2.13",)


def _check_version() -> None:
    if not torch.__version__.startswith(tuple(f"{version}." for version in SUPPORTED)):
        raise EngineError(
            "ScheduleDNI stands on private parts of torch.distributed.pipelining as they are in "
            f"torch {', '.join(SUPPORTED)}, and this is torch {torch.__version__}: use "
            "sg.engines.Pipeline, which needs none of them."
        )


_check_version()

from torch.distributed.pipelining.schedules import (  # noqa: E402 (only where it is what we know)
    _Action,
    _ComputationType,
    _PipelineContext,
    _PipelineScheduleRuntime,
    _wait_batch_p2p,
)

_FORWARD, _BACKWARD = _ComputationType.FORWARD, _ComputationType.FULL_BACKWARD
_SEND_UP, _RECEIVE_UP = _ComputationType.SEND_F, _ComputationType.RECV_F
_SEND_DOWN, _RECEIVE_DOWN = _ComputationType.SEND_B, _ComputationType.RECV_B
_REDUCE = _ComputationType.REDUCE_GRAD


class ScheduleDNI(_PipelineScheduleRuntime):
    """Run one stage a rank, whose backward does not wait for the stage above.

    Use it in the place of `Schedule1F1B` where a script trains by torch's `PipelineStage`: the
    stages, the step and the optimizer stay. The backward of a micro-batch follows its forward at
    once, at the signal of the interface on top; its gradient is fitted to one micro-batch later,
    when it has come from above. A new script is better off with `engines.Pipeline`, whose ranks
    update after every batch.

    A step takes all micro-batches of a batch and leaves gradients, of the stage and of the
    synthesizers alike: averages over micro-batches where `scale_grads`. The fits to the last
    `target_delay` micro-batches of a step are part of the next, so that no step ends in waiting.

    With one micro-batch it equals `engines.Sequential` with `target_delays=1, late_fit="again"`.

    Args:
        stage: of this rank; there are as many stages as ranks.
        n_microbatches: in a batch.
        loss_fn: from (outputs, targets) to a scalar; used on the last rank.
        interface: on top of the stage, `chain.stages[rank].interface`; None on the last rank alone.
        target_delay: micro-batches between an emission and the fit to its target, from 1 to
            `n_microbatches`. More of them bear a higher latency.
        scale_grads: whether gradients are divided by the number of micro-batches, for a loss that
            is a mean.
        **options: further arguments of torch's schedules: `args_chunk_spec`, ...

    Raises:
        ConfigError: the interface or the delay does not fit.
        EngineError: at import, in a version of torch whose schedules are not as we know them.

    Example:
        On rank `r` of 2, where `chain` is a `sg.Chain` of two stages::

            stage = PipelineStage(chain.stages[r].module, r, 2, torch.device("cpu"))
            schedule = ScheduleDNI(stage, 4, F.cross_entropy, interface=chain.stages[r].interface)
            optimizer = Adam(chain.stages[r].parameters())  # stage and synthesizers
            for x, y in loader:
                schedule.step(*((x,) if r == 0 else ()), target=y)
                optimizer.step()
                optimizer.zero_grad()
            schedule.flush()
    """

    def __init__(
        self,
        stage: PipelineStage,
        n_microbatches: int,
        loss_fn: Callable[..., Tensor] | None = None,
        *,
        interface: Interface | None,
        target_delay: int = 1,
        scale_grads: bool = True,
        **options: Any,
    ) -> None:
        _check(stage, interface, n_microbatches, target_delay)
        super().__init__([stage], n_microbatches, loss_fn, scale_grads=scale_grads, **options)
        self.stage = stage
        self.interface = interface
        self.target_delay = target_delay
        self._waiting = deque[tuple[int, LateFit, tuple[Tensor, ...]]]()
        orders: dict[int, list[_Action | None]] = {
            rank: _order(rank, stage.num_stages, n_microbatches, target_delay)
            for rank in range(stage.num_stages)
        }
        self._prepare_schedule_with_comms(orders, format="compute_comms")
        if interface is not None:
            self.register_custom_function(_BACKWARD, self._backward)
            self.register_custom_function(_REDUCE, self._reduce)

    def eval(self, *args: Any, **kwargs: Any) -> Any:
        """Run the batch forward only; what waits for its fit is fitted before."""
        self.flush()
        try:
            return super().eval(*args, **kwargs)
        finally:
            self.bwd_recv_ops.clear()

    def flush(self) -> None:
        """Add the gradients of the fits that wait; step the optimizer after it, if you go on."""
        while self._waiting:
            self._fit_oldest()

    def _backward(self, action: _Action, ctx: _PipelineContext) -> None:
        """Run the stage's backward at its signal, and fit to a target that should be here now."""
        index, stage = action.microbatch_index, self.stage
        if index is None or self.interface is None or not stage.has_backward:
            return
        targets = ctx.target_mbs
        self.interface.step.condition = None if targets is None else targets[index]
        self.interface.step.codes.clear()
        try:
            self._emit_and_go_back(self.interface, index)
        finally:
            self.interface.step.clear()
        if len(self._waiting) > self.target_delay:
            self._fit_oldest()

    def _emit_and_go_back(self, interface: Interface, index: int) -> None:
        outputs = interface.leaves(self.stage.fwd_cache[index][0], interface.synthesizers)
        late = LateFit.of(interface, outputs, stored=False)
        crossings = [Crossing(interface, k, h, fits=False) for k, h in enumerate(outputs)]
        predictions = [
            crossing.predict(module, h)
            for crossing, module, h in zip(crossings, interface.synthesizers, outputs, strict=True)
        ]
        emitted = [
            crossing.emit(prediction, None)
            for crossing, prediction in zip(crossings, predictions, strict=True)
        ]
        # The target will be received where the signal lies: the backward is done with it by then.
        signals = tuple(
            torch.zeros_like(h) if signal is None else signal.contiguous()
            for h, signal in zip(outputs, emitted, strict=True)
        )
        self.stage.set_local_bwd_input(signals, index)
        self.stage.backward_one_chunk(index, last_backward=index == self._n_microbatches - 1)
        self._waiting.append((index, late, signals))

    def _fit_oldest(self) -> None:
        assert self.interface is not None
        index, late, targets = self._waiting.popleft()
        _wait_batch_p2p(self.bwd_recv_ops.pop((self.stage.stage_index, index)))
        late.targets = list[Tensor | None](targets)
        late.fit(self.interface)

    def _reduce(self, action: _Action, ctx: _PipelineContext) -> None:
        """Turn sums over micro-batches into averages, those of the synthesizers included."""
        factor = self._n_microbatches if self.scale_grads else 1
        self.stage.perform_reduce_grad(factor)
        assert self.interface is not None
        for parameter in self.interface.synthesizers.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(factor)


def _order(rank: int, num_stages: int, number: int, delay: int) -> list[_Action | None]:
    """Return what a rank does in a step, in an order that holds up nobody.

    Sends and receives of two neighbors stand in the same order on both, so that they cannot wait
    for each other even where they are done one by one, as by NCCL.
    """
    first, last = rank == 0, rank == num_stages - 1
    order = list[_Action | None]()

    def add(kind: _ComputationType, index: int | None) -> None:
        order.append(_Action(rank, kind, index))

    for index in range(number):
        if not first:
            # So many micro-batches come up before the first target goes down.
            for ahead in range(delay + 1) if index == 0 else (index + delay,):
                if ahead < number:
                    add(_RECEIVE_UP, ahead)
        add(_FORWARD, index)
        if not last:
            add(_SEND_UP, index)
            if index >= delay:
                add(_RECEIVE_DOWN, index - delay)  # it comes in while the backward runs
        add(_BACKWARD, index)
        if not first:
            add(_SEND_DOWN, index)
    if not last:
        for index in range(max(number - delay, 0), number):
            add(_RECEIVE_DOWN, index)
    add(_REDUCE, None)
    return order


def _check(
    stage: PipelineStage, interface: Interface | None, n_microbatches: int, target_delay: int
) -> None:
    if stage.num_stages != stage.group_size:
        raise ConfigError(
            f"{stage.num_stages} stages on {stage.group_size} ranks: ScheduleDNI runs one stage a "
            "rank. Put more layers into a stage, or use sg.engines.Pipeline."
        )
    if not 1 <= target_delay <= n_microbatches:
        raise ConfigError(
            f"target_delay={target_delay} is a number of micro-batches from 1 to "
            f"n_microbatches={n_microbatches}"
        )
    if (interface is None) != stage.is_last:
        raise ConfigError(
            f"interface={interface if interface is None else interface.name!r} on stage "
            f"{stage.stage_index} of {stage.num_stages}: every stage but the last has one. Give "
            f"interface=chain.stages[{stage.stage_index}].interface"
        )
    if interface is None:
        return
    signal = interface.signal
    if (
        not signal.fits_target
        or signal.needs is not Need.NOTHING
        or signal.passes_trace
        or signal.fits_loss
    ):
        raise ConfigError(
            f"{signal} needs more than its own stage, or is fitted to no target from above: "
            "ScheduleDNI takes signals as sg.SyntheticGradient with mix=0 and no trace. "
            "sg.engines.Pipeline takes the others."
        )
