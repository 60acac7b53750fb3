"""Nothing holds a step's activations: they go with it, not at the next garbage collection."""

import gc
import importlib
import weakref
from functools import partial

import pytest
import torch.nn.functional as F
from torch import nn

import synthgrad as sg
from zoo import CLASSES, ZOO

MLP = ZOO[0]
SIGNALS = [
    sg.SyntheticGradient(),
    sg.SyntheticGradient(trace_decay=0.5),
    sg.Critic(loss=partial(F.cross_entropy, reduction="none")),
    sg.DirectFeedbackAlignment(),
    sg.FeedbackAlignment(),
    sg.Kickback(),
    sg.LocalLoss(num_classes=CLASSES),
]


@pytest.fixture
def no_collection():
    importlib.import_module("torch._dynamo")  # torch's own first import of it keeps the frame
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("runs_backward", [True, False], ids=["backward", "forward alone"])
@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_no_activation_outlives_its_step(signal, runs_backward):
    x, y = MLP.batch()
    net = sg.decouple(MLP.model(), list(MLP.at), example_inputs=x, signal=signal)
    seen = []

    def see(module: nn.Module, args, output):
        seen.extend(weakref.ref(h) for h in (args[0], output))

    for name in (*MLP.at[1:], "top"):
        net.model.get_submodule(name).register_forward_hook(see)
    loss = F.cross_entropy(net(x, condition=y), y)
    if runs_backward:
        loss.backward()
    del loss
    assert len(seen) == 6
    assert not [ref for ref in seen if ref() is not None]
