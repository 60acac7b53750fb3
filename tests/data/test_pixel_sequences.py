import pytest
import torch

from synthgrad.data import pixels, rows
from synthgrad.errors import ConfigError

# Two images of two rows and three columns, whose pixels tell image, row and column.
IMAGES = torch.tensor([[[0, 1, 2], [10, 11, 12]], [[100, 101, 102], [110, 111, 112]]])


@pytest.mark.parametrize("images", [IMAGES, IMAGES.unsqueeze(1)])
def test_sequences_by_hand(images):
    assert rows(images).tolist() == [
        [[0, 1, 2], [100, 101, 102]],
        [[10, 11, 12], [110, 111, 112]],
    ]
    assert pixels(images)[:, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert pixels(images)[:, 1, 0].tolist() == [100, 101, 102, 110, 111, 112]


def test_shapes_for_mnist_and_for_a_batch_of_one():
    assert rows(torch.zeros(5, 1, 28, 28)).shape == (28, 5, 28)
    assert pixels(torch.zeros(5, 1, 28, 28)).shape == (784, 5, 1)
    assert rows(torch.zeros(1, 1, 28, 28)).shape == (28, 1, 28)
    assert pixels(torch.zeros(1, 1, 28, 28)).shape == (784, 1, 1)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (8, 8), (2, 1, 1, 8, 8)])
def test_other_shapes_are_refused(shape):
    for sequence in (rows, pixels):
        with pytest.raises(ConfigError, match=f"the shape \\({shape[0]}, "):
            sequence(torch.zeros(shape))
