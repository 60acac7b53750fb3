"""The pipeline with its stages on a GPU, and its messages through the CPU's memory."""

import pipeline_worker as worker
import pytest
import torch

import synthgrad as sg
from synthgrad.engines.pipeline import launch

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


@pytest.mark.parametrize("mode", ["ordered", "free"])
def test_two_ranks_on_one_gpu(mode: str) -> None:
    found = launch(worker.on_cuda, 20, mode)
    if mode == "free":
        assert [steps for _, steps in found] == [20, 20]
        return
    engine = sg.engines.Sequential(worker.chain().cuda(), **worker.GIVEN, target_delays=2)
    for x, y in worker.batches(20):
        engine.step(x.cuda(), y.cuda())
    engine.flush()
    together = {f"stages.{key}": value for own, _ in found for key, value in own.items()}
    # A tensor that lies elsewhere in memory may be multiplied by another kernel.
    torch.testing.assert_close(together, engine.chain.cpu().state_dict(), rtol=1e-10, atol=1e-12)
