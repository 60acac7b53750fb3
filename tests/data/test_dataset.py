import numpy as np
import pytest
import torch

from synthgrad.data import dataset as dataset_module
from synthgrad.data.dataset import Split, build_dataset


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(dataset_module, "NUM_VALIDATION", 2)
    pixels = np.arange(6 * 4, dtype=np.uint8).reshape(6, 1, 2, 2)
    labels = np.array([3, 1, 2, 0, 4, 5], dtype=np.uint8)
    return build_dataset(
        "small", train=(pixels, labels), test=(pixels[:3] + 100, labels[:3]), num_classes=6
    )


def test_validation_is_the_end_of_the_training_examples(small):
    assert small.train.labels.tolist() == [3, 1, 2, 0]
    assert small.validation.labels.tolist() == [4, 5]
    assert small.test.labels.tolist() == [3, 1, 2]
    assert small.validation.pixels[0].flatten().tolist() == [16, 17, 18, 19]
    assert (small.input_shape, small.num_classes, len(small.train)) == ((1, 2, 2), 6, 4)


def test_taken_inputs_are_scaled_to_one():
    split = Split(pixels=torch.tensor([[0], [255], [51]]).byte(), labels=torch.tensor([0, 1, 2]))
    inputs, labels = split.take(torch.tensor([2, 1]))
    torch.testing.assert_close(inputs, torch.tensor([[0.2], [1.0]]), rtol=0, atol=0)
    assert inputs.dtype == torch.float32
    assert labels.tolist() == [2, 1]


def test_in_order_yields_every_example_once(small):
    batches = list(small.train.in_order(3))
    assert [len(labels) for _, labels in batches] == [3, 1]
    everything = small.train.take(torch.arange(4))
    for part, whole in zip(zip(*batches, strict=True), everything, strict=True):
        torch.testing.assert_close(torch.cat(part), whole, rtol=0, atol=0)


def test_batches_do_not_share_memory_with_the_data_set(small):
    inputs, _ = next(small.train.in_order(4))
    before = small.train.pixels.clone()
    inputs.zero_()
    assert torch.equal(small.train.pixels, before)


def test_to_moves_every_split(small):
    moved = small.to("meta")
    for split in (moved.train, moved.validation, moved.test):
        assert (split.pixels.device.type, split.labels.device.type) == ("meta", "meta")
    assert moved.name == "small"
