"""The reference engine: delays, orders, skipping, saving, and its errors."""

import io
import random
from collections import deque
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import synthgrad as sg
from synthgrad.errors import ConditionError, ConfigError, EngineError, UnsupportedModelError

ADAM = partial(torch.optim.Adam, lr=1e-2)
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
LABELED = sg.SyntheticGradient(condition=sg.OneHot(3))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh()) for _ in range(3)]
    return nn.Sequential(*layers, nn.Linear(6, 3)).double()


def batches(count: int, size: int = 5) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 6, dtype=torch.float64, generator=generator),
            torch.randint(0, 3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def engine(
    signal: sg.ErrorSignal = LABELED, make: partial[Any] = ADAM, **options: object
) -> sg.engines.Sequential:
    example = torch.zeros(2, 6, dtype=torch.float64)
    chain = sg.Chain.from_sequential(network(), signal=signal, example_inputs=example)
    return sg.engines.Sequential(
        chain,
        loss=F.cross_entropy,
        optimizer=make,
        synthesizer_optimizer=make,
        **options,  # type: ignore[arg-type]
    )


def weights(trained: sg.engines.Sequential) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in trained.chain.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("late_fit", ["stored", "again"])
@pytest.mark.parametrize("delays", [(1, 1, 1), (3, 0, 2)])
def test_delays_equal_a_loop_written_by_hand(late_fit: str, delays: tuple[int, ...]) -> None:
    # SGD, because Adam blows up the rounding noise of a bias in front of a batch norm.
    ours = engine(make=SGD, target_delays=delays, late_fit=late_fit)
    for x, y in batches(12):
        ours.step(x, y)
    ours.flush()

    torch.manual_seed(0)
    model = network()
    synthesizers = [nn.Linear(6 + 3, 6).double() for _ in range(3)]
    for m in synthesizers:
        nn.init.zeros_(m.weight)
        nn.init.zeros_(m.bias)
    optimizers = [SGD(stage.parameters()) for stage in model]
    fitters = [SGD(m.parameters()) for m in synthesizers]
    waiting: list[deque[tuple[Tensor, ...]]] = [deque() for _ in synthesizers]

    def fit(i: int) -> None:
        seen, weight, bias, target = waiting[i].popleft()
        m = synthesizers[i]
        if late_fit == "again":
            weight, bias = m.weight, m.bias
        weight, bias = weight.detach().requires_grad_(), bias.detach().requires_grad_()
        error = F.linear(seen, weight, bias) - target
        loss = error.square().sum() / len(seen)
        m.weight.grad, m.bias.grad = torch.autograd.grad(loss, (weight, bias))
        fitters[i].step()

    for x, y in batches(12):
        onehot = F.one_hot(y, 3).double()
        inputs, outputs = [], []
        h = x
        for i, stage in enumerate(model):
            inputs.append(h.detach().requires_grad_(i > 0))
            outputs.append(stage(inputs[-1]))
            h = outputs[-1]
        emitted = [
            (m(torch.cat([out, onehot], 1)) / len(x)).detach()
            for m, out in zip(synthesizers, outputs, strict=False)
        ]
        before = [(m.weight.detach().clone(), m.bias.detach().clone()) for m in synthesizers]
        for i, out in enumerate(outputs):
            if i < 3:
                out.backward(emitted[i])
            else:
                F.cross_entropy(out, y).backward()
        for i in range(3):
            seen = torch.cat([outputs[i].detach(), onehot], 1)
            gradient = inputs[i + 1].grad
            assert gradient is not None
            waiting[i].append((seen, *before[i], gradient * len(x)))
            if len(waiting[i]) > delays[i]:
                fit(i)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for i in range(3):
        while waiting[i]:
            fit(i)

    theirs = dict(model.state_dict())
    own = dict(
        zip(
            theirs,
            [v for stage in ours.chain for v in stage.module.state_dict().values()],
            strict=True,
        )
    )
    # The fit's arithmetic is written differently here (a loss, not its gradient).
    torch.testing.assert_close(own, theirs, rtol=1e-9, atol=1e-11)
    for stage, m in zip(ours.chain, synthesizers, strict=False):
        assert stage.interface is not None
        learned = stage.interface.synthesizers[0].last
        torch.testing.assert_close(learned.weight, m.weight, rtol=1e-9, atol=1e-11)


def test_a_delay_changes_the_numbers() -> None:
    now, late = engine(), engine(target_delays=2)
    for x, y in batches(6):
        now.step(x, y)
        late.step(x, y)
    a, b = weights(now), weights(late)
    assert not torch.equal(a["stages.0.module.0.0.weight"], b["stages.0.module.0.0.weight"])


def test_the_order_of_updates_does_not_matter() -> None:
    ordinary, shuffled = engine(), engine(order=lambda t: random.Random(t).sample(range(4), 4))
    for x, y in batches(8):
        assert torch.equal(ordinary.step(x, y), shuffled.step(x, y))
    assert_same(weights(ordinary), weights(shuffled))


@pytest.mark.parametrize("delays", [0, 2])
@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_saving_in_the_middle_changes_nothing(delays: int, probability: float) -> None:
    options = {"target_delays": delays, "update_probability": probability, "seed": 3}
    through, first = engine(**options), engine(**options)
    data = batches(10)
    for x, y in data:
        through.step(x, y)
    for x, y in data[:5]:
        first.step(x, y)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = engine(**options)
    second.load_state_dict(torch.load(file, weights_only=True))
    for x, y in data[5:]:
        second.step(x, y)
    through.flush()
    second.flush()
    assert_same(weights(through), weights(second))


def test_a_skipped_stage_and_the_synthesizer_below_it_stay_untouched() -> None:
    sparse = engine(update_probability=0.5, seed=1)
    probabilities = (0.5,) * 4
    for t, (x, y) in enumerate(batches(12)):
        drawn = sg.updates.draw_updates(probabilities, seed=1, step=t)
        before = weights(sparse)
        sparse.step(x, y)
        after = weights(sparse)
        for i, updated in enumerate(drawn):
            key = f"stages.{i}.module.{i}.{'0.' if i < 3 else ''}weight"
            # An interface that has never been fitted emits zero, so a stage may stand still.
            if not updated:
                assert torch.equal(before[key], after[key])
            if i and not updated:
                key = f"stages.{i - 1}.interface.synthesizers.0.last.weight"
                assert torch.equal(before[key], after[key])


def test_flush_fits_each_waiting_target_once() -> None:
    late = engine(target_delays=(2, 1, 0))
    for x, y in batches(5):
        late.step(x, y)
    fits = [s.interface.num_fits for s in late.chain if s.interface]
    assert fits == [3, 4, 5]
    late.flush()
    late.flush()
    assert [s.interface.num_fits for s in late.chain if s.interface] == [5, 5, 5]


def test_no_signal_trains_the_top_only() -> None:
    floor = engine(sg.NoSignal())
    before = weights(floor)
    for x, y in batches(3):
        floor.step(x, y)
    after = weights(floor)
    moved = {k for k in before if "weight" in k and not torch.equal(before[k], after[k])}
    assert moved == {"stages.3.module.3.weight"}


def test_backprop_equals_an_ordinary_loop() -> None:
    chained = engine(sg.Backprop())
    model = network()
    optimizer = ADAM(model.parameters())
    for x, y in batches(6):
        chained.step(x, y)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    own = [v for stage in chained.chain for v in stage.module.state_dict().values()]
    for ours, theirs in zip(own, model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_evaluation_counts_and_restores_the_mode() -> None:
    trained = engine()
    trained.chain.stages[1].eval()
    result = trained.evaluate(batches(3, size=4))
    model = trained.chain.eval()
    data = batches(3, size=4)
    with torch.no_grad():
        loss = sum(float(F.cross_entropy(model(x), y)) for x, y in data) / 3
        hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in data)
    assert result.num_examples == 12
    assert result.accuracy == pytest.approx(100 * hits / 12)
    assert result.loss == pytest.approx(loss)


def test_evaluation_leaves_training_modes_as_they_were() -> None:
    trained = engine()
    trained.chain.stages[1].eval()
    trained.evaluate(batches(1))
    assert [stage.training for stage in trained.chain] == [True, False, True, True]


@pytest.mark.parametrize(
    ("signal", "options", "words"),
    [
        (LABELED, {"target_delays": (1, 2)}, "each of the 3 interfaces"),
        (LABELED, {"target_delays": -1}, "0 or more"),
        (LABELED, {"late_fit": "never"}, "'stored' or 'again'"),
        (LABELED, {"update_probability": 0.0}, "(0, 1]"),
        (LABELED, {"update_probability": (0.5, 0.5)}, "4 stages"),
        (sg.Backprop(), {"target_delays": 1}, "only a delay of 0"),
        (sg.Backprop(), {"update_probability": 0.5}, "gives none"),
    ],
)
def test_bad_options_are_refused(
    signal: sg.ErrorSignal, options: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        engine(signal, **options)
    assert words in str(raised.value)


def test_a_wrong_order_is_refused() -> None:
    x, y = batches(1)[0]
    with pytest.raises(EngineError, match="each of the stages 0 to 3 once"):
        engine(order=(0, 1, 2)).step(x, y)
    with pytest.raises(EngineError, match="from the top down"):
        engine(sg.Backprop(), order=(0, 1, 2, 3)).step(x, y)


def test_labels_out_of_range_leave_the_engine_able_to_continue() -> None:
    x, y = batches(1)[0]
    trained, control = engine(), engine()
    with pytest.raises(ConditionError, match="takes 0 to 2"):
        trained.step(x, y + 2)
    trained.step(x, y)
    control.step(x, y)
    kept = {k: v for k, v in weights(trained).items() if "running" not in k and "num_b" not in k}
    assert_same(kept, {k: v for k, v in weights(control).items() if k in kept})


def test_a_state_of_another_chain_is_refused() -> None:
    other = sg.engines.Sequential(
        sg.Chain.from_sequential(
            network(), stages=2, signal=LABELED, example_inputs=batches(1)[0][0]
        ),
        loss=F.cross_entropy,
        optimizer=ADAM,
        synthesizer_optimizer=ADAM,
    )
    with pytest.raises(EngineError, match="2 stages and this chain has 4"):
        engine().load_state_dict(other.state_dict())


def test_shared_weights_across_stages_are_refused() -> None:
    shared = nn.Linear(4, 4)
    with pytest.raises(UnsupportedModelError, match="shared with stage 0"):
        sg.Chain.from_modules([shared, nn.Sequential(shared)], example_inputs=torch.zeros(2, 4))


@pytest.mark.parametrize(
    "options", [{"stages": 5}, {"stages": 0}, {"cuts": [2, 2]}, {"cuts": [0]}, {"cuts": [4]}]
)
def test_cuts_that_do_not_fit_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        sg.Chain.from_sequential(network(), example_inputs=batches(1)[0][0], **options)  # type: ignore[arg-type]


def test_stages_and_cuts_divide_the_children() -> None:
    x = batches(1)[0][0]
    by_number = sg.Chain.from_sequential(network(), stages=2, example_inputs=x)
    by_place = sg.Chain.from_sequential(network(), cuts=[1, 3], example_inputs=x)
    assert [len(stage.module) for stage in by_number] == [2, 2]  # type: ignore[arg-type]
    assert [len(stage.module) for stage in by_place] == [1, 2, 1]  # type: ignore[arg-type]
    assert all(a.interface is not b.interface for a, b in pairwise(by_place))


def test_an_exception_in_a_backward_leaves_nothing_behind() -> None:
    trained, control = engine(), engine()
    data = batches(3)
    failing = [True]

    def fail_once(gradient: Tensor) -> None:
        if failing.pop() if failing else False:
            raise MemoryError

    weight = trained.chain.stages[2].module[0][0].weight  # type: ignore[index, union-attr]
    for x, y in data[:2]:
        trained.step(x, y)
        control.step(x, y)
    handle = weight.register_hook(fail_once)
    failing.append(True)
    with pytest.raises(MemoryError):
        trained.step(*data[2])
    handle.remove()
    assert all(p.grad is None for p in trained.chain.parameters())


def test_a_frozen_top_trains_the_stages_below() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    model[2].requires_grad_(False)
    x, y = batches(1)[0]
    chain = sg.Chain.from_sequential(
        model, cuts=[2], signal=sg.LocalLoss(num_classes=3), example_inputs=x
    )
    frozen_top = sg.engines.Sequential(
        chain, loss=F.cross_entropy, optimizer=ADAM, synthesizer_optimizer=ADAM
    )
    before = model[0].weight.detach().clone()
    frozen_top.step(x, y)
    assert not torch.equal(before, model[0].weight)
