"""release="forward" keeps the activations of about one stage; counted in bytes, not timed."""

import copy
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import synthgrad as sg

DEPTH, WIDTH, BATCH, CLASSES = 32, 32, 64, 10


class Meter:
    """Counts the bytes that autograd keeps for backward, each storage once, parameters aside."""

    def __init__(self, model):
        self.parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.users = Counter()
        self.alive_bytes = self.peak_bytes = 0

    def pack(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self.parameters:
            return tensor
        return Kept(self, tensor, storage)

    @staticmethod
    def unpack(kept):
        return kept.tensor if isinstance(kept, Kept) else kept

    def hooks(self):
        return torch.autograd.graph.saved_tensors_hooks(self.pack, self.unpack)


class Kept:
    def __init__(self, meter, tensor, storage):
        self.meter, self.tensor = meter, tensor.detach()
        self.key, self.size_bytes = storage.data_ptr(), storage.nbytes()
        if not meter.users[self.key]:
            meter.alive_bytes += self.size_bytes
            meter.peak_bytes = max(meter.peak_bytes, meter.alive_bytes)
        meter.users[self.key] += 1

    def __del__(self):
        self.meter.users[self.key] -= 1
        if not self.meter.users[self.key]:
            self.meter.alive_bytes -= self.size_bytes


def network():
    layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(DEPTH - 1)]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def peak_bytes(net, x, y, **options):
    meter = Meter(net)
    with meter.hooks():
        F.cross_entropy(net(x, **options), y).backward()
    assert meter.alive_bytes == 0
    return meter.peak_bytes


@pytest.mark.parametrize(
    "signal",
    [sg.SyntheticGradient(), sg.SyntheticGradient(condition=sg.OneHot(CLASSES))],
    ids=["DNI", "cDNI"],
)
def test_peak_memory_and_gradients(signal):
    model = network()
    x, y = torch.randn(BATCH, WIDTH), torch.randint(0, CLASSES, (BATCH,))
    backprop = peak_bytes(copy.deepcopy(model), x, y)
    # The input, and every layer's output: the meter counts what it should.
    rest = backprop - 4 * BATCH * WIDTH * DEPTH
    assert 0 <= rest <= 4 * BATCH * (CLASSES + 4)
    nets = []
    for release in ("backward", "forward"):
        net = sg.decouple(
            copy.deepcopy(model), "every", example_inputs=x, signal=signal, release=release
        )
        source = torch.Generator().manual_seed(3)
        for p in net.synthesizer_parameters():
            nn.init.normal_(p, std=0.1, generator=source)
        nets.append(net)
    one_backward, released = (peak_bytes(net, x, y, condition=y) for net in nets)
    assert released <= backprop / 4
    assert one_backward > backprop
    gradients = [[p.grad for p in net.parameters()] for net in nets]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)
    assert all(g.any() for g in gradients[0])
