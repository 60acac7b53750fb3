"""DNI as a schedule of torch's pipelining, on three ranks: equal to Sequential and to a hand."""

import importlib

import pytest
import schedule_worker as worker
import torch
import torch.nn.functional as F
from spawned import run_ranks

import synthgrad as sg

pytestmark = pytest.mark.distributed
EXACT = {"rtol": 0, "atol": 0}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank found, in all scenarios."""
    return run_ranks(worker, tmp_path_factory.mktemp("schedule"))


def by_sequential():
    """One micro-batch a step is `Sequential` with a delay of one batch."""
    chain = worker.chain()
    engine = sg.engines.Sequential(
        chain,
        loss=F.cross_entropy,
        optimizer=worker.ADAM,
        synthesizer_optimizer=worker.ADAM,
        target_delays=1,
        late_fit="again",
    )
    losses = [engine.step(*worker.batch(number)) for number in range(worker.STEPS)]
    return chain, losses


def by_hand(microbatches, delay):
    """Plain autograd, micro-batch by micro-batch, with the fits of a step as they are due."""
    chain = worker.chain()
    optimizers = [worker.ADAM(stage.parameters()) for stage in chain]
    waiting = [[], []]
    losses, size = [], worker.BATCH // microbatches
    for number in range(worker.STEPS):
        for x, y in zip(*(t.split(size) for t in worker.batch(number)), strict=True):
            inputs, outputs, code = [x], [], F.one_hot(y, 3).double()
            for stage in chain:
                outputs.append(stage.module(inputs[-1]))
                inputs.append(outputs[-1].detach().requires_grad_())
            losses.append(F.cross_entropy(outputs[-1], y))
            losses[-1].backward()
            for k in (1, 0):
                module = chain.stages[k].interface.synthesizers[0]
                h = outputs[k].detach()
                outputs[k].backward(module(h, code).detach() / size)
                waiting[k].append((h, code, inputs[k + 1].grad))
                if len(waiting[k]) > delay:
                    h, code_then, target = waiting[k].pop(0)
                    error = module(h, code_then) - target * size
                    (error.square().sum() / size).backward()
        for stage, optimizer in zip(chain, optimizers, strict=True):
            for p in stage.parameters():
                if p.grad is not None:
                    p.grad /= microbatches
            optimizer.step()
            optimizer.zero_grad()
    return chain, losses


def test_one_micro_batch_equals_sequential_with_a_delay_of_one(ranks):
    chain, losses = by_sequential()
    for rank, found in enumerate(ranks):
        torch.testing.assert_close(
            found["one micro-batch"]["parameters"], worker.of_rank(chain, rank), **EXACT
        )
    torch.testing.assert_close(ranks[-1]["one micro-batch"]["losses"], losses, **EXACT)


@pytest.mark.parametrize("name", worker.SCENARIOS)
def test_micro_batches_equal_autograd_by_hand(ranks, name):
    chain, losses = by_hand(**worker.SCENARIOS[name])
    start = worker.chain()
    for rank, found in enumerate(ranks):
        expected = worker.of_rank(chain, rank)
        # The regression's gradient is rounded in another order here.
        torch.testing.assert_close(found[name]["parameters"], expected, rtol=1e-9, atol=1e-12)
        assert all(
            not torch.equal(p, found[name]["parameters"][key])
            for key, p in worker.of_rank(start, rank).items()
        )
    seen = [loss.item() for loss in ranks[-1][name]["losses"]]
    assert seen == pytest.approx([loss.item() for loss in losses], rel=1e-9)


@pytest.mark.parametrize("name", worker.SCENARIOS)
def test_evaluation_runs_the_trained_stages_and_fits_what_waits(ranks, name):
    h = worker.batch(0)[0]
    chain = worker.chain()
    for rank, found in enumerate(ranks):
        chain.stages[rank].load_state_dict(found[name]["parameters"], strict=False)
        assert bool(found[name]["late"]) == (rank < worker.RANKS - 1)
        assert all("synthesizers" in key for key in found[name]["late"])
    with torch.no_grad():
        # One matmul there is four here.
        torch.testing.assert_close(ranks[-1][name]["output"], chain(h), rtol=1e-12, atol=1e-14)


def test_what_cannot_work_is_refused_before_anything_is_sent(ranks):
    assert [len(found["refusals"]) for found in ranks] == [4, 4, 1]
    nothing, early, late, mixed = ranks[0]["refusals"]
    assert "interface=None" in nothing
    assert "target_delay=0" in early
    assert "n_microbatches=4" in late
    assert "mix=0.5" in mixed


def test_torchs_own_schedule_gives_the_gradients_of_backprop(ranks):
    chain = worker.chain()
    x, y = worker.batch(0)
    F.cross_entropy(chain(x), y).backward()
    for rank, found in enumerate(ranks):
        for name, p in chain.stages[rank].module.named_parameters():
            # Averages over four micro-batches are rounded in another order.
            torch.testing.assert_close(found["1F1B"][name], p.grad, rtol=1e-10, atol=1e-13)


def test_another_torch_is_refused_by_name(monkeypatch):
    import synthgrad.engines.pipeline.torch_schedule as module

    monkeypatch.setattr(torch, "__version__", "2.99.0")
    with pytest.raises(sg.errors.EngineError, match=r"torch 2\.13, and this is torch 2\.99"):
        importlib.reload(module)
    monkeypatch.undo()
    importlib.reload(module)
