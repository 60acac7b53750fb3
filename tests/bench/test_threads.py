import os

import pytest
import torch

from synthgrad.bench.running.threads import calibrate, num_threads, thread_counts


def test_the_number_holds_within_the_block_only():
    before = torch.get_num_threads()
    with num_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError), num_threads(2):
        raise ValueError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("num_cores", "expected"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (6, (1, 2, 4, 6)),
        (8, (1, 2, 4, 8)),
        (96, (1, 2, 4, 8, 16, 32, 64, 96)),
    ],
)
def test_counts_worth_trying(monkeypatch, num_cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(num_cores), raising=False)
    assert thread_counts() == expected


def test_each_count_is_built_and_timed_with_its_own_threads():
    built, stepped = [], []

    def build():
        count = torch.get_num_threads()
        built.append(count)
        return lambda: stepped.append((count, torch.get_num_threads()))

    times = calibrate(build, (1, 2))
    assert built == [1, 2]
    assert set(stepped) == {(1, 1), (2, 2)}
    assert set(times) == {1, 2}
    assert all(seconds >= 0 for seconds in times.values())
    # In turn, so that a machine that slows down slows all of them down.
    order = [count for count, _ in stepped[2:]]
    assert order[: len(order) // 5] == [1] * 4 + [2] * 4
