"""The pipeline engine over threads: equal to the reference in order, and nothing lost when free."""

import copy
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest
import torch
from pipeline_threads import (
    ADAM,
    LABELED,
    batches,
    chain_of,
    network,
    on_ranks,
    options,
    pipelines,
)
from torch import Tensor
from torch.nn import functional as F

import synthgrad as sg
from synthgrad.engines.pipeline import Delayed
from synthgrad.errors import ConditionError, ConfigError

EXACT = {"rtol": 0, "atol": 0}


def states(engine: sg.engines.Pipeline) -> dict[str, Tensor]:
    return {
        f"{s}.{key}": value.clone()
        for s in engine.stages
        for key, value in engine.chain.stages[s].state_dict().items()
    }


def reference(data: list[tuple[Tensor, Tensor]], chain: sg.Chain, **given: Any) -> Any:
    engine = sg.engines.Sequential(copy.deepcopy(chain), **options(**given))
    losses = [engine.step(x, y) for x, y in data]
    engine.flush()
    trained = {
        f"{s}.{key}": value
        for s, stage in enumerate(engine.chain)
        for key, value in stage.state_dict().items()
    }
    return trained, losses, engine.evaluate(batches(3))


def train(engine: sg.engines.Pipeline, data: list[tuple[Tensor, Tensor]]) -> Any:
    losses = [engine.step(x, y) for x, y in data]
    engine.flush()
    return states(engine), losses, engine.evaluate(batches(3))


def assert_equals_reference(
    num_ranks: int, *, chain: sg.Chain, data: list[tuple[Tensor, Tensor]], **given: Any
) -> None:
    found = pipelines(lambda e: train(e, data), chain, num_ranks, **given)
    trained, losses, evaluation = reference(data, chain, **given)
    together = {key: value for own, _, _ in found for key, value in own.items()}
    torch.testing.assert_close(together, trained, **EXACT)
    assert found[-1][1] == losses
    assert all(own == [None] * len(data) for _, own, _ in found[:-1])
    assert all(each == evaluation for *_, each in found)


@pytest.mark.parametrize("late_fit", ["stored", "again"])
@pytest.mark.parametrize(("num_ranks", "delays"), [(2, 2), (4, 0), (4, 1), (3, (1, 3, 0)), (1, 2)])
def test_in_order_it_equals_the_reference(num_ranks: int, delays: Any, late_fit: str) -> None:
    data = batches(50)
    assert_equals_reference(
        num_ranks, chain=chain_of(), data=data, target_delays=delays, late_fit=late_fit
    )


@pytest.mark.parametrize(
    ("signal", "given"),
    [
        (sg.Backprop(), {"target_delays": 0}),
        (sg.SyntheticGradient(mix=0.5), {"target_delays": 0}),
        (sg.SyntheticGradient(trace_decay=0.5), {"target_delays": 0}),
        (sg.LocalLoss(num_classes=3), {"target_delays": 2}),
        (sg.NoSignal(), {"target_delays": 1}),
        (LABELED, {"target_delays": 2, "update_probability": 0.5, "seed": 3}),
        (sg.SyntheticGradient(condition=sg.OneHot(3), fit_first=4), {"target_delays": 1}),
    ],
)
def test_every_signal_equals_the_reference(signal: sg.ErrorSignal, given: Any) -> None:
    assert_equals_reference(3, chain=chain_of(signal), data=batches(12), **given)


def test_batches_of_other_sizes_and_a_flush_between_equal_the_reference() -> None:
    data = [batch for size in (5, 3, 7, 2) for batch in batches(3, size)]
    assert_equals_reference(2, chain=chain_of(), data=data, target_delays=2)


class Mapped(torch.nn.Module):
    """Hands up what is no single compact tensor: a dict, integers, a transposed view, a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(6, 8).double()

    def forward(self, x: Tensor) -> Any:
        h = self.layer(x).tanh()
        wide = h.unflatten(1, (4, 2)).transpose(1, 2)
        return {"wide": wide, "rest": (h[:, :3], [torch.arange(2)]), "times": 2.0}


class Gathered(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(11, 3).double()

    def forward(self, given: Any) -> Tensor:
        rest, (index,) = given["rest"]
        wide = given["wide"][:, index] * given["times"]
        return self.layer(torch.cat([wide.flatten(1), rest], 1))


def test_any_nesting_of_tensors_travels() -> None:
    chain = sg.Chain.from_modules(
        [Mapped(), Gathered()],
        signal=sg.SyntheticGradient(),
        example_inputs=torch.zeros(2, 6, dtype=torch.float64),
    )
    assert_equals_reference(2, chain=chain, data=batches(12), target_delays=1)


def test_a_condition_of_its_own_travels() -> None:
    chain = chain_of(sg.SyntheticGradient(condition=sg.Features(2)))
    data = batches(8)
    generator = torch.Generator().manual_seed(5)
    given = [torch.randn(5, 2, dtype=torch.float64, generator=generator) for _ in data]

    def work(engine: Any) -> Any:
        for (x, y), condition in zip(data, given, strict=True):
            engine.step(x, y, condition=condition)
        engine.flush()
        return engine.chain

    sequential = sg.engines.Sequential(copy.deepcopy(chain), **options(target_delays=1))
    trained = work(sequential)
    for rank, found in enumerate(pipelines(work, chain, 4, target_delays=1)):
        expected = trained.stages[rank].state_dict()
        torch.testing.assert_close(found.stages[rank].state_dict(), expected, **EXACT)


# What a free pipeline must keep, however late anything comes.


def counted(engine: sg.engines.Pipeline) -> Any:
    data = batches(30)
    for x, y in data[:20]:
        engine.step(x, y)
    engine.flush()
    for x, y in data[20:]:
        engine.step(x, y)
    engine.flush()
    return engine.stages, engine.timeline, engine.statistics


def late(seed: int) -> Any:
    """Transports whose messages come up to three milliseconds late."""

    def wrap(transport: Any) -> Delayed:
        draw = random.Random(100 * seed + transport.rank)
        return Delayed(transport, lambda: draw.choice([0.0, 0.0, 0.001, 0.003]))

    return wrap


@pytest.mark.parametrize("seed", range(20))
def test_a_free_pipeline_loses_no_batch_and_applies_none_twice(seed: int) -> None:
    found = pipelines(
        counted,
        chain_of(),
        2 + seed % 3,
        wrap=late(seed),
        mode="free",
        max_in_flight=1 + seed % 4,
        timeline=True,
    )
    once = Counter(range(30))
    seen = Counter[int]()
    for stages, timeline, statistics in found:
        for s in stages:
            kinds = ("forward", "backward", "fit") if s < 3 else ("forward", "backward")
            for kind in kinds:
                assert Counter(x.batch for x in timeline if (x.kind, x.stage) == (kind, s)) == once
            if s < 3:
                assert sum(statistics.staleness[s].values()) == 30
                assert max(statistics.staleness[s]) < 1 + seed % 4
            seen[s] += 1
        assert statistics.max_in_flight <= 1 + seed % 4
        assert statistics.num_steps == 30
    assert seen == Counter(range(4))


def test_a_free_pipeline_learns_from_what_arrives() -> None:
    (_, _, bottom), _ = pipelines(counted, chain_of(), 2, mode="free", timeline=True)
    assert bottom.num_fits == 60, "two interfaces, thirty batches"
    assert 0 < bottom.idle_share < 1


# The slow rank.


@pytest.mark.parametrize("mode", ["ordered", "free"])
def test_a_slow_rank_costs_no_more_memory_than_is_allowed(mode: str) -> None:
    """The bottom could run ahead of a top that stands still; it stops at what may be in flight."""
    went = [threading.Event() for _ in range(12)]

    def work(engine: sg.engines.Pipeline) -> tuple[int, int]:
        ahead = 0
        for number, (x, y) in enumerate(batches(12)):
            if engine.place.above is None and number:  # the first one tells the layout
                assert went[min(number + 2, 11)].wait(20)
                time.sleep(0.01)  # in which a bottom without a bound would go on
                ahead = max(ahead, sum(event.is_set() for event in went) - number)
            elif engine.place.below is None:
                went[number].set()
            engine.step(x, y)
        engine.flush()
        return engine.statistics.max_in_flight, ahead

    bottom, top = pipelines(work, chain_of(), 2, mode=mode, max_in_flight=3)
    assert bottom[0] == 3
    # One more step has begun, and waits.
    assert 3 <= top[1] <= 4


# What is refused.


@pytest.mark.parametrize(
    ("num_ranks", "given", "words"),
    [
        (2, {"mode": "fast"}, "'ordered' or 'free'"),
        (2, {"late_fit": "never"}, "'stored' or 'again'"),
        (2, {"target_delays": 4}, "must be larger"),
        (2, {"target_delays": (1, 2)}, "each of the 3 interfaces"),
        (2, {"max_in_flight": 0}, "1 or more"),
        (2, {"replicas": 2, "mode": "free"}, "mode='ordered'"),
        (5, {}, "4 stages: start 4 ranks or fewer"),
        (3, {"replicas": 2}, "multiple of it"),
    ],
)
def test_bad_options_are_refused(num_ranks: int, given: Any, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        pipelines(lambda engine: None, chain_of(), num_ranks, **given)
    assert words in str(raised.value)


@pytest.mark.parametrize("signal", [sg.Backprop(), sg.SyntheticGradient(trace_decay=0.5)])
def test_a_free_pipeline_refuses_signals_that_wait(signal: sg.ErrorSignal) -> None:
    with pytest.raises(ConfigError, match="target_delays=0"):
        pipelines(lambda engine: None, chain_of(signal), 2, mode="free")


def test_a_difference_between_two_ranks_is_named_on_both() -> None:
    told = list[str]()

    def build(rank: int) -> None:
        with pytest.raises(ConfigError) as raised:
            sg.engines.Pipeline(chain_of(), **options(seed=7 * rank), transport=transports[rank])
        told.append(str(raised.value))

    transports = sg.engines.pipeline.in_process(2)
    on_ranks(build, [(0,), (1,)])
    assert told == ["rank 1 has seed=7 where rank 0 has 0: give every rank the same options."] * 2


def test_bad_labels_change_nothing_and_training_goes_on() -> None:
    data = batches(6)

    def work(engine: sg.engines.Pipeline) -> Any:
        if engine.place.below is None:
            with pytest.raises(ConditionError, match="takes 0 to 2"):
                engine.step(data[0][0], data[0][1] + 2)
        return train(engine, data)

    found = pipelines(work, chain_of(), 2)
    trained, losses, _ = reference(data, chain_of(), target_delays=2)
    assert found[-1][1] == losses
    torch.testing.assert_close(found[0][0] | found[1][0], trained, **EXACT)


# The complete unlock.


def unlocked(work: Any, num_ranks: int, **given: Any) -> list[Any]:
    return pipelines(
        work,
        chain_of(stages=3),
        num_ranks,
        **{
            "synthetic_input": sg.SyntheticInput(model="linear"),
            "synthetic_input_optimizer": ADAM,
            "example_inputs": torch.zeros(2, 6, dtype=torch.float64),
            **given,
        },
    )


def test_without_delay_the_complete_unlock_equals_the_decoupled_model() -> None:
    data = batches(10)
    net = sg.decouple(
        network(3),
        "every",
        signal=LABELED,
        synthetic_input=sg.SyntheticInput(model="linear"),
        example_inputs=torch.zeros(2, 6, dtype=torch.float64),
    )
    models = [module[0] for module in net.synthetic_inputs.values()]
    begun = copy.deepcopy([model.state_dict() for model in models])
    optimizer = ADAM(net.parameters())
    for x, y in data:
        F.cross_entropy(net(x, condition=y), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    def work(engine: sg.engines.Pipeline) -> Any:
        if engine._input is not None:
            engine._input.model.load_state_dict(begun[engine.rank - 1])
        for x, y in data:
            engine.step(x, y)
        learned = [] if engine._input is None else [engine._input.model.state_dict()]
        return engine.chain.stages[engine.rank].module.state_dict(), learned

    found = unlocked(work, 3, target_delays=0)
    trained = net.model.state_dict()
    for own, _ in found:
        torch.testing.assert_close(own, {key: trained[key] for key in own}, **EXACT)
    learned = [each for _, own in found for each in own]
    torch.testing.assert_close(learned, [model.state_dict() for model in models], **EXACT)


def test_with_the_complete_unlock_no_rank_waits_for_an_activation() -> None:
    """The rank above takes its first steps while the one below has not even begun."""
    ahead = threading.Event()

    def work(engine: sg.engines.Pipeline) -> Any:
        if engine.place.below is None:
            assert ahead.wait(20)
        for number, (x, y) in enumerate(batches(12)):
            if engine.place.above is None and number == 2:
                ahead.set()
            engine.step(x, y)
        engine.flush()
        return engine.timeline, engine.statistics

    for mode in ("ordered", "free"):
        ahead.clear()
        bottom, top = unlocked(work, 2, mode=mode, timeline=True)
        once = Counter(range(12))
        assert Counter(s.batch for s in top[0] if s.kind == "fit input") == once
        assert Counter(s.batch for s in bottom[0] if s.kind == "fit") == once


@pytest.mark.parametrize("seed", range(4))
def test_a_free_and_unlocked_pipeline_loses_nothing(seed: int) -> None:
    found = unlocked(counted, 3, mode="free", timeline=True, wrap=late(seed), max_in_flight=2)
    once = Counter(range(30))
    for stages, timeline, _ in found:
        for kind in ("forward", "backward", *["fit"][: stages[0] < 2], *["fit input"][: stages[0]]):
            assert Counter(x.batch for x in timeline if x.kind == kind) == once


def test_the_complete_unlock_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match="needs example_inputs"):
        unlocked(lambda engine: None, 2, example_inputs=None)
    with pytest.raises(ConfigError, match="synthetic_input_optimizer"):
        unlocked(lambda engine: None, 2, synthetic_input_optimizer=None)
