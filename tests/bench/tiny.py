"""Data and arms so small that a run takes milliseconds, for tests of everything that trains."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

import synthgrad as sg
from synthgrad.bench.running.arms import Arm
from synthgrad.bench.running.learner import Learner
from synthgrad.bench.running.plan import Plan
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Dataset, Split

NUM_CLASSES = 3


def tiny_data() -> Dataset:
    """Return 4 x 4 images of three classes, told apart by which pixels are bright."""
    generator = torch.Generator().manual_seed(0)
    bright = torch.randint(0, 200, (NUM_CLASSES, 1, 4, 4), generator=generator)

    def split(num_examples: int) -> Split:
        labels = torch.arange(num_examples) % NUM_CLASSES
        noise = torch.randint(0, 56, (num_examples, 1, 4, 4), generator=generator)
        return Split(pixels=(bright[labels] + noise).to(torch.uint8), labels=labels)

    return Dataset(
        name="tiny", train=split(96), validation=split(30), test=split(30), num_classes=NUM_CLASSES
    )


def tiny_model() -> nn.Sequential:
    """Return a model of three stages with batch norm."""
    return nn.Sequential(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU()),
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()),
        nn.Linear(8, NUM_CLASSES),
    )


SIGNALS: dict[str, sg.ErrorSignal | None] = {
    "backprop": None,
    "no-signal": sg.NoSignal(),
    "cdni": sg.SyntheticGradient(condition=sg.OneHot(NUM_CLASSES)),
    "cdni-p05": sg.SyntheticGradient(condition=sg.OneHot(NUM_CLASSES)),
    "dfa-p05": sg.DirectFeedbackAlignment(),
    "fa": sg.FeedbackAlignment(),
    "local": sg.LocalLoss(num_classes=NUM_CLASSES),
}


def tiny_learner(
    name: str = "backprop",
    seed: int = 0,
    *,
    learning_rate: float = 1e-2,
    model: Callable[[], nn.Module] = tiny_model,
) -> Learner:
    """Return one of `SIGNALS` as a learner."""
    torch.manual_seed(derive_seed(seed, "weights"))
    net: nn.Module = model()
    signal = SIGNALS[name]
    if signal is not None:
        net = sg.decouple(
            net,
            "every",
            example_inputs=torch.zeros(2, 1, 4, 4),
            signal=signal,
            update_probability=0.5 if name.endswith("p05") else 1.0,
            seed=derive_seed(seed, "updates"),
        )
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate, fused=True)
    return Learner(net, optimizer, num_stages=3)


def tiny_arm(name: str = "backprop", **values: Any) -> Arm:
    """Return one of `SIGNALS` as an arm; values are those of `tiny_learner` and of `Arm`."""
    of_learner = {key: values.pop(key) for key in ("learning_rate", "model") if key in values}
    return Arm(
        **{
            "name": name,
            "label": name.upper(),
            "build": partial(_build, name, of_learner),
            "update_probability": 0.5 if name.endswith("p05") else 1.0,
            **values,
        }
    )


def _build(name: str, of_learner: dict[str, Any], seed: int, data: Dataset) -> Learner:
    return tiny_learner(name, seed, **of_learner)


def tiny_plan(**values: Any) -> Plan:
    """Return a plan of twelve iterations with snapshots at 0, 5, 10 and 12."""
    default = {"iterations": 12, "batch_size": 16, "snapshot_every": 5, "checkpoint_every_s": 0.0}
    return Plan(**{**default, **values})


class EventList:
    """Keeps a run's events, without their times."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def event(self, name: str, /, **values: Any) -> None:
        self.events.append({"event": name, **values})

    def of(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == name]

    @property
    def names(self) -> list[str]:
        return [event["event"] for event in self.events]
