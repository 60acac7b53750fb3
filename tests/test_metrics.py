"""Measures of a gradient's quality: known values, bounds, and width of the arithmetic."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgrad import metrics

NUMBERS = st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: round(x, 3))
VECTORS = st.integers(1, 6).flatmap(
    lambda n: st.tuples(*[st.lists(NUMBERS, min_size=n, max_size=n)] * 2)
)


def test_known_values():
    a, b = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    assert metrics.norm(a) == 5
    assert metrics.cosine(a, b) == pytest.approx(0.8)
    assert metrics.relative_error(a, b) == pytest.approx(math.sqrt(9 + 4) / 2)
    assert metrics.cosine(a, -a) == pytest.approx(-1)


def test_zero_agrees_with_nothing_and_is_an_error_of_one():
    zero, g = torch.zeros(3, 2), torch.ones(3, 2)
    assert metrics.cosine(zero, g) == 0
    assert metrics.cosine(zero, zero) == 0
    assert metrics.relative_error(zero, g) == 1
    assert metrics.relative_error(zero, zero) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_results_are_scalars_of_at_least_single_precision(dtype):
    tiny = torch.full((4, 4), 2.0**-12, dtype=dtype)  # its square vanishes in half precision
    for value in (
        metrics.norm(tiny),
        metrics.cosine(tiny, tiny),
        metrics.relative_error(tiny, tiny * 2),
    ):
        assert value.shape == ()
        assert value.dtype is torch.promote_types(dtype, torch.float32)
    assert metrics.norm(tiny) == 2.0**-10
    assert metrics.cosine(tiny, tiny) == pytest.approx(1)


def test_no_graph_comes_out():
    g = torch.ones(3, requires_grad=True)
    assert not metrics.cosine(g, g).requires_grad
    assert not metrics.relative_error(g, g).requires_grad


@settings(deadline=None, max_examples=60)
@given(VECTORS, st.floats(0.1, 10))
def test_properties(pair, factor):
    a, b = (torch.tensor(v, dtype=torch.float64) for v in pair)
    cosine = metrics.cosine(a, b)
    assert -1 - 1e-12 <= cosine <= 1 + 1e-12
    torch.testing.assert_close(cosine, metrics.cosine(b, a))
    torch.testing.assert_close(cosine, metrics.cosine(factor * a, b))
    assert metrics.relative_error(b, b) == 0
    if b.any():
        error = metrics.relative_error(a, b)
        torch.testing.assert_close(error, metrics.norm(a - b) / metrics.norm(b))
