"""One network, every engine: blocks of steps in turn, each arm at its own best thread count."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from synthgrad.bench.clock import Stopwatch
from synthgrad.bench.running.measure import peak_saved_bytes
from synthgrad.bench.running.threads import calibrate, num_threads
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Batches, Dataset
from synthgrad.experiments.engines.cases import SIGNAL_LABELS, Case, Cut
from synthgrad.experiments.engines.trainers import (
    Backprop,
    Decoupled,
    Form,
    Trainer,
    missing,
)

Engine = Literal["backprop", "sequential", "wavefront"]
_NUM_BATCHES = 16
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}
_COPIES_OF_A_PARAMETER = 4  # itself, its gradient, and Adam's two moments


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train a network.

    Args:
        engine: who runs it.
        form: how.
        cut: how it is decoupled; None for backprop.
    """

    engine: Engine
    form: Form
    cut: Cut | None = None

    @property
    def name(self) -> str:
        """In records: "wavefront-cdni-4-compiled"."""
        return "-".join([self.engine, *([self.cut.name] if self.cut else []), self.form])

    @property
    def label(self) -> str:
        """For people."""
        form = self.form.replace("compiled-graph", "compiled CUDA graph").replace("-", " ")
        form = "CUDA graph" if form == "graph" else form
        if self.cut is None:
            return f"backprop, {form}"
        layers = "a layer" if self.cut.length == 1 else f"{self.cut.length} layers"
        return f"{self.engine}, {SIGNAL_LABELS[self.cut.signal]}, {layers} a stage, {form}"

    def build(self, case: Case, data: Dataset, seed: int, rates: tuple[float, float]) -> Trainer:
        """Return a fresh trainer; the same seed gives every arm the same network.

        Args:
            case: the network.
            data: on the device to train on.
            seed: of weights and synthesizers.
            rates: learning rates of stages and of what their signal fits.
        """
        torch.manual_seed(derive_seed(seed, "weights"))
        network = case.network(data.input_shape, data.num_classes).to(data.train.labels.device)
        if self.cut is None:
            return Backprop(network, learning_rate=rates[0], form=self.form)
        torch.manual_seed(derive_seed(seed, "synthesizers"))
        assert self.engine != "backprop"
        return Decoupled(
            self.engine,
            network,
            case,
            self.cut,
            data.train.take(torch.arange(2, device=data.train.labels.device))[0],
            data.num_classes,
            rates=rates,
            form=self.form,
        )


def arms_of(case: Case, forms: Sequence[Form], wavefront_forms: Sequence[Form]) -> list[Arm]:
    """Return every arm of a case: backprop, then each cut by each engine.

    The sequential engine is eager, and is there where the eager wavefront is.
    """
    arms = [Arm(engine="backprop", form=form) for form in forms]
    for cut in case.cuts:
        if "eager" in wavefront_forms:
            arms.append(Arm(engine="sequential", form="eager", cut=cut))
        arms += [Arm(engine="wavefront", form=form, cut=cut) for form in wavefront_forms]
    return arms


def time_case(
    case: Case,
    data: Dataset,
    forms: Sequence[Form],
    wavefront_forms: Sequence[Form],
    *,
    seed: int,
    rates: Callable[[Cut | None], tuple[float, float]],
    counts: Sequence[int],
    compiles_once: bool,
    rounds: int,
    block_iterations: int,
) -> Iterator[Mapping[str, Any]]:
    """Yield an "arm" event for every arm, and then "seconds", those of an update by round.

    An arm that cannot run here yields "absent" with the reason.

    Args:
        case: the network and its cuts.
        data: on the device to train on.
        forms: of backprop.
        wavefront_forms: of the wavefront.
        seed: of weights and batches.
        rates: learning rates of a cut, as `Arm.build` takes them.
        counts: numbers of threads, of which each arm takes its best.
        compiles_once: whether the compiled wavefront has the number of threads with which its eager
            form is fastest, and tries no other.
        rounds: a round holds one block of every arm.
        block_iterations: timed steps of a block; one more before it is not timed.
    """
    device = data.train.labels.device
    source = Batches(data.train, batch_size=case.batch_size, seed=derive_seed(seed, "batches"))
    batches = list(itertools.islice(source, _NUM_BATCHES))
    if any("compiled" in form for form in forms):
        torch.compiler.reset()  # a limit on recompilations counts over all networks of one class
    timed = dict[str, Callable[[int], float]]()
    timed_best = dict[Arm, int]()
    for arm in arms_of(case, forms, wavefront_forms):
        if reason := missing(arm.form, str(device)):
            yield {"event": "absent", "arm": arm.name, "label": arm.label, "reason": reason}
            continue
        build = partial(arm.build, case, data, seed, rates(arm.cut))
        own = threads_to_try(arm, counts, timed_best, compiles_once=compiles_once)
        stepped = {count: _Stepped(build, batches, count, case, arm) for count in own}
        tried = _calibrated(stepped)
        best = min(tried, key=lambda count: tried[count])
        timed[arm.name] = stepped[best].time_block
        timed_best[arm] = best
        yield {
            "event": "arm",
            "arm": arm.name,
            "label": arm.label,
            "engine": arm.engine,
            "form": arm.form,
            "cut": arm.cut.name if arm.cut else None,
            "stages": case.num_stages(arm.cut) if arm.cut else 1,
            "threads": best,
            "tried": {str(count): _rounded(seconds) for count, seconds in tried.items()},
            "execution": stepped[best].trainer.execution,
            "late_fit": stepped[best].trainer.late_fit,
            **_memory(stepped[best]),
            **count_work(arm, case, data, seed=seed, rates=rates(arm.cut), batch=batches[0]),
        }
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(rounds):
        order = list(timed)
        for name in order if number % 2 == 0 else order[::-1]:
            taken[name].append(_rounded(timed[name](block_iterations)))
    for name, seconds in taken.items():
        yield {"event": "seconds", "arm": name, "by_round": seconds}


def threads_to_try(
    arm: Arm, counts: Sequence[int], best: Mapping[Arm, int], *, compiles_once: bool
) -> Sequence[int]:
    """Return the numbers of threads that an arm is built and timed with.

    Args:
        arm: the arm.
        counts: all numbers.
        best: of the arms that were timed already.
        compiles_once: as in `time_case`.
    """
    eager = Arm(engine=arm.engine, form="eager", cut=arm.cut)
    once = compiles_once and arm.engine == "wavefront" and "compiled" in arm.form
    return (best[eager],) if once and eager in best else counts


class _Stepped:
    """A trainer with its number of threads and a few real batches in turn."""

    def __init__(
        self,
        build: Callable[[], Trainer],
        batches: Sequence[tuple[Tensor, Tensor]],
        count: int,
        case: Case,
        arm: Arm,
    ) -> None:
        self.count = count
        self.device = batches[0][0].device
        self.next_batch = itertools.cycle(batches).__next__
        stages = case.num_stages(arm.cut) if arm.cut else 1
        with num_threads(count):
            self.trainer = build()
            self.trainer.model.train()
            for _ in range(stages + 3):  # the line is full then, and what compiles is compiled
                self.step()

    def step(self) -> None:
        self.trainer.step(*self.next_batch())

    def time_block(self, num_iterations: int) -> float:
        """Return the seconds of an update."""
        with num_threads(self.count):
            self.step()
            watch = Stopwatch(device=self.device)
            watch.start()
            for _ in range(num_iterations):
                self.step()
            watch.pause()
        return watch.seconds / num_iterations


def _calibrated(stepped: Mapping[int, _Stepped]) -> dict[int, float]:
    """Return the median seconds of a step by number of threads; nothing is built anew."""
    if len(stepped) == 1:
        return dict.fromkeys(stepped, 0.0)
    waiting = iter(stepped.values())
    return calibrate(lambda: next(waiting).step, list(stepped))


def _memory(stepped: _Stepped) -> dict[str, Any]:
    """Return what batches under way keep, and on CUDA the most that a step has allocated."""
    held = {"carry_bytes": stepped.trainer.carry_bytes()}
    if stepped.device.type != "cuda":
        return held
    torch.cuda.synchronize(stepped.device)
    before = torch.cuda.memory_allocated(stepped.device)
    torch.cuda.reset_peak_memory_stats(stepped.device)
    stepped.step()
    torch.cuda.synchronize(stepped.device)
    peak = torch.cuda.max_memory_allocated(stepped.device)
    return {**held, "step_bytes": peak - before}


class _Launches(TorchDispatchMode):
    """Counts the operations that do work: views launch nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        aliases = [argument.alias_info for argument in func._schema.arguments]
        if not any(alias is not None and not alias.is_write for alias in aliases):
            self.launches += 1
            self.products += func._schema.name.removeprefix("aten::") in _PRODUCTS
        return func(*args, **(kwargs or {}))


def count_work(
    arm: Arm,
    case: Case,
    data: Dataset,
    *,
    seed: int,
    rates: tuple[float, float],
    batch: tuple[Tensor, Tensor],
) -> dict[str, int]:
    """Return what one step of an arm needs, counted on eager code.

    Operations are those of the sequential engine, which does nothing twice; launches are of the
    arm's own engine. Activations are what backprop's backward pass keeps: decoupled stages keep
    the same, each for its own batch, and what `carry_bytes` tells besides.
    """

    def built(engine: Engine, cut: Cut | None) -> Trainer:
        return Arm(engine=engine, form="eager", cut=cut).build(case, data, seed, rates)

    least = built("sequential" if arm.cut else "backprop", arm.cut)
    with FlopCounterMode(display=False) as flops:
        least.step(*batch)
    own, counter = built(arm.engine, arm.cut), _Launches()
    for _ in range(case.num_stages(arm.cut) + 1 if arm.cut else 1):  # a line that is full
        own.step(*batch)
    with counter:
        own.step(*batch)
    plain = built("backprop", None)
    saved = peak_saved_bytes(lambda: plain.step(*batch), plain.model.parameters())
    network = least.chain if isinstance(least, Decoupled) else least.model
    trained = sum(p.nbytes for p in network.parameters())
    longest = arm.cut.length if arm.cut else case.layers
    return {
        "flops": flops.get_total_flops(),
        "launches": counter.products if "compiled" in arm.form else counter.launches,
        # Forward and backward through the longest stage and the odd layer at its end.
        "path": 2 * (longest + (2 if arm.cut is None and case.kind == "even" else 1)),
        "saved_bytes": saved,
        "trained_bytes": trained,
        "moved_bytes": 2 * (_COPIES_OF_A_PARAMETER * trained + saved),
        "working_set": _COPIES_OF_A_PARAMETER * trained + saved,
    }


def _rounded(seconds: float) -> float:
    """Return seconds with four digits: a record is no longer than what it knows."""
    return float(f"{seconds:.4g}") if math.isfinite(seconds) else seconds
