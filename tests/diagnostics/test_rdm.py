"""RDMs against NumPy, their rank correlation against SciPy, and ANOSIM's R by hand."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import synthgrad as sg
from synthgrad.diagnostics import class_separation, rdm, rdm_similarity
from synthgrad.errors import ConfigError

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(9, 1, 6, 6, generator=GENERATOR)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU()),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(48, 4),
    )


def test_every_layer_equals_numpy():
    model = network()
    found = rdm(model, X)
    assert list(found) == ["0", "1", "2"]
    model.eval()
    h = model[0](X).detach().flatten(1).double().numpy()
    expected = torch.from_numpy(1 - np.corrcoef(h))
    # sums in another order
    torch.testing.assert_close(found["0"], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found["1"], found["2"], rtol=0, atol=0)


@pytest.mark.parametrize("at", [["3"], "3", lambda name, module: isinstance(module, nn.Linear)])
def test_layers_are_chosen_as_for_decouple(at):
    assert list(rdm(network(), X, at)) == ["3"]


def test_it_is_a_dissimilarity():
    for d in rdm(network(), X).values():
        assert d.dtype == torch.float64
        torch.testing.assert_close(d, d.T, rtol=0, atol=0)
        assert not d.diagonal().any()
        assert d.min() >= 0
        assert d.max() <= 2


def test_a_constant_activation_is_like_nothing_but_itself():
    # 0.1 and 0.3 have means that are not exact in binary
    x = torch.tensor([[0.1] * 7, [0.3] * 7, [0.0] * 7, [1.0, 2, 3, 4, 5, 6, 7]])
    d = rdm(nn.Sequential(nn.Identity(), nn.Identity()), x)["0"]
    torch.testing.assert_close(d, 1 - torch.eye(4, dtype=torch.float64), rtol=0, atol=0)


class TwoOutputs(nn.Module):
    def forward(self, x):
        return {"left": x[:, :2], "count": torch.arange(len(x)), "right": x[:, 2]}


def test_all_of_a_modules_tensors_count():
    x = torch.randn(5, 3, generator=GENERATOR)
    d = rdm(nn.Sequential(nn.Identity(), TwoOutputs()), x, ["0", "1"])
    torch.testing.assert_close(d["0"], d["1"], rtol=0, atol=0)


def test_the_model_is_left_as_it_was_and_a_decoupled_one_goes_by_its_own_names():
    model = network()
    net = sg.decouple(model, ["0"], example_inputs=X)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    random = torch.random.get_rng_state()
    assert list(rdm(net, X, ["0", "3"])) == ["0", "3"]
    assert torch.equal(random, torch.random.get_rng_state())
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    assert all(m.training for m in net.modules())
    assert sum(len(m._forward_hooks) for m in model.modules()) == 1  # the interface's own


class Awkward(nn.Module):
    def __init__(self):
        super().__init__()
        self.twice = nn.Identity()
        self.idle = nn.Identity()
        self.scalar = Mean()

    def forward(self, x):
        self.scalar(x)
        return self.twice(self.twice(x))


class Mean(nn.Module):
    def forward(self, x):
        return x.mean()


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("twice", "more than once"),
        ("idle", "does not run"),
        ("scalar", "no floating-point activations"),
        ("twise", "did you mean 'twice'"),
    ],
)
def test_a_layer_that_has_no_rdm_is_refused_and_no_hook_stays(at, message):
    model = Awkward()
    with pytest.raises(ConfigError, match=message):
        rdm(model, X, at)
    assert not any(m._forward_hooks for m in model.modules())


def symmetric(num_examples, levels=None):
    d = torch.rand(num_examples, num_examples, generator=GENERATOR, dtype=torch.float64)
    d = d if levels is None else (d * levels).floor() / levels
    return d.triu(1) + d.triu(1).T


@pytest.mark.parametrize("levels", [None, 3, 20])
def test_similarity_equals_scipys_spearman(levels):
    a, b = symmetric(12, levels), symmetric(12, levels)
    upper = np.triu_indices(12, 1)
    expected = stats.spearmanr(a.numpy()[upper], b.numpy()[upper]).statistic
    assert rdm_similarity(a, b) == pytest.approx(expected, abs=1e-14)
    assert rdm_similarity(a, a**3) == pytest.approx(1, abs=1e-14)
    assert rdm_similarity(a, -a) == pytest.approx(-1, abs=1e-14)


def test_nothing_is_similar_to_an_rdm_without_order():
    assert rdm_similarity(symmetric(5), torch.ones(5, 5)) == 0.0


@pytest.mark.parametrize("levels", [None, 4])
def test_class_separation_is_anosims_r(levels):
    d, labels = symmetric(8, levels), torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])
    pairs = list(itertools.combinations(range(8), 2))
    ranks = stats.rankdata([float(d[i, j]) for i, j in pairs])
    same = np.array([bool(labels[i] == labels[j]) for i, j in pairs])
    expected = (ranks[~same].mean() - ranks[same].mean()) / (len(pairs) / 2)
    assert class_separation(d, labels) == pytest.approx(expected, abs=1e-14)


def test_class_separation_at_its_ends():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    apart = (labels[:, None] != labels[None]).double()
    assert class_separation(apart, labels) == 1.0
    assert class_separation(1 - apart, labels) < -0.9
    assert class_separation(torch.ones(6, 6), labels) == 0.0


@pytest.mark.parametrize(
    "measure",
    [
        lambda: rdm_similarity(torch.ones(4, 4), torch.ones(5, 5)),
        lambda: rdm_similarity(torch.ones(2, 2), torch.ones(2, 2)),
        lambda: rdm_similarity(torch.ones(3, 4), torch.ones(3, 4)),
        lambda: class_separation(torch.ones(4, 4), torch.zeros(3)),
        lambda: class_separation(torch.ones(4, 4), torch.zeros(4)),
        lambda: class_separation(torch.ones(4, 4), torch.arange(4)),
    ],
)
def test_what_has_no_number_is_refused(measure):
    with pytest.raises(ConfigError):
        measure()
