"""What a trace decay asks of the loop around it, and what is refused."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import synthgrad as sg
from synthgrad.errors import ConfigError, EngineError, InterfaceError

TRACED = sg.SyntheticGradient(trace_decay=0.5)
SGD = partial(torch.optim.SGD, lr=0.1)


def model() -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(5, 5) for _ in range(3)), nn.Linear(5, 3))


def engine(**options: object) -> sg.engines.Sequential:
    chain = sg.Chain.from_sequential(
        model(), stages=4, signal=TRACED, example_inputs=torch.zeros(2, 5)
    )
    return sg.engines.Sequential(
        chain, loss=F.cross_entropy, optimizer=SGD, synthesizer_optimizer=SGD, **options
    )


@pytest.mark.parametrize("decay", [-0.1, 1.5, float("nan")])
def test_it_lies_between_zero_and_one(decay: float) -> None:
    with pytest.raises(ConfigError, match=r"trace_decay=.* must lie in \[0, 1\]"):
        sg.SyntheticGradient(trace_decay=decay)


def test_what_cannot_wait_for_the_targets_is_refused() -> None:
    with pytest.raises(ConfigError, match="trace_decay=0"):
        sg.decouple(
            model(), ["0"], example_inputs=torch.zeros(2, 5), signal=TRACED, release="forward"
        )
    with pytest.raises(ConfigError, match="only a delay of 0"):
        engine(target_delays=1)
    with pytest.raises(EngineError, match="use an order from the top down"):
        engine(order=[0, 1, 2, 3]).step(torch.zeros(2, 5), torch.tensor([0, 1]))


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lower, self.norm, self.upper = nn.Linear(5, 5), nn.LayerNorm(5), nn.Linear(5, 5)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.upper(F.gelu(self.norm(self.lower(h))))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_an_engine_refuses_a_stage_that_was_compiled_for_one_pass() -> None:
    layers = [Normed() for _ in range(3)]
    x, y = torch.randn(4, 5), torch.arange(4) % 3
    chain = sg.Chain.from_modules(layers, signal=TRACED, example_inputs=x)
    trained = sg.engines.Sequential(
        chain, loss=F.cross_entropy, optimizer=SGD, synthesizer_optimizer=SGD
    )
    for layer in layers:
        layer.compile(backend="aot_eager")
        leaf = torch.randn(4, 5, requires_grad=True)
        layer(leaf).sum().backward()  # torch compiles backward in its first pass
    with pytest.raises(InterfaceError, match=r"donated_buffer = False"):
        trained.step(x, y)
    torch._dynamo.reset()


def test_it_is_handed_on_past_an_interface_with_the_true_gradient() -> None:
    """Two stages with backprop between them are one longer stage."""
    x, y = torch.randn(4, 5), torch.arange(4) % 3
    gradients = []
    for signal in ({"0": TRACED, "2": TRACED}, {"0": TRACED, "1": sg.Backprop(), "2": TRACED}):
        torch.manual_seed(1)
        net = sg.decouple(model(), list(signal), example_inputs=x, signal=signal)
        for p in net.synthesizer_parameters():
            nn.init.ones_(p)
        F.cross_entropy(net(x), y).backward()
        gradients.append([p.grad for p in net.parameters()])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_no_graph_is_kept_after_a_forward_pass_without_backward() -> None:
    x = torch.randn(4, 5)
    net = sg.decouple(model(), ["0", "1"], example_inputs=x, signal=TRACED)
    net(x)
    assert net._step.entries == []


def test_a_next_operation_in_place() -> None:
    """The trace ends at what came up, not at what the next operation made of it."""
    x, y = torch.randn(4, 5), torch.arange(4) % 3
    gradients = []
    for inplace in (False, True):
        torch.manual_seed(1)
        layers = nn.Sequential(
            nn.Linear(5, 5), nn.Sequential(nn.ReLU(inplace), nn.Linear(5, 5)), nn.Linear(5, 3)
        )
        net = sg.decouple(layers, ["0", "1"], example_inputs=x, signal=TRACED)
        for p in net.synthesizer_parameters():
            nn.init.ones_(p)
        F.cross_entropy(net(x), y).backward()
        gradients.append([p.grad for p in net.parameters()])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
