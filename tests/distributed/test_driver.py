"""A pipeline driven from one process: the same numbers, and nobody left behind."""

import gc
import os
import time
from pathlib import Path
from typing import Any

import driver_worker
import pipeline_worker as worker
import pytest
import torch

import synthgrad as sg
from synthgrad.engines.pipeline import Driver
from synthgrad.errors import ConditionError, ConfigError, DivergedError, EngineError, RankError

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(60)]
EXACT = {"rtol": 0, "atol": 0}


def reference(steps: int) -> sg.engines.Sequential:
    engine = sg.engines.Sequential(worker.chain(), **worker.GIVEN, target_delays=2)
    for x, y in worker.batches(steps):
        engine.step(x, y)
    engine.flush()
    return engine


def train(driver: Driver, steps: int) -> None:
    for x, y in worker.batches(steps):
        driver.step(x, y)


def pids(driver: Driver) -> list[int]:
    return [rank.process.pid for rank in driver._ranks]


def are_gone(processes: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_it_equals_the_reference(num_ranks: int) -> None:
    with Driver(driver_worker.engine, num_ranks=num_ranks) as driver:
        others = pids(driver)
        train(driver, 20)
        driver.collect()
        sought = reference(20)
        torch.testing.assert_close(
            driver.engine.chain.state_dict(), sought.chain.state_dict(), **EXACT
        )
        assert driver.evaluate(worker.batches(3)) == sought.evaluate(worker.batches(3))
    assert len(others) == num_ranks - 1
    assert are_gone(others)


def test_two_at_once_and_a_state_that_goes_from_one_to_the_other() -> None:
    data = worker.batches(12)
    with (
        Driver(driver_worker.engine) as first,
        Driver(driver_worker.engine, num_ranks=3) as second,
    ):
        for x, y in data[:6]:
            first.step(x, y)
        second.load_state_dict(first.state_dict())
        for x, y in data[6:]:
            first.step(x, y)
            second.step(x, y)
        for driver in (first, second):
            driver.collect()
        torch.testing.assert_close(
            first.engine.chain.state_dict(), second.engine.chain.state_dict(), **EXACT
        )


def test_learning_rates_of_every_rank() -> None:
    with Driver(driver_worker.engine) as driver:
        train(driver, 2)
        driver.load_state_dict(driver.state_dict())  # which gives optimizers other groups
        driver.collect()
        before = [p.clone() for p in driver.engine.chain.parameters()]
        driver.scale_learning_rates(0.0)
        train(driver, 3)
        driver.collect()
        torch.testing.assert_close(list(driver.engine.chain.parameters()), before, **EXACT)
        driver.scale_learning_rates(0.5)
        rates = {g["lr"] for o in driver.engine.optimizers for g in o.param_groups}
        assert rates == {0.005}


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        ("nan", DivergedError, "rank 1 made an? .* with NaN or infinity"),
        ("raise", RankError, "rank 1: .*MemoryError.*no memory for this batch"),
        ("die", RankError, "rank 1: ended with exit code 3"),
    ],
)
def test_what_another_rank_says_last(wrong: str, kind: type[Exception], words: str) -> None:
    driver = Driver(driver_worker.engine, wrong)
    others = pids(driver)
    with pytest.raises(kind, match=words):
        train(driver, 30)
    assert are_gone(others)
    with pytest.raises(RankError, match="make a new one"):
        train(driver, 1)
    driver.close()


def test_labels_that_do_not_suit_change_nothing() -> None:
    ((x, y),) = worker.batches(1)
    with Driver(driver_worker.engine) as driver:
        with pytest.raises(ConditionError):
            driver.step(x, y + 7)
        train(driver, 5)
        driver.collect()
        torch.testing.assert_close(
            driver.engine.chain.state_dict(), reference(5).chain.state_dict(), **EXACT
        )


def test_a_state_can_be_loaded_twice() -> None:
    with Driver(driver_worker.engine) as driver:
        train(driver, 3)
        best = driver.state_dict()
        found = []
        for _ in range(2):
            driver.load_state_dict(best)
            train(driver, 3)
            driver.collect()
            found.append([p.clone() for p in driver.engine.chain.parameters()])
        torch.testing.assert_close(found[0], found[1], **EXACT)


def test_what_is_wrong_with_the_data_or_a_state_costs_nothing() -> None:
    def broken() -> Any:
        yield from worker.batches(1)
        raise FileNotFoundError("a file is gone")

    with Driver(driver_worker.engine) as driver:
        train(driver, 3)
        with pytest.raises(FileNotFoundError, match="a file is gone"):
            driver.evaluate(broken())
        with pytest.raises(EngineError):
            driver.load_state_dict(driver.state_dict() | {"num_stages": 9})
        driver.collect()
        torch.testing.assert_close(
            driver.engine.chain.state_dict(), reference(3).chain.state_dict(), **EXACT
        )


def test_nan_in_the_last_batch_is_no_answer() -> None:
    """Rank 0 waits for no target here, and so is done before the other rank has failed."""
    driver = Driver(driver_worker.engine, "nan", sg.NoSignal())
    train(driver, 4)
    with pytest.raises(DivergedError, match="NaN"):
        driver.flush()


def test_a_rank_that_never_begins_is_heard_at_once() -> None:
    begun = time.monotonic()
    with pytest.raises(RankError, match="rank 1: ended with exit code 7"):
        Driver(driver_worker.engine, driver_worker.Bomb())
    assert time.monotonic() - begun < 30


def test_ranks_end_when_nobody_holds_the_driver() -> None:
    driver = Driver(driver_worker.engine)
    others = pids(driver)
    driver.step(*worker.batches(1)[0])
    assert all(os.path.exists(f"/proc/{pid}") for pid in others)
    del driver
    gc.collect()
    assert are_gone(others)


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match="num_ranks=0"):
        Driver(driver_worker.engine, num_ranks=0)
    with pytest.raises(ConfigError, match="seed"):
        Driver(driver_worker.disagreeing)
    with pytest.raises(ConfigError, match="synthetic inputs"):
        Driver(driver_worker.unlocked)
