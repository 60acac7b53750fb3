import time

import pytest
import torch

from synthgrad.bench.clock import Stopwatch


class FakeTime:
    """Stands in for the clock and for CUDA: seconds pass when a test says so, calls are listed."""

    def __init__(self):
        self.now_s = 100.0
        self.calls = []

    def perf_counter_ns(self):
        self.calls.append("clock")
        return round(self.now_s * 1e9)

    def synchronize(self, device):
        self.calls.append(f"wait for {device}")


@pytest.fixture
def fake(monkeypatch):
    fake = FakeTime()
    monkeypatch.setattr(time, "perf_counter_ns", fake.perf_counter_ns)
    monkeypatch.setattr(torch.cuda, "synchronize", fake.synchronize)
    return fake


def test_it_counts_only_while_it_runs(fake):
    watch = Stopwatch()
    fake.now_s += 5
    watch.start()
    fake.now_s += 2
    assert watch.seconds == 2
    watch.pause()
    fake.now_s += 7
    assert watch.seconds == 2
    watch.start()
    fake.now_s += 1
    assert watch.seconds == 3


def test_it_goes_on_from_the_seconds_of_a_resumed_run(fake):
    watch = Stopwatch(seconds=12.5)
    assert watch.seconds == 12.5
    watch.start()
    fake.now_s += 1
    assert watch.seconds == 13.5


def test_starting_and_pausing_twice_changes_nothing(fake):
    watch = Stopwatch()
    watch.start()
    fake.now_s += 2
    watch.start()
    fake.now_s += 2
    watch.pause()
    fake.now_s += 2
    watch.pause()
    assert watch.seconds == 4


def test_it_stands_still_within_paused(fake):
    watch = Stopwatch()
    watch.start()
    fake.now_s += 2
    with watch.paused():
        assert not watch.running
        fake.now_s += 30
    assert watch.running
    fake.now_s += 1
    assert watch.seconds == 3


def test_it_goes_on_when_an_evaluation_raises(fake):
    watch = Stopwatch()
    watch.start()

    def evaluate():
        with watch.paused():
            fake.now_s += 30
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate()
    assert watch.running
    assert watch.seconds == 0


def test_a_standing_watch_still_stands_after_paused(fake):
    watch = Stopwatch()
    with watch.paused():
        pass
    assert not watch.running


def test_cuda_is_waited_for_where_it_starts_and_pauses_and_nowhere_else(fake):
    watch = Stopwatch(device="cuda:0")
    watch.start()
    _ = watch.seconds
    watch.pause()
    # Work queued before the start must not be counted, and work queued before the pause must be.
    assert fake.calls == ["wait for cuda:0", "clock", "clock", "wait for cuda:0", "clock"]


@pytest.mark.parametrize("device", [None, "cpu"])
def test_nothing_else_is_waited_for(fake, device):
    watch = Stopwatch(device=device)
    watch.start()
    watch.pause()
    assert fake.calls == ["clock", "clock"]
