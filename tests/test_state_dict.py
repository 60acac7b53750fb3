"""Saving and loading: a run that was saved goes on as if it had not been."""

import io
import pathlib
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import synthgrad as sg
from zoo import CLASSES, ZOO

MLP, BATCH_NORM = ZOO[0], ZOO[1]
OPTIONS = {
    "signal": sg.SyntheticGradient(condition=sg.OneHot(CLASSES), synthesizer="mirror", fit_first=5),
    "update_probability": 0.7,
    "seed": 3,
}


def decoupled(specimen=BATCH_NORM, **options):
    options = {**OPTIONS, **options}
    x, _ = specimen.batch()
    torch.manual_seed(9)
    return sg.decouple(specimen.model(), list(specimen.at), example_inputs=x, **options)


def train(net, optimizer, numbers, specimen=BATCH_NORM):
    for number in numbers:
        x, y = specimen.batch(number)
        F.cross_entropy(net(x, condition=y), y).backward()
        optimizer.step()
        optimizer.zero_grad()


def adam(net):
    return torch.optim.Adam(net.parameters(), lr=0.01)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_saved_run_goes_on_exactly():
    whole = decoupled()
    train(whole, adam(whole), range(14))
    first = decoupled()
    optimizer = adam(first)
    train(first, optimizer, range(6))
    saved = through_a_file({"net": first.state_dict(), "optimizer": optimizer.state_dict()})
    second = decoupled()
    optimizer = adam(second)
    second.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    train(second, optimizer, range(6, 14))
    torch.testing.assert_close(second.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert second.num_forwards == 14
    fits = [i.num_fits for i in second.ordered_interfaces()]
    assert fits == [i.num_fits for i in whole.ordered_interfaces()]
    assert max(fits) < 14


def one_more_pass(net):
    x, y = MLP.batch(3)
    F.cross_entropy(net(x, condition=y), y).backward()
    return {"updated": net.updated, "gradients": [p.grad for p in net.parameters()]}


def test_it_reloads_in_another_process(tmp_path):
    net = decoupled(MLP)
    train(net, adam(net), range(9), MLP)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    here = pathlib.Path(__file__).parent
    code = f"""
import sys, torch
sys.path.insert(0, {str(here)!r})
import conftest, test_state_dict as t
net = t.decoupled(t.MLP)
net.load_state_dict(torch.load("net.pt", weights_only=True))
torch.save(t.one_more_pass(net), "pass.pt")
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    found = torch.load(tmp_path / "pass.pt", weights_only=True)
    torch.testing.assert_close(found, one_more_pass(net), rtol=0, atol=0)
    assert any(g is None for g in found["gradients"]), "a stage should have been skipped"


def test_the_models_own_part_loads_into_the_plain_model():
    net = decoupled()
    train(net, adam(net), range(5))
    plain = BATCH_NORM.model()
    plain.load_state_dict(net.model.state_dict())
    own = {
        key.removeprefix("model."): value
        for key, value in net.state_dict().items()
        if key.startswith("model.")
    }
    torch.testing.assert_close(own, dict(plain.state_dict()), rtol=0, atol=0)


def test_keys_are_named_after_the_interfaces():
    keys = set(decoupled().state_dict())
    assert "model.a.0.weight" in keys
    assert "interfaces.a.synthesizers.0.last.weight" in keys
    assert {k.partition(".")[0] for k in keys} == {"model", "interfaces", "_extra_state"}


def test_another_cut_does_not_load():
    x, _ = MLP.batch()
    other = sg.decouple(MLP.model(), ["a", "b"], example_inputs=x, **OPTIONS)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*interfaces\.c"):
        other.load_state_dict(decoupled(MLP).state_dict())
