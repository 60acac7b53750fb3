"""For every test: one thread, a fixed seed, and a check that nothing global was left changed."""

import multiprocessing
import os

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def nothing_leaks():
    torch.manual_seed(0)
    environment = _environment()
    yield
    assert torch.is_grad_enabled(), "a test left gradients disabled"
    assert torch.get_default_dtype() is torch.float32
    assert not multiprocessing.active_children(), "a test left a process running"
    assert _environment() == environment, "a test changed the environment"


def _environment() -> dict[str, str]:
    """What a test could have changed; pytest and torch's compiler keep notes of their own there."""
    own = ("PYTEST_", "TORCHINDUCTOR_", "_TORCHINDUCTOR_", "TRITON_")
    return {key: value for key, value in os.environ.items() if not key.startswith(own)}
