"""The times of a chain's stages on this machine, as a plan starts from."""

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from synthgrad.bench.clock import Stopwatch
from synthgrad.bench.running.measure import peak_saved_bytes
from synthgrad.engines.work import Work
from synthgrad.errors import ConfigError
from synthgrad.planning.measurements import Link, Measurements, StageTimes
from synthgrad.signals import LocalLoss
from synthgrad.stage import Chain, Stage
from synthgrad.trees import float_tensors

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]
_PARTS_OF_SMALL = 8  # the smaller batch, for the cost of a pass, is this part of the batch


def measure_stages(
    chain: Chain,
    example_inputs: Tensor,
    labels: Tensor,
    *,
    loss: Callable[[Any, Tensor], Tensor],
    optimizer: OptimizerFactory,
    num_classes: int | None = None,
    rounds: int = 15,
    source: str = "",
    link: Link | None = None,
) -> Measurements:
    """Time every stage of a chain: medians of rounds that take all stages in turn.

    It trains a copy, so the chain stays as it is. Threads are those of the calling process.

    Args:
        chain: the stages, with the signals whose cost is asked for.
        example_inputs: one batch.
        labels: its labels.
        loss: from (outputs, labels) to a scalar.
        optimizer: makes an optimizer from parameters, for stages and synthesizers.
        num_classes: for the cost of a local loss on top of each stage; without it that is left out.
        rounds: how often each is timed; one more before them is not counted.
        source: where the numbers come from, one line for people.
        link: between two stages, where it is known.

    Raises:
        ConfigError: the batch has fewer than two examples, or there are no rounds.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> batch = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 1, 0])
        >>> two = [nn.Linear(4, 8), nn.Linear(8, 2)]
        >>> chain = Chain.from_modules(two, example_inputs=batch[0])
        >>> loss, optimizer = nn.functional.cross_entropy, torch.optim.Adam
        >>> times = measure_stages(chain, *batch, loss=loss, optimizer=optimizer, rounds=1)
        >>> times.stages[0].activation_bytes  # 6 examples of 8 units
        192
    """
    if len(labels) < 2 or rounds < 1:
        raise ConfigError(
            f"a batch of {len(labels)} examples and rounds={rounds}: give 2 or more and 1 or more"
        )
    chain = copy.deepcopy(chain)
    small = max(1, len(labels) // _PARTS_OF_SMALL)
    whole = _timed_stages(chain, example_inputs, labels, loss, optimizer, num_classes)
    parts = _timed_stages(chain, example_inputs[:small], labels[:small], loss, optimizer, None)
    seen = {one: list[dict[str, float]]() for one in (*whole, *parts)}
    for number in range(rounds + 1):
        for one, found in seen.items():
            times = one.measure()
            if number:
                found.append(times)
    medians = {
        one: {name: statistics.median(times[name] for times in found) for name in found[0]}
        for one, found in seen.items()
    }
    share = small / len(labels)
    return Measurements(
        stages=tuple(
            _stage_times(one, medians[one], medians[part], share)
            for one, part in zip(whole, parts, strict=True)
        ),
        link=link or Link(),
        batch_size=len(labels),
        source=source or f"measured in one process of {torch.get_num_threads()} threads",
    )


def _timed_stages(
    chain: Chain,
    inputs: Tensor,
    labels: Tensor,
    loss: Callable[[Any, Tensor], Tensor],
    optimizer: OptimizerFactory,
    num_classes: int | None,
) -> list["_TimedStage"]:
    local: list[Stage | None] = [None] * len(chain)
    if num_classes is not None:
        modules = [stage.module for stage in chain]
        signal = LocalLoss(num_classes=num_classes)
        local = list(Chain.from_modules(modules, example_inputs=inputs, signal=signal))
    timed, h = list[_TimedStage](), inputs
    for index, stage in enumerate(chain):
        one = _TimedStage(stage, local[index], index == 0, h, labels, loss, optimizer)
        timed.append(one)
        with torch.no_grad():
            h = stage(h)
    return timed


@dataclass(eq=False)
class _TimedStage:
    """One stage with one batch of its own inputs."""

    stage: Stage
    local_stage: Stage | None  # the same module under a local loss
    first: bool
    inputs: Any
    labels: Tensor
    loss: Callable[[Any, Tensor], Tensor]
    make_optimizer: OptimizerFactory

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
        _, found["predict_s"] = self._timed(work.predict, fits=True, late="stored")
        _, found["backward_s"] = self._timed(work.backward, self._above(work))
        _, found["update_s"] = self._timed(_step, self.optimizer)
        _, found["fit_s"] = self._timed(self._fit, work)
        found["backward_input_s"] = self._to_inputs()
        found["local_backward_s"] = found["backward_s"]
        if not self.first:
            work = self._forward(self.stage, False)
            work.predict(fits=True, late="stored")
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


def _stage_times(
    timed: _TimedStage, times: dict[str, float], part: dict[str, float], share: float
) -> StageTimes:
    """Return what a stage takes; a pass costs what is left of its line at no examples."""

    def at_no_examples(name: str) -> float:
        slope = (times[name] - part[name]) / (1 - share)
        return min(max(0.0, times[name] - slope), part[name])

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
        overhead_s=(at_no_examples("forward_s") + at_no_examples("backward_s")) / 2,
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
