import math

import pytest
import torch
from tiny import EventList, tiny_arm, tiny_data, tiny_learner, tiny_plan
from torch.utils._python_dispatch import TorchDispatchMode

from synthgrad.bench.running import training
from synthgrad.bench.running.checkpoint import CHECKPOINT_FILE
from synthgrad.bench.running.fingerprint import fingerprint
from synthgrad.bench.running.training import advance, first_bad_loss, train
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Batches, Split
from synthgrad.errors import DivergedError, RecordError

DATA = tiny_data()
ARMS = ["backprop", "no-signal", "cdni", "cdni-p05", "dfa-p05", "fa", "local"]


def run(folder, name="backprop", *, sink=None, resumes=False, plan=None, **values):
    sink = sink or EventList()
    reads_test_data = values.pop("reads_test_data", True)
    learner = train(
        tiny_arm(name, **values),
        DATA,
        plan or tiny_plan(),
        seed=3,
        folder=folder,
        sink=sink,
        resumes=resumes,
        reads_test_data=reads_test_data,
    )
    return learner, sink


def batches(plan):
    return Batches(DATA.train, batch_size=plan.batch_size, seed=derive_seed(3, "batches"))


def without_times(events):
    return [{k: v for k, v in e.items() if k not in ("seconds", "cold_seconds")} for e in events]


def test_the_events_of_a_run(tmp_path):
    _, sink = run(tmp_path)
    snapshot = ["snapshot"]
    assert sink.names == ["facts", "warmup", *snapshot * 4, "finished"]
    assert [s["iteration"] for s in sink.of("snapshot")] == [0, 5, 10, 12]
    assert [s["examples"] for s in sink.of("snapshot")] == [0, 80, 160, 192]
    assert [s["stage_updates"] for s in sink.of("snapshot")] == [0, 15, 30, 36]
    seconds = [event["seconds"] for event in sink.of("snapshot")]
    assert seconds == sorted(seconds)
    (finished,) = sink.of("finished")
    assert finished["seconds"] == seconds[-1]
    assert finished["iteration"] == 12
    assert 0 <= finished["test_accuracy"] <= 100
    (facts,) = sink.of("facts")
    assert facts["dataset"] == "tiny"
    assert facts["flops_per_iteration"] > 0


def test_building_and_warming_up_are_on_the_clock(tmp_path):
    _, sink = run(tmp_path)
    (warmup,) = sink.of("warmup")
    assert 0 < warmup["cold_seconds"] == sink.of("snapshot")[0]["seconds"]


def test_it_learns(tmp_path):
    _, sink = run(tmp_path, "cdni", plan=tiny_plan(iterations=100, snapshot_every=50))
    first, *_, last = sink.of("snapshot")
    assert last["val_accuracy"] > 90 > first["val_accuracy"]
    assert last["train_loss"] < first["train_loss"]
    cosine = sink.of("alignment")[-1]["interfaces"]["0"]["cosine"]
    assert float(cosine) > 0.2


@pytest.mark.parametrize("name", ARMS)
def test_looking_changes_nothing(tmp_path, name):
    """A measured run ends with the bits of a bare loop: nothing is trained but in the loop."""
    learner, sink = run(tmp_path, name)
    bare = tiny_learner(name, seed=3)
    stream = batches(tiny_plan())
    for _ in range(12):
        bare.step(*next(stream))
    assert fingerprint(learner.state_dict()) == fingerprint(bare.state_dict())
    assert len(sink.of("alignment")) == (0 if name in ("backprop", "no-signal") else 4)


@pytest.mark.parametrize("name", ARMS)
def test_a_snapshot_leaves_every_bit_as_it_was(tmp_path, name, monkeypatch):
    marks = []
    look = training._Run.look

    def marked(self):
        state = self.learner.state_dict
        before = fingerprint(state(), torch.get_rng_state())
        look(self)
        marks.append(before == fingerprint(state(), torch.get_rng_state()))

    monkeypatch.setattr(training._Run, "look", marked)
    run(tmp_path, name)
    assert marks == [True] * 4


def test_the_clock_stands_while_the_network_is_looked_at(tmp_path, monkeypatch):
    watches, running = [], {"evaluate": [], "advance": []}

    class Watch(training.Stopwatch):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            watches.append(self)

    def noting(name):
        original = getattr(training, name)

        def noted(*args):
            running[name].append(watches[-1].running)
            return original(*args)

        monkeypatch.setattr(training, name, noted)

    monkeypatch.setattr(training, "Stopwatch", Watch)
    noting("evaluate")
    noting("advance")
    run(tmp_path)
    assert running == {"evaluate": [False] * 9, "advance": [True] * 3}


def test_the_clock_runs_before_the_methods_first_line(tmp_path, monkeypatch):
    watches, running = [], []

    class Watch(training.Stopwatch):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            watches.append(self)

    def build(seed, data):
        running.append(watches[-1].running)
        return tiny_learner(seed=seed)

    monkeypatch.setattr(training, "Stopwatch", Watch)
    run(tmp_path, build=build)
    assert running == [True]


def test_test_examples_are_read_once_at_the_end(tmp_path, monkeypatch):
    reads = []
    in_order, sink = Split.in_order, EventList()

    def noted(self, batch_size):
        if self is DATA.test:
            reads.append(sink.names[-1])
        return in_order(self, batch_size)

    monkeypatch.setattr(Split, "in_order", noted)
    run(tmp_path, sink=sink)
    assert reads == ["snapshot"]
    assert sink.of("snapshot")[-1]["iteration"] == 12


def test_tuning_does_not_read_them(tmp_path, monkeypatch):
    reads = []
    in_order = Split.in_order
    monkeypatch.setattr(
        Split, "in_order", lambda self, size: (reads.append(self), in_order(self, size))[1]
    )
    _, sink = run(tmp_path, reads_test_data=False)
    assert DATA.test not in reads
    assert "test_accuracy" not in sink.of("finished")[0]


def test_the_training_score_is_of_a_fixed_subset_in_eval_mode(tmp_path):
    learner, sink = run(tmp_path, plan=tiny_plan(num_train_examples=20))
    examples = Split(pixels=DATA.train.pixels[:20], labels=DATA.train.labels[:20])
    expected = training.evaluate(learner.model, examples)
    last = sink.of("snapshot")[-1]
    assert (last["train_loss"], last["train_accuracy"]) == expected


def test_the_learning_rate_follows_the_plan(tmp_path):
    rates = []

    def build(seed, data):
        learner = tiny_learner(seed=seed)
        step = learner.step
        learner.step = lambda *batch: (
            rates.append(learner.optimizer.param_groups[0]["lr"]),
            step(*batch),
        )[1]
        return learner

    run(tmp_path, build=build, plan=tiny_plan(decay_at=(7, 10), warmup_steps=1))
    assert rates[1:] == [1e-2] * 7 + [1e-2 * 0.1] * 3 + [1e-2 * 0.01] * 2


def test_a_loss_that_is_not_finite_is_named(tmp_path):
    sink = EventList()
    with pytest.raises(DivergedError, match=r"loss is (NaN|infinite) at iteration (\d+)"):
        run(tmp_path, learning_rate=1e38, sink=sink)
    (failed,) = sink.of("failed")
    assert sink.names[-1] == "failed"
    assert failed["reason"].endswith(f"at iteration {failed['iteration']}")
    # What a bare loop finds is the same iteration.
    bare = tiny_learner(seed=3, learning_rate=1e38)
    stream = batches(tiny_plan())
    losses = [bare.step(*next(stream)).item() for _ in range(12)]
    assert [math.isfinite(v) for v in losses].index(False) + 1 == failed["iteration"]
    assert not (tmp_path / CHECKPOINT_FILE).exists()


def test_the_first_bad_loss():
    good, nan, inf = torch.tensor(1.0), torch.tensor(math.nan), torch.tensor(math.inf)
    assert first_bad_loss([good, good]) is None
    assert first_bad_loss([good, nan, inf]) == (1, "NaN")
    assert first_bad_loss([inf, nan]) == (0, "infinite")


def test_any_other_error_is_in_the_record_too(tmp_path):
    sink = EventList()

    def build(seed, data):
        raise ValueError("no such layer\nand more")

    with pytest.raises(ValueError, match="no such layer"):
        run(tmp_path, build=build, sink=sink)
    assert sink.events == [
        {
            "event": "failed",
            "reason": "ValueError: no such layer",
            "iteration": 0,
            "crashed": True,
        }
    ]


class Interrupting(EventList):
    """Stops the run as Ctrl-C would, when an event of a name and iteration comes."""

    def __init__(self, name, iteration):
        super().__init__()
        self.trigger = (name, iteration)

    def event(self, name, /, **values):
        super().event(name, **values)
        if (name, values.get("iteration")) == self.trigger:
            self.trigger = None
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("at", [0, 5, 10, 12])
def test_an_interrupted_run_goes_on_to_the_same_numbers(tmp_path, name, at):
    plan = tiny_plan(decay_at=(7,))
    whole, folder = tmp_path / "whole", tmp_path / "run"
    whole.mkdir()
    folder.mkdir()
    undisturbed, expected = run(whole, name, plan=plan)
    sink = Interrupting("snapshot", at)
    with pytest.raises(KeyboardInterrupt):
        run(folder, name, sink=sink, plan=plan)
    assert sink.names[-1] == "interrupted"
    learner, _ = run(folder, name, sink=sink, resumes=True, plan=plan)
    assert fingerprint(learner.state_dict()) == fingerprint(undisturbed.state_dict())
    (resumed,) = sink.of("resumed")
    # The snapshot that was interrupted is taken again; what lies before it is not.
    assert resumed["iteration"] == {0: training.FROM_THE_START, 5: -1, 10: 5, 12: 10}[at]
    again = sink.events[sink.names.index("resumed") + 1 :]
    skipped = ("facts", "warmup")
    kept = [e for e in without_times(expected.events) if e["event"] not in skipped]
    kept = [e for e in kept if e["iteration"] > resumed["iteration"]]
    assert [e for e in without_times(again) if e["event"] not in skipped] == kept
    assert not (folder / CHECKPOINT_FILE).exists()


def test_the_clock_goes_on_where_it_was(tmp_path):
    sink = Interrupting("snapshot", 10)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, sink=sink)
    run(tmp_path, sink=sink, resumes=True)
    at_5, at_10 = sink.of("snapshot")[1], sink.of("snapshot")[3]
    assert (at_5["iteration"], at_10["iteration"]) == (5, 10)
    assert at_10["seconds"] > at_5["seconds"]


def test_building_again_is_not_on_the_clock(tmp_path, monkeypatch):
    sink = Interrupting("snapshot", 10)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, sink=sink)
    started_with = []

    class Watch(training.Stopwatch):
        def __init__(self, seconds=0.0, device=None):
            super().__init__(seconds, device)
            started_with.append(seconds)

    monkeypatch.setattr(training, "Stopwatch", Watch)
    run(tmp_path, sink=sink, resumes=True)
    assert started_with == [0.0, sink.of("snapshot")[1]["seconds"]]
    assert len(sink.of("warmup")) == 1


def test_a_checkpoint_is_not_taken_more_often_than_asked(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(training, "save_checkpoint", lambda folder, state: saved.append(folder))
    run(tmp_path, plan=tiny_plan(checkpoint_every_s=1e9))
    assert saved == []
    run(tmp_path)
    assert len(saved) == 3


def test_a_record_that_cannot_be_written_ends_the_run_without_a_word_more(tmp_path):
    class Full(EventList):
        def event(self, name, /, **values):
            if name == "snapshot":
                raise RecordError("disk full")
            super().event(name, **values)

    sink = Full()
    with pytest.raises(RecordError):
        run(tmp_path, sink=sink)
    assert sink.names == ["facts", "warmup"]


def test_the_callers_random_state_is_left_alone(tmp_path):
    before = torch.get_rng_state()
    run(tmp_path, "cdni")
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)


class Operations(TorchDispatchMode):
    """Counts every tensor operation."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ARMS)
def test_the_timed_loop_adds_no_operation_to_the_steps(name):
    def operations(loop):
        learner, stream = tiny_learner(name), batches(tiny_plan())
        learner.step(*next(stream))
        with Operations() as mode:
            loop(learner, stream)
        return mode.names

    def bare(learner, stream):
        for _ in range(6):
            learner.step(*next(stream))

    timed = operations(lambda learner, stream: advance(learner, stream, 6))
    assert timed == operations(bare)
    assert len(timed) > 6


def test_a_step_of_backprop_waits_for_nothing():
    learner, stream = tiny_learner(), batches(tiny_plan())
    learner.step(*next(stream))
    with Operations() as mode:
        advance(learner, stream, 3)
    assert not [name for name in mode.names if "_local_scalar_dense" in name]
