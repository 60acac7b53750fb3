"""A stage that is not updated costs no backward, and nothing that belongs to it moves."""

import copy
import warnings
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import synthgrad as sg
from synthgrad.compiler import missing_compiler

CDNI = sg.SyntheticGradient(condition=sg.OneHot(3))
NAMES = ["0", "1", "2"]


class Counted(torch.autograd.Function):
    """An identity that counts its backward passes."""

    @staticmethod
    def forward(ctx, h, count, name):
        ctx.count, ctx.name = count, name
        return h.view_as(h)

    @staticmethod
    def backward(ctx, gradient):
        ctx.count[ctx.name] += 1
        return gradient, None, None


class Stage(nn.Module):
    def __init__(self, width_in, width_out, name, count):
        super().__init__()
        self.layer, self.name, self.count = nn.Linear(width_in, width_out), name, count

    def forward(self, x):
        h = torch.tanh(self.layer(x))
        return h if self.count is None else Counted.apply(h, self.count, self.name)


class Checkpointed(nn.Module):
    def __init__(self, inner, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


def eager(count=None):
    widths = [(6, 10), (10, 9), (9, 8), (8, 3)]
    return nn.Sequential(*[Stage(a, b, i, count) for i, (a, b) in enumerate(widths)]).double()


def compiled():
    model = eager()
    for stage in model:
        stage.compile(backend="aot_eager")
    return model


def compiled_before():
    return nn.Sequential(*[torch.compile(s, backend="aot_eager") for s in eager()])


def inductor():
    model = eager()
    model[1].compile()
    return model


def checkpointed(reentrant):
    # Reentrant checkpoints need an input that requires grad, which the bottom stage has not.
    bottom, *others = eager()
    return nn.Sequential(bottom, *[Checkpointed(s, reentrant) for s in others])


FORMS = [
    pytest.param(eager, id="eager"),
    pytest.param(compiled, id="compiled"),
    pytest.param(compiled_before, id="compiled before"),
    pytest.param(
        inductor,
        id="inductor",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(
                missing_compiler("cpu") is not None, reason="nothing to compile with"
            ),
        ],
    ),
    pytest.param(lambda: checkpointed(True), id="checkpointed reentrant"),
    pytest.param(lambda: checkpointed(False), id="checkpointed"),
]


@pytest.fixture(autouse=True)
def compiler_is_reset():
    with warnings.catch_warnings():
        # Dynamo looks at `.grad` of activations, and imports modules that torch itself deprecates.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")
        warnings.filterwarnings("ignore", message=".*torch.jit")
        # A reentrant checkpoint says so where a skipped stage below it leaves no graph.
        warnings.filterwarnings("ignore", message="None of the inputs have requires_grad=True")
        yield
    torch._dynamo.reset()


def batch(number):
    source = torch.Generator().manual_seed(number)
    x = torch.randn(8, 6, generator=source, dtype=torch.float64)
    return x, torch.randint(0, 3, (8,), generator=source)


def decoupled(make, **options):
    torch.manual_seed(1)
    model = make()
    options = {"signal": CDNI, "update_probability": 0.5, "seed": 3, **options}
    net = sg.decouple(model, NAMES, example_inputs=batch(0)[0], **options)
    for p in net.synthesizer_parameters():
        nn.init.normal_(p, std=0.3)
    return net


def state(optimizer, parameters):
    return copy.deepcopy([(p.detach(), optimizer.state[p]) for p in parameters])


def parts(net):
    """Parameters of each stage, and of the synthesizers at each interface."""
    stages = [list(s.parameters()) for s in net.model]
    return stages, [list(s.parameters()) for s in net.synthesizers.values()]


@pytest.mark.parametrize("make", FORMS)
def test_nothing_of_a_skipped_stage_moves(make):
    net = decoupled(make)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.1)
    seen = Counter()
    for number in range(14):
        x, y = batch(number)
        stages, synthesizers = parts(net)
        before = [
            [state(optimizer, group) for group in groups] for groups in (stages, synthesizers)
        ]
        F.cross_entropy(net(x, condition=y), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        for groups, old, updated in [
            (stages, before[0], net.updated),
            (synthesizers, before[1], net.updated[1:]),
        ]:
            for group, was, moves in zip(groups, old, updated, strict=True):
                now = state(optimizer, group)
                if moves:
                    assert all(
                        not torch.equal(a, b) for (a, _), (b, _) in zip(now, was, strict=True)
                    )
                else:
                    torch.testing.assert_close(now, was, rtol=0, atol=0)
        seen[net.updated] += 1
    drawn = [sum(n for u, n in seen.items() if u[k]) for k in range(4)]
    assert all(0 < n < 14 for n in drawn), "every stage should have been skipped, and updated"
    assert any(any(u[:k]) and not any(u[k:]) for u in seen for k in (1, 2, 3)), "top skipped"


@pytest.mark.parametrize("make", FORMS[1:])
def test_every_form_trains_as_eager_does(make):
    nets = [decoupled(eager), decoupled(make)]
    for net in nets:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for number in range(10):
            x, y = batch(number)
            F.cross_entropy(net(x, condition=y), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        # A compiler may round differently.
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("release", ["backward", "forward"])
def test_a_skipped_stage_runs_no_backward(release):
    count = Counter()
    net = decoupled(lambda: eager(count), release=release)
    patterns = set()
    for number in range(20):
        x, y = batch(number)
        count.clear()
        F.cross_entropy(net(x, condition=y), y).backward()
        assert count == Counter(k for k, updated in enumerate(net.updated) if updated)
        patterns.add(net.updated)
    assert len(patterns) > 6


@pytest.mark.parametrize("release", ["backward", "forward"])
def test_when_all_stages_are_skipped_nothing_happens_and_nothing_fails(release):
    net = decoupled(eager, update_probability=1e-12, release=release)
    x, y = batch(0)
    F.cross_entropy(net(x, condition=y), y).backward()
    assert net.updated == (False,) * 4
    assert all(p.grad is None for p in net.parameters())


def test_outputs_that_need_no_gradient_stay_so():
    """A skipped stage below must not turn a by-product of the model into one with a graph."""

    class Top(nn.Linear):
        def forward(self, h):
            return {"logits": super().forward(h), "norm": h.detach().norm()}

    bottom, middle = eager()[:2]
    model = nn.Sequential(bottom, middle, Top(9, 3).double())
    net = sg.decouple(
        model, ["0", "1"], example_inputs=batch(0)[0], update_probability=(1, 1e-12, 1)
    )
    output = net(batch(0)[0])
    assert net.updated == (True, False, True)
    assert output["logits"].requires_grad
    assert not output["norm"].requires_grad


def test_a_draw_is_held_through_an_accumulation():
    net = decoupled(eager, accumulate=3)
    draws = []
    for number in range(12):
        x, y = batch(number)
        F.cross_entropy(net(x, condition=y), y).backward()
        draws.append(net.updated)
    groups = [draws[k : k + 3] for k in range(0, 12, 3)]
    assert all(len(set(group)) == 1 for group in groups)
    assert len(set(draws)) > 1
    assert [g[0] for g in groups] == [
        sg.updates.draw_updates((0.5,) * 4, seed=3, step=k) for k in range(4)
    ]
