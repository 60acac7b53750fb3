"""Every problem with a cut is found before training, told with place and mend, all at once."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import synthgrad as sg
from synthgrad.errors import UnsupportedModelError
from zoo import ZOO


def mlp(depth=4):
    return nn.Sequential(*[nn.Linear(4, 4) for _ in range(depth)])


X = torch.zeros(2, 4)


class Net(nn.Module):
    """Two layers, a head, and a forward pass that a test chooses."""

    def __init__(self, run):
        super().__init__()
        self.layer1, self.layer2, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


def plain(net, x):
    return net.head(net.layer2(net.layer1(x)))


def problems(model, at, inputs=X):
    found = sg.validate(model, at, inputs)
    assert found.ok == (not found.problems)
    return found.problems


def only_problem(model, at, inputs=X):
    (problem,) = problems(model, at, inputs)
    return problem


# What is fine ------------------------------------------------------------------------------------


@pytest.mark.parametrize("specimen", ZOO, ids=lambda s: s.name)
def test_the_zoo_is_fine_and_left_as_it_was(specimen):
    model, untouched = specimen.model(), specimen.model()
    x, _ = specimen.batch()
    before = torch.get_rng_state(), random.getstate()
    found = sg.validate(model, list(specimen.at), x.clone())
    assert found.ok, found.problems
    assert tuple(c.name for c in found.cuts) == specimen.at
    torch.testing.assert_close(model.state_dict(), untouched.state_dict(), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert all(p.grad is None for p in model.parameters())
    for a, b in zip(model.modules(), untouched.modules(), strict=True):
        assert len(a._forward_hooks) == len(b._forward_hooks)


def test_a_buffer_that_the_forward_pass_replaced_is_the_same_object_again():
    specimen = next(s for s in ZOO if s.name == "Counting")
    model = specimen.model()
    buffer = model.mean
    assert sg.validate(model, list(specimen.at), specimen.batch()[0]).ok
    assert model.mean is buffer
    assert not buffer.any()


def test_the_trial_runs_in_training_mode_and_puts_the_flags_back():
    seen = []

    def run(net, x):
        seen.append(net.training)
        return plain(net, x)

    model = Net(run).eval()
    model.layer1.training = False
    assert sg.validate(model, "layer1", X).ok
    assert seen == [True]
    assert not any(m.training for m in model.modules())
    frozen = Net(run).train()
    frozen.layer2.eval()  # a user's own choice, such as a frozen batch norm
    assert sg.validate(frozen, "layer1", X).ok
    assert not frozen.layer2.training


def test_cuts_are_in_the_order_of_the_forward_pass():
    found = sg.validate(mlp(), ["2", "0", "1"], X)
    assert [c.name for c in found.cuts] == ["0", "1", "2"]
    assert [c.examples[0].shape for c in found.cuts] == [(2, 4)] * 3
    assert not any(t.requires_grad for c in found.cuts for t in c.examples)


@pytest.mark.parametrize(("name", "clones"), [("InPlaceView", 1), ("Conv", 2), ("Mlp", 0)])
def test_an_operation_in_place_after_an_interface_is_noticed(name, clones):
    specimen = next(s for s in ZOO if s.name == name)
    found = sg.validate(specimen.model(), list(specimen.at), specimen.batch()[0])
    assert sum(c.clone for c in found.cuts) == clones


def test_every_cuts_after_each_child_of_a_container_but_the_last():
    assert [c.name for c in sg.validate(mlp(), "every", X).cuts] == ["0", "1", "2"]

    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(4, 4)
            self.body = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3)])
            self.head = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))

        def forward(self, x):
            x = self.stem(x)
            for block in self.body:
                x = block(x)
            return self.head(x)

    names = [c.name for c in sg.validate(Nested(), "every", X).cuts]
    assert names == ["body.0", "body.1", "head.0"]


def test_a_callable_chooses_modules():
    found = sg.validate(mlp(), lambda name, module: name in ("0", "2"), X)
    assert [c.name for c in found.cuts] == ["0", "2"]


@pytest.mark.parametrize(
    "inputs", [(X, X), {"x": X, "mask": X}, {"x": X}], ids=["tuple", "dict", "one"]
)
def test_example_inputs(inputs):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x, mask=None):
            h = self.a(x)
            return self.b(h if mask is None else h * mask)

    assert not problems(Two(), "a", inputs)


def test_weight_sharing_across_stages_is_allowed():
    def run(net, x):
        return net.head(F.linear(net.layer2(net.layer1(x)), net.layer1.weight))

    assert not problems(Net(run), ["layer1", "layer2"])


def test_the_input_may_be_used_again_higher_up():
    assert not problems(Net(lambda net, x: net.head(net.layer2(net.layer1(x)) + x)), ["layer1"])


def test_checkpoints_inside_a_stage_are_fine():
    def run(net, x):
        return net.head(checkpoint(net.layer2, net.layer1(x), use_reentrant=False))

    assert not problems(Net(run), ["layer1"])


# What is not -------------------------------------------------------------------------------------


def test_a_module_that_does_not_exist_with_suggestions():
    assert only_problem(Net(plain), ["layer_1"]) == (
        "there is no module named 'layer_1'; did you mean 'layer1' or 'layer2'?"
    )
    problem = only_problem(Net(plain), "zzz")
    assert "its children are 'layer1', 'layer2', 'head'" in problem


def test_the_model_itself_is_no_place():
    assert "there is no module named ''" in only_problem(Net(plain), [""])


def test_no_place_at_all():
    assert "`at` names no module" in only_problem(mlp(), [])
    assert "chose no module" in only_problem(mlp(), lambda name, module: False)
    assert "found no nn.Sequential" in only_problem(Net(plain), "every")


def test_a_place_named_twice():
    assert "'layer1' is named 2 times" in only_problem(Net(plain), ["layer1", "layer1"])


def test_a_skip_connection_from_an_interface_over_the_next():
    def run(net, x):
        h = net.layer1(x)
        return net.head(net.layer2(h) + h)

    problem = only_problem(Net(run), ["layer1", "layer2"])
    assert "a skip connection bypasses the interface after 'layer2'" in problem
    assert "what leaves the interface after 'layer1' is used again" in problem
    assert "whole residual block" in problem


def test_a_skip_connection_from_inside_a_stage():
    def run(net, x):
        inside = net.layer1(x)
        return net.head(net.layer2(inside) + inside)

    problem = only_problem(Net(run), ["layer2"])
    assert "a skip connection bypasses the interface after 'layer2'" in problem
    assert "inside the stage below it is used in the stage that ends at the output" in problem
    assert "as part of a tuple" in problem


def test_parallel_branches():
    def run(net, x):
        return net.head(net.layer1(x) + net.layer2(x))

    assert any("bypasses" in p for p in problems(Net(run), ["layer1", "layer2"]))


def test_a_module_called_twice():
    problem = only_problem(Net(lambda net, x: net.head(net.layer1(net.layer1(x)))), "layer1")
    assert "'layer1' is called 2 times" in problem
    assert "wraps the repetition" in problem


def test_a_module_never_called():
    problem = only_problem(Net(lambda net, x: net.head(net.layer1(x))), "layer2")
    assert "'layer2' is called 0 times" in problem
    assert "behind a condition" in problem


def test_an_interface_after_the_last_layer():
    problem = only_problem(Net(plain), "head")
    assert "nothing with a gradient stands between the interface after 'head'" in problem
    assert "set interfaces below the last layer" in problem


def test_what_goes_up_is_detached():
    def run(net, x):
        h = net.layer1(x)
        return net.head(net.layer2(h.detach()))

    problem = only_problem(Net(run), "layer1")
    assert (
        "the interface after 'layer1' does not reach the stage that ends at the output" in problem
    )


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_around_an_interface(reentrant):
    def run(net, x):
        return net.head(net.layer2(checkpoint(net.layer1, x, use_reentrant=reentrant)))

    found = problems(Net(run), ["layer1", "layer2"], X.clone().requires_grad_())
    assert len(found) == 1
    assert "'layer1' is called inside an activation checkpoint" in found[0]
    assert "checkpoint the layers within 'layer1' instead" in found[0]


def test_an_interface_under_no_grad():
    def run(net, x):
        with torch.no_grad():
            h = net.layer1(x)
        return net.head(h)

    assert "under no_grad" in only_problem(Net(run), "layer1")


def test_an_output_without_an_activation():
    class Indices(nn.Module):
        def forward(self, x):
            return x.argmax(-1)

    model = nn.Sequential(nn.Linear(4, 4), Indices(), nn.Embedding(4, 3))
    problem = only_problem(model, "1")
    assert "output of '1' is Tensor without a floating-point tensor" in problem


def test_a_model_whose_output_cannot_be_searched():
    problem = only_problem(Net(lambda net, x: {plain(net, x)}), "layer1")
    assert "the model's output has no floating-point tensor in it" in problem


def test_a_forward_pass_that_fails():
    problem = only_problem(mlp(), "0", torch.zeros(2, 5))
    assert "the forward pass on the example inputs failed: RuntimeError: " in problem
    assert "2x5 and 4x4" in problem


def test_all_problems_are_told_at_once():
    def run(net, x):
        h = net.layer1(x)
        return net.head(net.layer2(net.layer2(h)) + h)

    model = Net(run)
    model.body = nn.Linear(4, 4)
    found = problems(model, ["layer1", "layer2", "head", "bodi", "body"])
    assert len(found) == 4
    for text in ("'bodi'", "'layer2' is called 2 times", "'body' is called 0", "after 'head'"):
        assert sum(text in p for p in found) == 1, (text, found)
    with pytest.raises(UnsupportedModelError) as caught:
        sg.decouple(model, ["layer1", "layer2", "head", "bodi", "body"], example_inputs=X)
    for number, problem in enumerate(found, 1):
        assert f"{number}. {problem}" in str(caught.value)
    assert not any(m._forward_hooks for m in model.modules())


def test_both_kinds_of_bypass_at_once():
    def run(net, x):
        inside = torch.tanh(net.layer1.weight.sum() * x)
        h = net.layer1(inside)
        return net.head(net.layer2(h) + h + inside)

    found = problems(Net(run), ["layer1", "layer2"])
    assert len(found) == 2
    assert all("bypasses" in p for p in found)
