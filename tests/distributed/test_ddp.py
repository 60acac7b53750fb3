"""DDP and FSDP over two processes: equal on both ranks, and equal to an average by hand."""

import itertools

import ddp_worker as worker
import pytest
import torch
import torch.nn.functional as F
from spawned import run_ranks

pytestmark = pytest.mark.distributed
EXACT = {"rtol": 0, "atol": 0}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank noted, in all scenarios."""
    return run_ranks(worker, tmp_path_factory.mktemp("ddp"))


def by_hand(name):
    """One process: each rank's half computed separately, gradients averaged."""
    net = worker.decoupled(**worker.SCENARIOS[name]["net"])
    optimizer = worker.adam(net)
    notes, sums = [], {}
    for number in range(worker.STEPS):
        state = net.num_forwards
        for rank in range(worker.RANKS):
            net.num_forwards = state  # the ranks draw alike
            x, y = worker.batch(number, rank)
            F.cross_entropy(net(x, condition=y), y).backward()
            for key, p in net.named_parameters():
                if p.grad is not None:
                    half = p.grad / worker.RANKS
                    sums[rank, key] = sums[rank, key] + half if (rank, key) in sums else half
            net.zero_grad()
        if (number + 1) % net.accumulate == 0:
            for key, p in net.named_parameters():
                if (0, key) in sums:
                    p.grad = sums[0, key] + sums[1, key]
            notes.append(worker.note(net, optimizer))
            optimizer.step()
            optimizer.zero_grad()
            sums.clear()
    notes.append(worker.note(net, optimizer))
    return notes


@pytest.mark.parametrize("name", worker.SCENARIOS)
def test_ranks_agree(ranks, name):
    torch.testing.assert_close(ranks[0][name], ranks[1][name], **EXACT)


@pytest.mark.parametrize("name", worker.SCENARIOS)
def test_training_equals_an_average_by_hand(ranks, name):
    found, expected = ranks[0][name], by_hand(name)
    assert len(found) == len(expected)
    torch.testing.assert_close(found, expected, **EXACT)
    moved = zip(found[0]["parameters"], found[-1]["parameters"], strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)


def test_nothing_of_a_skipped_stage_moves(ranks):
    notes = ranks[0]["skipping"]
    # Parameters: weight and bias of 4 stages, then of 3 synthesizers, each fitted by the next one.
    stage_of = [k // 2 for k in range(8)] + [1 + k // 2 for k in range(6)]
    seen = set()
    for before, after in itertools.pairwise(notes):
        for k, stage in enumerate(stage_of):
            updated = before["updated"][stage]
            seen.add((stage, updated))
            assert (before["gradients"][k] is not None) == updated
            same = torch.equal(before["parameters"][k], after["parameters"][k])
            assert same != updated
            if not updated:
                torch.testing.assert_close(before["adam"][k], after["adam"][k], **EXACT)
    assert len(seen) == 8, "each stage was skipped, and was updated"


@pytest.mark.parametrize("each_stage", [False, True])
def test_fsdp_trains_as_ddp_does(ranks, each_stage):
    found = [results[f"FSDP {each_stage}"] for results in ranks]
    expected = ranks[0]["every stage"][-1]["parameters"]
    torch.testing.assert_close(found, [expected, expected], **EXACT)


@pytest.mark.parametrize("name", worker.REFUSED)
def test_what_cannot_work_is_refused_on_every_rank(ranks, name):
    messages = [results[name] for results in ranks]
    expected = "release='backward'" if "release" in name else "find_unused_parameters=True"
    assert all(expected in m for m in messages), messages
