import gc

import pytest
import torch
from tiny import tiny_learner
from torch import nn

from synthgrad.bench.running.learner import Learner
from synthgrad.bench.running.measure import _choices, measure_facts, peak_saved_bytes

X, Y = torch.rand(16, 1, 4, 4), torch.arange(16) % 3


def facts(learner):
    learner.step(X, Y)
    return measure_facts(learner, X, Y)


def test_backprop_by_formula():
    found = facts(tiny_learner())
    products = 2 * 16 * (16 * 8), 2 * 16 * (8 * 8), 2 * 16 * (8 * 3)
    # Forward and the weights' gradients for each; the inputs' gradients for all but the first.
    assert found["flops_per_iteration"] == 2 * sum(products) + sum(products[1:])
    assert found["stage_parameters"] == (16 * 8 + 8 + 16) + (8 * 8 + 8 + 16) + (8 * 3 + 3)
    assert found["synthesizer_parameters"] == 0
    assert found["num_stages"] == 3


def test_synthesizers_count():
    found = facts(tiny_learner("cdni"))
    backprop = facts(tiny_learner())
    assert found["synthesizer_parameters"] == 2 * (11 * 8 + 8)
    assert found["stage_parameters"] == backprop["stage_parameters"]
    # Each synthesizer adds its forward and its weight's gradient. The stages do what they did.
    assert found["flops_per_iteration"] == backprop["flops_per_iteration"] + 2 * 4 * 16 * 11 * 8
    assert found["memory_bytes"] > backprop["memory_bytes"]


def test_untrained_stages_cost_a_forward_pass_only():
    found = facts(tiny_learner("no-signal"))
    assert found["flops_per_iteration"] == 2 * 16 * (16 * 8 + 8 * 8 + 8 * 3) + 2 * 16 * 8 * 3


def test_skipped_stages_cost_what_they_do_on_average():
    sparse, full = tiny_learner("cdni-p05"), tiny_learner("cdni")
    expected = 0.0
    for share, chosen in _choices((0.5, 0.5, 0.5)):
        full.decoupled._probabilities = tuple(map(float, chosen))
        expected += share * measure_once(full)
    assert facts(sparse)["flops_per_iteration"] == round(expected)
    assert facts(sparse)["flops_per_iteration"] < facts(tiny_learner("cdni"))["flops_per_iteration"]
    assert sparse.decoupled._probabilities == (0.5, 0.5, 0.5)


def measure_once(learner):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        learner.eager_loss(X, Y).backward()
    learner.optimizer.zero_grad()
    return counter.get_total_flops()


@pytest.mark.parametrize("num_stages", [1, 3, 7])
def test_choices_are_a_distribution_that_begins_with_all(num_stages):
    choices = list(_choices((0.2,) * num_stages))
    assert choices[0][1] == (True,) * num_stages
    assert sum(share for share, _ in choices) == pytest.approx(1.0)
    mean = sum(share * sum(chosen) for share, chosen in choices)
    assert mean == pytest.approx(0.2 * num_stages, rel=1e-9 if num_stages <= 6 else 0.3)


def test_memory_by_hand():
    layer = nn.Linear(4, 2, bias=False)
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    learner = Learner(layer, optimizer, num_stages=1, loss=lambda out, labels: out.square().sum())
    x = torch.rand(3, 4)
    learner.step(x, Y[:3])
    weight, step, activations = 4 * 8, 4, 4 * 3 * 4 + 4 * 3 * 2  # the input and the output
    expected = 4 * weight + step + activations  # parameter, gradient, two moments
    assert measure_facts(learner, x, Y[:3])["memory_bytes"] == expected


def test_a_compiled_learner_does_not_tell_its_memory():
    learner = tiny_learner()
    learner.compiled = True
    assert facts(learner)["memory_bytes"] is None


def test_saved_bytes_of_a_known_graph():
    x = torch.ones(10, requires_grad=True)

    def run():
        x.exp().exp().sum().backward()  # each saves its result

    assert peak_saved_bytes(run) == 80


def test_a_storage_that_is_saved_twice_counts_once():
    x = torch.ones(10, requires_grad=True)

    def run():
        y = x * 2
        (y.square().sum() + y.cos().sum()).backward()

    assert peak_saved_bytes(run) == 40


def test_what_is_there_anyway_is_left_out():
    w, x = torch.ones(10, requires_grad=True), torch.ones(10, requires_grad=True)
    assert peak_saved_bytes(lambda: (w * x).sum().backward()) == 80
    assert peak_saved_bytes(lambda: (w * x).sum().backward(), [w]) == 40


def test_the_peak_is_of_what_lives_at_once():
    x = torch.ones(10, requires_grad=True)

    def one_after_the_other():
        for _ in range(5):
            x.exp().sum().backward()

    def together():
        sum(x.exp().sum() for _ in range(5)).backward()

    gc.disable()  # the count must not wait for the garbage collector
    try:
        assert peak_saved_bytes(one_after_the_other) == 40
    finally:
        gc.enable()
    assert peak_saved_bytes(together) == 200
