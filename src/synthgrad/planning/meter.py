"""The times of one stage, taken as it trains, so that its caches are as in training."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from synthgrad.bench.clock import Stopwatch
from synthgrad.bench.running.measure import peak_saved_bytes
from synthgrad.engines.rules import OptimizerFactory
from synthgrad.engines.work import Work
from synthgrad.planning.measurements import StageTimes
from synthgrad.stage import Stage
from synthgrad.trees import float_tensors

_PARTS_OF_SMALL = 8  # the smaller batch, for the cost of a pass, is this part of the batch


class StageMeter:
    """Times one stage: what its parts take for a batch, and what a pass costs however small.

    It trains the stage. The first of its goes does not count.

    Args:
        stage: what is timed, with the signal whose cost is asked for.
        inputs: one batch of what comes up to it.
        labels: its labels.
        first: whether those are the network's inputs, which need no gradient.
        loss: from (outputs, labels) to a scalar.
        optimizer: makes an optimizer from parameters, for stages and synthesizers.
        local_stage: the same module under a local loss, for the cost of that.
        in_parts: whether smaller batches are timed as well; without them the cost of a pass is
            not known and given as 0.
    """

    def __init__(
        self,
        stage: Stage,
        inputs: Tensor,
        labels: Tensor,
        *,
        first: bool,
        loss: Callable[[Any, Tensor], Tensor],
        optimizer: OptimizerFactory,
        local_stage: Stage | None = None,
        in_parts: bool = True,
    ) -> None:
        small = max(1, len(labels) // _PARTS_OF_SMALL)
        self._share = small / len(labels)
        common = (first, loss, optimizer)
        self._timed = [_Timed(stage, local_stage, inputs, labels, *common, adds=False)]
        if in_parts:
            part = _Timed(stage, None, inputs[:small], labels[:small], *common, adds=True)
            self._timed.append(part)
        self._found = list[list[dict[str, float]]]()

    def go(self) -> None:
        """Take the times once more."""
        self._found.append([timed.measure() for timed in self._timed])

    def work_on(self) -> None:
        """Do what a go does, and count nothing: for others who take their times beside it."""
        self._timed[0].measure()

    def times(self) -> StageTimes:
        """Return the medians of all goes but the first."""
        whole, *parts = (
            {name: statistics.median(one[name] for one in found) for name in found[0]}
            for found in zip(*self._found[1:], strict=True)
        )
        overhead_s = _overhead_s(whole, parts[0], self._share) if parts else 0.0
        return _stage_times(self._timed[0], whole, overhead_s)


@dataclass(eq=False)
class _Timed:
    """One stage with one batch of its own inputs."""

    stage: Stage
    local_stage: Stage | None
    inputs: Any
    labels: Tensor
    first: bool
    loss: Callable[[Any, Tensor], Tensor]
    make_optimizer: OptimizerFactory
    adds: bool  # to gradients that are there, as every micro-batch but the first does

    def __post_init__(self) -> None:
        self.optimizer = self._make(self.stage.stage_parameters())
        self.synthesizer_optimizer = self._make(self.stage.synthesizer_parameters())
        self.head_optimizer = None
        if self.local_stage is not None:
            self.head_optimizer = self._make(self.local_stage.synthesizer_parameters())

    def measure(self) -> dict[str, float]:
        """Return the seconds of each part of one training step."""
        found = dict[str, float]()
        work, found["forward_s"] = self._timed(self._forward, self.stage, not self.first)
        _, found["predict_s"] = self._timed(work.predict, fits=True, late="again")
        if self.adds:
            self._leave_gradients()
        _, found["backward_s"] = self._timed(work.backward, self._above(work))
        _, found["update_s"] = self._timed(_step, self.optimizer)
        _, found["fit_s"] = self._timed(self._fit, work)
        found["backward_input_s"] = self._to_inputs()
        found["local_backward_s"] = found["backward_s"]
        if not self.first:
            work = self._forward(self.stage, False)
            work.predict(fits=True, late="again")
            _, found["local_backward_s"] = self._timed(work.backward, self._above(work))
            _clear(self.optimizer)
        found["local_s"] = max(0.0, self._under_local_loss() - found["local_backward_s"])
        return found

    def saved_bytes(self) -> int:
        """Return what autograd keeps of the batch from forward to backward."""

        def run() -> None:
            work = self._forward(self.stage, not self.first)
            work.predict(fits=False, late=None)
            work.backward(self._above(work))

        saved = peak_saved_bytes(run, self.stage.parameters())
        _clear(self.optimizer)
        return saved

    def _forward(self, stage: Stage, gives_target: bool) -> Work:
        if stage.interface is not None:
            stage.interface.step.clear()  # batches of two sizes take turns
            stage.interface.step.condition = self.labels
        return Work(stage, self.inputs, first=self.first, updated=True, gives_target=gives_target)

    def _above(self, work: Work) -> list[Tensor | None] | None:
        """Give the last stage its loss, and return what comes down to any other."""
        if self.stage.interface is None:
            work.loss = self.loss(work.output, self.labels)
            return None
        return [torch.ones_like(h) for h in float_tensors(work.output)]

    def _fit(self, work: Work) -> None:
        interface = self.stage.interface
        if work.late is not None and interface is not None:
            targets: list[Tensor | None] = [torch.zeros_like(h) for h in work.late.activations]
            work.late.targets = targets
            work.late.fit(interface)
            _step(self.synthesizer_optimizer)

    def _leave_gradients(self) -> None:
        for parameter in self.stage.stage_parameters():
            parameter.grad = torch.zeros_like(parameter)

    def _to_inputs(self) -> float:
        """Return the seconds of the part of the backward that makes gradients of activations."""
        if self.first:
            return 0.0
        work = self._forward(self.stage, True)
        outputs = float_tensors(work.output)
        ones = [torch.ones_like(h) for h in outputs]
        _, seconds = self._timed(torch.autograd.grad, outputs, work.inputs, ones, allow_unused=True)
        return seconds

    def _under_local_loss(self) -> float:
        """Return the seconds of a local loss on top: its head, the whole backward, its update."""
        if self.local_stage is None or self.local_stage.interface is None:
            return 0.0
        work = self._forward(self.local_stage, False)
        _, ahead_s = self._timed(work.predict, fits=False, late=None)
        _, backward_s = self._timed(work.backward, None)
        _, update_s = self._timed(_step, self.head_optimizer)
        _clear(self.optimizer)
        return ahead_s + backward_s + update_s

    def _make(self, parameters: list[nn.Parameter]) -> Optimizer | None:
        return self.make_optimizer(parameters) if parameters else None

    def _timed(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, float]:
        watch = Stopwatch(device=self.labels.device)
        watch.start()
        result = call(*args, **kwargs)
        watch.pause()
        return result, watch.seconds


def _overhead_s(times: dict[str, float], part: dict[str, float], share: float) -> float:
    """Return what a pass costs: what is left of the line through both sizes at no examples."""

    def at_no_examples(name: str) -> float:
        slope = (times[name] - part[name]) / (1 - share)
        return min(max(0.0, times[name] - slope), part[name])

    return (at_no_examples("forward_s") + at_no_examples("backward_s")) / 2


def _stage_times(timed: _Timed, times: dict[str, float], overhead_s: float) -> StageTimes:
    with torch.no_grad():
        output = timed.stage(timed.inputs)
    on_top = timed.stage.interface is not None
    into_input_s = min(times["backward_input_s"], times["backward_s"])
    return StageTimes(
        forward_s=times["forward_s"],
        backward_input_s=into_input_s,
        backward_weight_s=times["backward_s"] - into_input_s,
        update_s=times["update_s"],
        predict_s=times["predict_s"] if on_top else 0.0,
        fit_s=times["fit_s"] if on_top else 0.0,
        local_s=times["local_s"],
        local_backward_s=min(times["local_backward_s"], times["backward_s"]),
        overhead_s=overhead_s,
        activation_bytes=sum(h.nbytes for h in float_tensors(output)) if on_top else 0,
        saved_bytes=timed.saved_bytes(),
        parameter_bytes=sum(p.nbytes for p in timed.stage.stage_parameters()),
    )


def _step(optimizer: Optimizer | None) -> None:
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()


def _clear(optimizer: Optimizer | None) -> None:
    if optimizer is not None:
        optimizer.zero_grad()
