"""Data small enough to train on in a test, with classes that can be told apart."""

import torch

from synthgrad.data import Dataset, Split

SHAPE = (1, 4, 4)


def tiny_dataset(name="tiny", num_examples=60, num_classes=3) -> Dataset:
    """Return splits of `num_examples` images, each a bright pattern of its class in noise."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(0, 160, (num_classes, *SHAPE), generator=generator)

    def split() -> Split:
        labels = torch.arange(num_examples) % num_classes
        noise = torch.randint(0, 96, (num_examples, *SHAPE), generator=generator)
        return Split(pixels=(patterns[labels] + noise).to(torch.uint8), labels=labels)

    return Dataset(
        name=name, train=split(), validation=split(), test=split(), num_classes=num_classes
    )
