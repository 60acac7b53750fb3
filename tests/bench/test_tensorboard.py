import pytest
import torch
from tiny import EventList, tiny_data, tiny_learner

from synthgrad.bench.running.fingerprint import fingerprint
from synthgrad.bench.running.warmup import dummy_batch

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from synthgrad.bench.running.tensorboard import Curves

BATCH = dummy_batch(tiny_data(), 4)


def read(folder):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def test_events_are_passed_on_and_drawn(tmp_path):
    sink = EventList()
    with Curves(sink, tmp_path) as curves:
        curves.event("facts", num_stages=3)
        curves.event("snapshot", iteration=5, val_accuracy=90.0, train_loss=float("nan"))
        curves.event("alignment", iteration=5, interfaces={"a": {"cosine": torch.tensor(0.5)}})
        curves.event("finished", iteration=9, seconds=None, test_accuracy=91.0)  # no clock
    assert sink.names == ["facts", "snapshot", "alignment", "finished"]
    found = read(tmp_path)
    assert set(found.Tags()["scalars"]) == {"val_accuracy", "alignment a/cosine", "test_accuracy"}
    (point,) = found.Scalars("alignment a/cosine")
    assert (point.step, point.value) == (5, 0.5)


@pytest.mark.parametrize("name", ["backprop", "no-signal", "cdni", "cdni-p05"])
def test_the_graph_shows_the_synthesizers(tmp_path, name):
    learner = tiny_learner(name)
    before = fingerprint(learner.state_dict(), torch.get_rng_state())
    with Curves(EventList(), tmp_path) as curves:
        curves.draw_graph(learner, *BATCH)
    assert fingerprint(learner.state_dict(), torch.get_rng_state()) == before
    nodes = [node.name for node in read(tmp_path).Graph().node]
    assert any("Linear" in node for node in nodes)
    assert any("DenseSynthesizer" in node for node in nodes) == name.startswith("cdni")
    assert all(not module._forward_hooks for module in learner.model[-1].modules())
    learner.step(*BATCH)
