import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthgrad.bench.seeds import derive_seed, generator
from synthgrad.errors import ConfigError


def test_seeds_are_the_same_in_every_process():
    # The first 8 bytes of `printf 0:weights | sha256sum`, shifted right by one bit.
    assert derive_seed(0, "weights") == 0x3898AAB2021F0BEA >> 1


@given(st.integers(), st.text(min_size=1))
def test_seeds_fit_into_63_bits(seed, purpose):
    assert 0 <= derive_seed(seed, purpose) < 2**63


def test_neither_seed_nor_purpose_is_lost():
    pairs = [(seed, purpose) for seed in (-1, 0, 1, 11) for purpose in ("weights", "1", "1:1")]
    assert len({derive_seed(*pair) for pair in pairs}) == len(pairs)


def test_generators_of_one_purpose_agree_and_of_two_do_not():
    draws = [torch.rand(8, generator=generator(3, p)) for p in ("skips", "skips", "batches")]
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)
    assert not torch.equal(draws[0], draws[2])


def test_generators_leave_the_global_one_alone():
    before = torch.get_rng_state()
    generator(3, "skips")
    assert torch.equal(torch.get_rng_state(), before)


def test_an_empty_purpose_is_refused():
    with pytest.raises(ConfigError, match="purpose"):
        derive_seed(0, "")
