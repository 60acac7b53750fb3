"""Parts of the pipeline on their own: messages, lanes, places, checkpoints of unknown origin."""

import contextlib
import os
import pickle
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from pipeline_threads import ADAM, chain_of, options
from torch import nn

import synthgrad as sg
from synthgrad.engines.pipeline import connect, in_process, launch
from synthgrad.engines.pipeline.agreement import describe
from synthgrad.engines.pipeline.checkpoints.files import find_latest, read
from synthgrad.engines.pipeline.checkpoints.learned import from_entries, to_entries
from synthgrad.engines.pipeline.faults import Faults
from synthgrad.engines.pipeline.place import Place
from synthgrad.engines.pipeline.wire.connect import LOOPBACK
from synthgrad.engines.pipeline.wire.lane import Inbox, Outbox, Traffic
from synthgrad.engines.pipeline.wire.message import Kind, Layout, put_together, take_apart
from synthgrad.errors import CheckpointError, ConfigError, EngineError

EXACT = {"rtol": 0, "atol": 0}
TREES = [
    torch.arange(6.0).reshape(2, 3),
    torch.tensor(3.5, dtype=torch.float64),
    {"a": [torch.ones(2, 0), None], 3: (torch.tensor([True, False]), "text", 1.5)},
    (
        torch.randn(2, 3, 4).transpose(1, 2),
        torch.randn(3, 8)[:, ::2],
        torch.ones(3, 1).expand(3, 4),
    ),
    [torch.randn(4, 2, dtype=torch.bfloat16), torch.zeros(0, dtype=torch.int32)],
]


@pytest.mark.parametrize("tree", TREES, ids=range(len(TREES)))
def test_a_message_gives_back_what_was_packed(tree: Any) -> None:
    spec, tensors = take_apart(tree)
    layout = Layout.from_bytes(Layout.of(spec, tensors).to_bytes())
    kind, batch, found = layout.unpack(layout.pack(7, tensors, torch.device("cpu")))
    assert (kind, batch) == (Kind.BATCH, 7)
    again = put_together(layout.spec, found)
    assert take_apart(again)[0] == spec
    torch.testing.assert_close(found, tensors, **EXACT)
    for new in found:
        assert new is not None
        assert new.data_ptr() % 64 == 0 or not new.numel()


def test_the_order_of_axes_in_memory_travels() -> None:
    given = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    spec, tensors = take_apart(given)
    layout = Layout.of(spec, tensors)
    _, _, (found,) = layout.unpack(layout.pack(0, tensors, torch.device("cpu")))
    assert found is not None
    assert found.stride() == given.stride()
    torch.testing.assert_close(found, given, **EXACT)


def test_a_smaller_batch_fits_and_a_larger_one_does_not() -> None:
    spec, tensors = take_apart([torch.ones(4, 3)])
    layout = Layout.of(spec, tensors)
    assert layout.fits(spec, [torch.ones(2, 3)])
    assert layout.fits(spec, [None])
    assert not layout.fits(spec, [torch.ones(5, 3)])
    assert not layout.fits(spec, [torch.ones(4, 3).double()])
    _, _, found = layout.unpack(layout.pack(0, [torch.ones(2, 3)], torch.device("cpu")))
    torch.testing.assert_close(found, [torch.ones(2, 3)], **EXACT)


@pytest.mark.parametrize("bad", [object(), {1.5: torch.ones(1)}, nn.Linear(1, 1), {1, 2}])
def test_what_cannot_travel_is_refused(bad: Any) -> None:
    with pytest.raises(EngineError, match="cannot be sent to another rank"):
        take_apart([bad])


def test_entries_of_a_checkpoint_give_back_a_state() -> None:
    optimizer = ADAM(nn.Linear(2, 2).parameters())
    parameter = optimizer.param_groups[0]["params"][0]
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = optimizer.state_dict()
    torch.testing.assert_close(from_entries("a.1", to_entries("a.1", state)), state, **EXACT)


@pytest.mark.parametrize("max_in_flight", [1, 2, 3, 6])
def test_a_lane_lets_no_more_through_than_it_may(max_in_flight: int) -> None:
    below, above = in_process(2)
    traffic = Traffic.bounded(max_in_flight)
    outbox = Outbox(below, 1, 0, traffic)
    inbox = Inbox(above, 0, 0, traffic, listens=False, timeout_s=5)
    sent = 0

    def send_all_that_fit() -> None:
        nonlocal sent
        with contextlib.suppress(TimeoutError):
            while True:
                outbox.make_room(0.01)
                outbox.send(sent, torch.tensor([sent]))
                sent += 1

    send_all_that_fit()
    for taken in range(1, 5):
        parcel = inbox.take()
        assert parcel is not None
        assert parcel.batch == int(parcel.tree) == taken - 1
        send_all_that_fit()
        assert sent - taken == max(2, max_in_flight)


def test_a_lane_that_closes_says_so() -> None:
    below, above = in_process(2)
    outbox = Outbox(below, 1, 0, Traffic.bounded(3))
    inbox = Inbox(above, 0, 0, Traffic.bounded(3), listens=True, timeout_s=5)
    inbox.listen()
    outbox.send(0, torch.ones(2))
    outbox.announce_end()
    assert inbox.take() is not None
    assert inbox.take() is None
    assert inbox.take() is None
    outbox.wait_empty(5)


def test_stages_are_spread_over_ranks_and_replicas() -> None:
    places = [Place.of(rank, 4, 2, 5) for rank in range(4)]
    assert [list(p.stages) for p in places] == [[0, 1], [2, 3, 4], [0, 1], [2, 3, 4]]
    assert [p.replica for p in places] == [0, 0, 1, 1]
    assert [(p.below, p.above) for p in places] == [(None, 1), (0, None), (None, 3), (2, None)]


def test_options_are_described_without_addresses() -> None:
    assert describe(ADAM) == "torch.optim.adam.Adam(lr=0.01)"
    assert describe(sg.OneHot(3)) == "OneHot(num_classes=3)"
    assert describe(object()) == describe(object())


def test_the_first_cause_counts_and_the_end_of_the_line_is_to_blame() -> None:
    store = dist.HashStore()
    ranks = [Faults(store, rank) for rank in range(3)]
    told = [""] * 2

    def time_out(rank: int) -> None:
        told[rank] = str(ranks[rank].timed_out(rank + 1, "waited", 2.0))

    threads = [threading.Thread(target=time_out, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told[0] == told[1]
    assert told[0].startswith("rank 2 hangs")
    assert ranks[2].report("another cause", culprit=0) == told[0]


# Checkpoints that were not written by us.


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /nowhere/at/all",)


def whole(folder: Path, step: int) -> Path:
    path = folder / f"step-{step:09d}"
    with pytest.warns(UserWarning, match="single process"):
        dcp.save({"num_steps": torch.tensor(step)}, checkpoint_id=path)
    return path


def test_the_latest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    assert find_latest(tmp_path / "nowhere") is None
    first = whole(tmp_path, 3)
    (tmp_path / "step-000000009").mkdir()  # without metadata: not whole
    (tmp_path / "step-000000008.unfinished").mkdir()
    assert find_latest(tmp_path) == first
    assert find_latest(tmp_path) != whole(tmp_path, 20)
    found = find_latest(tmp_path)
    assert found is not None
    assert read(found, lambda name: True) == {"num_steps": torch.tensor(20)}


def test_a_foreign_file_runs_no_code(tmp_path: Path) -> None:
    path = whole(tmp_path, 1)
    (path / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="system, which no checkpoint of ours has"):
        read(path, lambda name: True)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    path = whole(tmp_path, 1)
    (path / name).write_bytes((path / name).read_bytes()[:20])
    with pytest.raises(CheckpointError, match=r"step-000000001 is damaged"):
        read(path, lambda name: True)


# Starting.


def test_a_process_that_is_no_rank_is_told_how_to_become_one() -> None:
    with pytest.raises(EngineError, match="torchrun --nproc-per-node"):
        connect()


def test_a_rank_without_torchrun_listens_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rank = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    for key, value in rank.items():
        monkeypatch.setenv(key, value)
    for backend in ("GLOO", "NCCL"):
        monkeypatch.setenv(f"{backend}_SOCKET_IFNAME", LOOPBACK)
    with pytest.raises(EngineError, match="'MASTER_PORT' is not"):
        connect()
    monkeypatch.setenv("MASTER_PORT", str(port))
    with connect(timeout_s=20) as transport:
        assert (transport.rank, transport.num_ranks) == (0, 1)
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        if sys.platform == "linux":  # where the rest of 127.0.0.0/8 is this machine too
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port), timeout=5)


@pytest.mark.parametrize("given", [{"num_ranks": 0}, {"threads": 0}, {"max_restarts": -1}])
def test_launch_refuses_numbers_that_are_too_small(given: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must"):
        launch(print, **given)


def test_without_processes_there_are_no_checkpoints(tmp_path: Path) -> None:
    (transport,) = in_process(1)
    with sg.engines.Pipeline(chain_of(), **options(), transport=transport) as engine:
        with pytest.raises(CheckpointError, match="torchrun or by launch"):
            engine.save(tmp_path)
        with pytest.raises(ConfigError, match="keep=0"):
            engine.save(tmp_path, keep=0)
        assert engine.load(tmp_path) == 0
        assert engine.state_dict()["num_steps"] == 0
