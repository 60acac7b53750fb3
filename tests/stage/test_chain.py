"""Chains of lists, of models cut by measured time, and of torch's own pipes."""

import itertools
import math
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import synthgrad as sg
from synthgrad.errors import ConfigError, UnsupportedModelError
from synthgrad.stage import timing
from synthgrad.stage.timing import seconds_of_each, seconds_of_signal

X = torch.randn(4, 5)


def layers() -> list[nn.Module]:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(6)
    return [nn.Linear(5, 6), norm, nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(6, 3)]


def test_a_list_of_modules_is_cut_like_a_sequential() -> None:
    modules = layers()
    chain = sg.Chain.from_sequential(modules, cuts=[2, 4], example_inputs=X)
    assert [len(stage.module) for stage in chain] == [2, 2, 1]  # type: ignore[arg-type]
    assert chain.stages[2].module[0] is modules[4]  # type: ignore[union-attr,index]


def test_cuts_follow_the_measured_times(monkeypatch: pytest.MonkeyPatch) -> None:
    given = list[list[nn.Module]]()

    def measured(modules: list[nn.Module], example_inputs: Tensor) -> list[float]:
        assert example_inputs is X
        given.append(modules)
        return [9.0, 1.0, 1.0, 1.0, 8.0]

    monkeypatch.setattr("synthgrad.stage.chain.seconds_of_each", measured)
    modules = layers()
    chain = sg.Chain.balanced(modules, num_stages=3, example_inputs=X, signal=sg.NoSignal())
    assert [len(stage.module) for stage in chain] == [1, 3, 1]  # type: ignore[arg-type]
    assert given == [modules]
    with pytest.raises(ConfigError, match="cannot make"):
        sg.Chain.balanced(modules, num_stages=6, example_inputs=X)


def test_a_signal_counts_where_it_would_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("each", [2.0, 2.0, 2.0, 2.0]), ("signal", [1.0, 9.0, 9.0, 9.0])):
        monkeypatch.setattr(f"synthgrad.stage.chain.seconds_of_{name}", lambda *_, s=seconds: s)
    modules: list[nn.Module] = [nn.Linear(5, 5) for _ in range(4)]
    chain = sg.Chain.balanced(modules, num_stages=2, example_inputs=X)
    assert [len(stage.module) for stage in chain] == [1, 3]  # type: ignore[arg-type]
    assert sg.Chain.balanced_cuts(modules, num_stages=2, example_inputs=X) == [2]


def test_the_time_of_a_signal_is_that_of_its_synthesizers() -> None:
    modules = layers()
    random = torch.get_rng_state()
    labeled = sg.SyntheticGradient(condition=sg.OneHot(3))
    seconds = seconds_of_signal(modules, X, labeled)
    assert len(seconds) == len(modules)
    assert min(seconds[:-1]) > 0
    assert seconds[-1] == 0, "nothing stands on the last one"
    assert torch.equal(torch.get_rng_state(), random)
    for free in (sg.NoSignal(), sg.LocalLoss(num_classes=3)):
        assert seconds_of_signal(modules, X, free) == [0.0] * len(modules)


def test_a_signal_may_suit_some_places_alone() -> None:
    modules = [nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)]
    modules += [nn.Flatten(), nn.Linear(2 * 16, 3)]  # type: ignore[list-item]
    x = torch.zeros(2, 1, 4, 4)
    signal = sg.SyntheticGradient(synthesizer="conv")
    assert seconds_of_signal(modules, x, signal)[2] == math.inf
    chain = sg.Chain.balanced(modules, num_stages=3, example_inputs=x, signal=signal)
    assert [len(stage.module) for stage in chain] == [1, 1, 2]  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="where there can be none"):
        sg.Chain.balanced(modules, num_stages=4, example_inputs=x, signal=signal)


class Paced(nn.Module):
    """A layer that takes so many ticks of a clock that only it moves."""

    def __init__(self, wait: Callable[[], None]) -> None:
        super().__init__()
        self.wait = wait
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, h: Tensor) -> Tensor:
        self.wait()
        return h * self.weight


def test_each_child_is_timed_and_one_disturbance_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = itertools.count()
    clock = [0.0]

    def wait(seconds: float) -> Callable[[], None]:
        def move() -> None:
            clock[0] += seconds + (1000.0 if next(now) == 11 else 0.0)

        return move

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    modules = [Paced(wait(s)) for s in (2.0, 5.0, 3.0)]
    assert seconds_of_each(modules, X) == [2.0, 5.0, 3.0]


def test_timing_leaves_a_model_as_it_was() -> None:
    modules = layers()
    model = nn.Sequential(*modules).eval()
    modules[0].weight.grad = torch.ones(6, 5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state()
    x = X.clone()
    seconds = seconds_of_each(modules, x)
    assert len(seconds) == len(modules)
    assert min(seconds) > 0
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(m.training for m in modules)
    assert torch.equal(modules[0].weight.grad, torch.ones(6, 5))
    assert [p.grad is None for p in model.parameters()] == [False] + [True] * 5
    assert torch.equal(x, X)


def test_gradients_are_part_of_what_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = list[int]()
    grad = torch.autograd.grad

    def counted(outputs: list[Tensor], inputs: list[Tensor], *rest: object, **options: bool):
        wanted.append(len(inputs))
        return grad(outputs, inputs, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.autograd, "grad", counted)
    monkeypatch.setattr(timing, "ROUNDS", 1)
    seconds_of_each(layers(), X)
    # Two parameters below; then the input too, and of the layers without parameters it alone.
    assert wanted == [2, 3, 1, 1, 3] * 3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)).relu())


class Skip(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.c(self.b(h)) + h.sum(1, keepdim=True)


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_a_chain_of_a_pipe() -> None:
    from torch.distributed.pipelining import SplitPoint, pipeline

    split = {"b": SplitPoint.BEGINNING, "c": SplitPoint.BEGINNING}
    net = Net()
    pipe = pipeline(net, (X,), split_spec=split)
    chain = sg.Chain.from_pipe(pipe, example_inputs=X, signal=sg.NoSignal())
    assert len(chain) == 3
    torch.testing.assert_close(chain(X), net(X), rtol=0, atol=0)
    # The model's own parameters, so that it is the one that is trained.
    assert {id(p) for p in chain.parameters()} == {id(p) for p in net.parameters()}
    with pytest.raises(UnsupportedModelError, match="where a single path goes up"):
        sg.Chain.from_pipe(pipeline(Skip(), (X,), split_spec=split), example_inputs=X)
