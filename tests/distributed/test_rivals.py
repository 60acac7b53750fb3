"""The rivals of the pipeline engine on two ranks: each does what it is compared as."""

from itertools import islice, pairwise

import pytest
import rivals_worker as worker
import torch
import torch.nn.functional as F

import synthgrad as sg
from synthgrad.engines.pipeline import launch
from synthgrad.experiments.pipeline.methods import NAMES, NUM_MICROBATCHES
from synthgrad.experiments.pipeline.schedule_times import (
    HELD_MICROBATCHES,
    fit_runtime_s,
    simulated_s,
)
from synthgrad.experiments.pipeline.stage_times import merge_line
from synthgrad.planning import Link, Measurements, StageTimes

pytestmark = pytest.mark.distributed
EXACT = {"rtol": 0, "atol": 0}
# Sums over micro-batches and over replicas are rounded in another order than over the batch.
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(scope="module")
def ranks():
    return launch(worker.work, num_ranks=worker.RANKS)


def batches(workload):
    return list(islice(workload.batches(), worker.STEPS))


def by_backprop(workload, num_stages):
    """Ordinary training; the parameters of each stage."""
    network = workload.build(signal_in_time=False)
    optimizer = workload.make_optimizer(list(network.parameters()))
    for x, y in batches(workload):
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    bounds = [0, *workload.cuts(num_stages), len(network)]
    return {
        k: [p.detach() for p in network[a:b].parameters()]
        for k, (a, b) in enumerate(pairwise(bounds))
    }


def by_late_gradients(workload, delay):
    """Plain autograd: gradients at the weights of then, applied to the lower stage later."""
    lower, upper = workload.stages(2)
    optimizers = [workload.make_optimizer(list(stage.parameters())) for stage in (lower, upper)]
    waiting = []

    def apply():
        for p, gradient in zip(lower.parameters(), waiting.pop(0), strict=True):
            p.grad = gradient
        optimizers[0].step()

    for x, y in batches(workload):
        h = lower(x)
        leaf = h.detach().requires_grad_()
        optimizers[1].zero_grad()
        F.cross_entropy(upper(leaf), y).backward()
        optimizers[1].step()
        waiting.append(torch.autograd.grad(h, list(lower.parameters()), leaf.grad))
        if len(waiting) > delay:
            apply()
    while waiting:
        apply()
    return {k: [p.detach() for p in s.parameters()] for k, s in enumerate((lower, upper))}


def found(ranks, name):
    merged = {}
    for rank in ranks:
        merged |= rank[name]["parameters"]
    return merged


def test_backprop_in_one_process_is_ordinary_training(ranks):
    for name in ("backprop", "backprop-2"):
        torch.testing.assert_close(found(ranks[:1], name), by_backprop(worker.TINY, 1), **EXACT)
        assert not ranks[1][name]["parameters"], "the other rank stands still"


def test_replicas_train_as_one(ranks):
    for rank in ranks:
        torch.testing.assert_close(rank["ddp"]["parameters"], by_backprop(worker.TINY, 1), **CLOSE)
    torch.testing.assert_close(found(ranks[:1], "ddp"), found(ranks[1:], "ddp"), **EXACT)


@pytest.mark.parametrize("name", [*NUM_MICROBATCHES, "1f1b-4, delayed"])
def test_torchs_schedules_are_backprop(ranks, name):
    expected = by_backprop(worker.TINY, 4 if name == "zero-bubble" else 2)
    torch.testing.assert_close(found(ranks, name), expected, **CLOSE)


@pytest.mark.parametrize(("name", "delay"), [("ddg", 1), ("stashing", worker.MAX_IN_FLIGHT - 1)])
def test_late_gradients_equal_autograd_by_hand(ranks, name, delay):
    torch.testing.assert_close(found(ranks, name), by_late_gradients(worker.TINY, delay), **EXACT)
    assert found(ranks, name)[1][0].ne(by_backprop(worker.TINY, 2)[1][0]).any()


@pytest.mark.parametrize("name", ["cdni", "dni", "cdni, delayed"])
def test_the_engine_is_the_reference_with_the_same_delay(ranks, name):
    signal = sg.SyntheticGradient(synthesizer="linear") if name == "dni" else None
    chain = worker.TINY.chain(2, signal)
    engine = sg.engines.Sequential(
        chain,
        loss=F.cross_entropy,
        optimizer=worker.TINY.make_optimizer,
        synthesizer_optimizer=worker.TINY.make_optimizer,
        target_delays=worker.TARGET_DELAY,
        late_fit="again",
    )
    for x, y in batches(worker.TINY):
        engine.step(x, y)
    expected = {k: [p.detach() for p in s.module.parameters()] for k, s in enumerate(chain)}
    torch.testing.assert_close(found(ranks, name), expected, **EXACT)


def test_what_is_sent_is_counted(ranks):
    activation = worker.TINY.batch_size * 7 * 8  # of the middle, in float64
    for name, parts in NUM_MICROBATCHES.items():
        if name != "zero-bubble":
            for rank in ranks:
                assert rank[name]["messages"] == worker.STEPS * parts
    # Torch cuts between the second layer and the third.
    width = 6 * activation // 7
    assert [rank["1f1b-4"]["bytes"] for rank in ranks] == [worker.STEPS * width] * 2
    for name in ("ddg", "cdni"):
        assert all(rank[name]["messages"] >= worker.STEPS for rank in ranks)
        assert all(rank[name]["bytes"] > worker.STEPS * width for rank in ranks)
    assert ranks[1]["dgl"]["bytes"] < width, "local losses send nothing down"
    assert ranks[0]["backprop"]["messages"] == 0


def test_every_method_notes_what_it_does(ranks):
    for name in NAMES:
        assert {"forward", "backward"} <= {*ranks[0][name]["kinds"]}
    assert "fit" in ranks[0]["cdni"]["kinds"]
    assert 1 <= ranks[0]["cdni"]["most"] <= worker.MAX_IN_FLIGHT


@pytest.mark.parametrize("name", ["backprop", "ddp", "1f1b-4", "ddg"])
def test_states_are_carried_by_the_streams_that_they_belong_to(ranks, name):
    """Micro-batches and replicas of streams: each goes on from its own state."""
    if name == "ddg":
        expected = by_late_gradients(worker.TEXT, 1)
    else:
        expected = by_backprop(worker.TEXT, 2 if name == "1f1b-4" else 1)
    used = ranks if name in ("1f1b-4", "ddg") else ranks[:1]
    # float32, and other orders of summing.
    torch.testing.assert_close(found(used, f"text {name}"), expected, rtol=1e-4, atol=1e-6)


def test_stages_that_hold_their_processors_take_no_less_than_their_work(ranks):
    by_hand_s = 0.024 * (1 + 1 / HELD_MICROBATCHES)  # a batch, and a micro-batch's bubble
    batches_s = ranks[0]["held"]["batches_s"]
    assert len(batches_s) == 3
    assert by_hand_s < min(batches_s) < 20 * by_hand_s
    held = [StageTimes(**rank["held"]["stage"]) for rank in ranks]
    assert [(h.forward_s, h.backward_s) for h in held] == [(0.016, 0.008)] * 2
    assert simulated_s(held, Link()) == pytest.approx(by_hand_s)
    assert fit_runtime_s(held, Link(), by_hand_s / 2) == 0, "never less than nothing"


def test_a_line_is_measured_with_the_runtime_once_there_are_medians(ranks):
    before = merge_line([rank["line before"] for rank in ranks], worker.TINY, "before")
    assert "held" not in before
    line = merge_line([rank["line"] for rank in ranks], worker.TINY, "after")
    stages = Measurements.from_json(line).stages
    assert stages[0].activation_bytes == 16 * 6 * 8
    assert stages[0].predict_s > 0 == stages[1].predict_s
    held = [StageTimes(**stage) for stage in line["held"]["stages"]]
    again = simulated_s(held, Measurements.from_json(line).link, stages[0].runtime_s)
    assert again == pytest.approx(max(line["held"]["batch_s"], line["held"]["simulated_s"]))
