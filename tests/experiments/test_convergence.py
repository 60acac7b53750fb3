"""Czarnecki's toy study: closed forms, the library's own loop, and the verdicts' rules."""

import io
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from synthgrad.bench.records.reading import read_records
from synthgrad.errors import ConfigError
from synthgrad.experiments.contract import RunOptions
from synthgrad.experiments.czarnecki2017.convergence import (
    EXPERIMENT,
    PRESETS,
    ConvergenceConfig,
    Schedule,
    make_tasks,
)
from synthgrad.experiments.czarnecki2017.convergence_findings import find
from synthgrad.experiments.czarnecki2017.convergence_runs import ToyRun
from synthgrad.experiments.czarnecki2017.toy_data import DATA_NAMES, ToyData, make_data
from synthgrad.experiments.czarnecki2017.toy_library import train_with_library
from synthgrad.experiments.czarnecki2017.toy_solutions import (
    error,
    is_separable,
    linear_sg_rest,
    mean_loss,
    minimum,
)
from synthgrad.experiments.czarnecki2017.toy_synthesizers import (
    Linear,
    Sigmoid,
    SigmoidPlus,
)
from synthgrad.experiments.czarnecki2017.toy_training import (
    chain_gradients,
    jacobian_norm,
    make_model,
    product,
    track,
    train,
    triangle,
)


def data(name="noisy", loss="mse", dim=3, num=60):
    return make_data(name, dim=dim, num=num, loss=loss, seed=0)


def run(model, synthesizer, examples, loss, **values):
    settings = {"iterations": 2000, "rate": 0.1, "batch_size": None, "seed": 0}
    return train(model, synthesizer, examples, loss, look=lambda _: None, **{**settings, **values})


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", DATA_NAMES)
def test_data_follow_their_rules(name):
    made, again = data(name, num=4000), data(name, num=4000)
    np.testing.assert_array_equal(made.x, again.x)
    assert made.x.shape == (4000, 4)
    assert np.all(made.x[:, -1] == 1)
    linear = make_data(name, dim=3, num=4000, loss="log", seed=0)
    assert linear.y.min() >= 0
    assert linear.y.max() <= 1
    assert is_separable(linear) == (name == "separable")
    fit = made.x @ minimum("mse", made)
    explained = 1 - np.mean((made.y - fit) ** 2) / np.var(made.y)
    # Four thousand examples tell these shares to about a hundredth.
    assert {
        "separable": explained > 0.6,
        "noisy": 0.15 < explained < 0.35,  # (2/pi) * (1 - 2/5)² = 0.23
        "teacher": 0.75 < explained < 0.85,  # 1 / (1 + 0.25)
        "xor": explained < 0.01,
    }[name]


@pytest.mark.parametrize("loss", ["mse", "log"])
def test_the_minimum_has_no_gradient(loss):
    examples = data(loss=loss)
    weights = minimum(loss, examples)
    gradient = examples.x.T @ error(loss, examples.x @ weights, examples.y)
    assert np.abs(gradient).max() < 1e-11  # sums of 60 numbers near 1
    assert minimum("log", data("separable", "log")) is None


def test_the_errors_are_the_losses_derivatives():
    score = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    y = torch.linspace(0, 1, 7, dtype=torch.float64)
    for loss, value in (
        ("mse", ((score - y) ** 2 / 2).mean()),
        ("log", torch.nn.functional.binary_cross_entropy_with_logits(score, y)),
    ):
        numbers = score.detach().numpy()
        assert math.isclose(mean_loss(loss, numbers, y.numpy()), value.item(), rel_tol=1e-14)
        (gradient,) = torch.autograd.grad(value, score)
        np.testing.assert_allclose(
            error(loss, numbers, y.numpy()) / 7, gradient.numpy(), rtol=1e-13, atol=1e-16
        )


@pytest.mark.parametrize("line_search", [True, False])
def test_mse_with_a_linear_synthesizer_reaches_least_squares(line_search):
    examples = data("teacher")
    model = make_model(3, 0, 4, 0)
    assert run(model, Linear(1, None if line_search else 0.2), examples, "mse")
    # The demand is 1e-4.
    assert relative(model.map(), np.linalg.lstsq(examples.x, examples.y)[0]) < 1e-10


def test_deep_linear_models_reach_least_squares():
    examples = data("teacher")
    model = make_model(3, 4, 5, 0)
    assert run(model, Linear(5, None), examples, "mse", rate=0.02, iterations=4000)
    assert relative(model.map(), np.linalg.lstsq(examples.x, examples.y)[0]) < 1e-4


def test_log_loss_with_a_linear_synthesizer_rests_where_derived_and_not_at_the_minimum():
    examples = data(loss="log")
    model, synthesizer = make_model(3, 0, 4, 0), Linear(1, None)
    assert run(model, synthesizer, examples, "log", rate=0.4, iterations=4000)
    rest, best = linear_sg_rest(examples), minimum("log", examples)
    assert relative(rest, best) > 1e-3
    assert relative(model.map(), rest) < 1e-8
    tracking = track(model, synthesizer, examples, "log", triangle(examples.x))
    assert tracking.gradient > 1e-4  # it stands still where the loss does not
    assert tracking.relative_error > 0.99


def test_a_sigmoid_with_its_own_scale_reaches_the_minimum_of_the_log_loss():
    examples = data(loss="log")
    model = make_model(3, 0, 4, 0)
    assert run(model, SigmoidPlus(1, 0.3), examples, "log", rate=0.4, iterations=20_000)
    assert relative(model.map(), minimum("log", examples)) < 1e-4


@pytest.mark.parametrize("depth", [0, 3])
@pytest.mark.parametrize("loss", ["mse", "log"])
def test_formulas_equal_the_library(depth, loss):
    examples, model = data("teacher", loss), make_model(3, depth, 4, 0)
    theirs = train_with_library(
        model, examples, loss, iterations=20, rate=0.05, synthesizer_rate=0.1
    )
    before = [w.copy() for w in model.weights]
    run(model, Linear(4 if depth else 1, 0.1), examples, loss, iterations=20, rate=0.05)
    for ours, w, start in zip(model.weights, theirs, before, strict=True):
        np.testing.assert_allclose(ours, w, rtol=0, atol=1e-14)  # sums in another order
        assert not np.array_equal(ours, start)


def test_a_chains_gradients_and_jacobian_equal_autograds():
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    chain = make_model(3, 3, 5, 0).weights[:3]
    leaves = [torch.from_numpy(w).requires_grad_() for w in chain]

    def outputs(*matrices):
        h = x
        for w in matrices:
            h = h @ w.T
        return h

    end = torch.arange(30, dtype=torch.float64).reshape(6, 5)
    expected = torch.autograd.grad((outputs(*leaves) * end).sum(), leaves)
    found = chain_gradients(chain, (end.T @ x).numpy())
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=1e-12)
    jacobians = torch.autograd.functional.jacobian(outputs, tuple(leaves))
    matrix = torch.cat([j.reshape(30, -1) for j in jacobians], dim=1)
    largest = float(torch.linalg.matrix_norm(matrix, 2))
    for inputs in (x.numpy(), triangle(x.numpy())):
        # The iteration stops at 1e-6.
        assert math.isclose(jacobian_norm(chain, inputs), largest, rel_tol=1e-6)
    single = [chain[0][:1]]
    assert math.isclose(
        jacobian_norm(single, x.numpy()), float(torch.linalg.matrix_norm(x, 2)), rel_tol=1e-6
    )
    np.testing.assert_allclose(product(chain), chain[2] @ chain[1] @ chain[0])


@pytest.mark.parametrize("make", [Linear, Sigmoid, SigmoidPlus])
def test_a_synthesizers_fit_is_gradient_descent(make):
    random = np.random.default_rng(0)
    h, y, target = random.normal(size=(9, 3)), random.normal(size=9), random.normal(size=(9, 3))

    def numbers(synthesizer):
        return {k: v for k, v in vars(synthesizer).items() if k in names}

    names = ("weights",) if make is not SigmoidPlus else ("inner", "scale", "outer")
    synthesizer = make(3, 0.1)
    for name, value in numbers(synthesizer).items():
        setattr(synthesizer, name, value + random.normal(size=value.shape))
    before = {name: value.copy() for name, value in numbers(synthesizer).items()}

    def loss():
        return ((synthesizer.predict(h, y) - target) ** 2).sum() / len(h)

    slopes = {}
    for name, value in before.items():
        slope = np.zeros_like(value)
        for place in np.ndindex(value.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = value.copy()
                moved[place] += step
                setattr(synthesizer, name, moved)
                ends.append(loss())
            slope[place] = (ends[0] - ends[1]) / 2e-6
        setattr(synthesizer, name, value.copy())
        slopes[name] = slope
    loss()
    synthesizer.fit(target)
    for name, value in numbers(synthesizer).items():
        # The derivative by differences is good to about 1e-9.
        np.testing.assert_allclose(value, before[name] - 0.1 * slopes[name], rtol=0, atol=1e-8)


def test_line_search_takes_the_best_step():
    random = np.random.default_rng(0)
    h, y, target = random.normal(size=(20, 2)), random.normal(size=20), random.normal(size=(20, 2))
    searching = Linear(2, None)
    searching.predict(h, y)
    searching.fit(target)

    def loss_after(synthesizer):
        return ((synthesizer.predict(h, y) - target) ** 2).sum()

    best = loss_after(searching)
    fixed = []
    for rate in np.linspace(0.01, 1.0, 100):
        synthesizer = Linear(2, rate)
        synthesizer.predict(h, y)
        synthesizer.fit(target)
        fixed.append(loss_after(synthesizer))
    assert best <= min(fixed) < 1.01 * best


def test_batches_are_drawn_from_the_seed():
    ends = []
    for seed in (0, 0, 1):
        model = make_model(3, 0, 4, 0)
        run(model, None, data(), "mse", iterations=5, batch_size=7, seed=seed)
        ends.append(model.map())
    np.testing.assert_array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])


def test_what_diverges_is_told():
    assert not run(make_model(3, 0, 4, 0), None, data(), "mse", rate=50.0)


def toy_run(distance, ratio=None, **values):
    n = len(distance)
    settings = {
        "model": "linear-mse",
        "data_set": "noisy",
        "dim": 2,
        "seed": 0,
        "signal": "linear",
        "finite": True,
        "has_minimum": True,
        "iteration": list(range(n)),
        "loss": [1.0] * n,
        "distance": distance,
        "to_rest": [None] * n,
        "ratio": ratio or [0.5] * n,
        "relative_error": [0.5] * n,
    }
    return ToyRun(**{**settings, **values})


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ({"distance": [1.0, 0.1, 9e-5]}, "reached"),
        ({"distance": [1.0, 0.1, 2e-4]}, "moving"),
        ({"distance": [1.0, 0.1, 0.1]}, "elsewhere"),
        ({"distance": [1.0, 0.1, 0.2]}, "elsewhere"),
        ({"distance": [1.0, 0.1, 9e-5], "finite": False}, "diverged"),
        ({"distance": [None] * 3, "has_minimum": False, "loss": [0.7, 0.3, 0.01]}, "falls"),
        ({"distance": [None] * 3, "has_minimum": False, "loss": [0.7, 0.3, 0.2]}, "elsewhere"),
    ],
)
def test_outcomes(values, outcome):
    assert toy_run(**values).outcome == outcome


def test_tracking_is_about_the_last_half_before_rounding():
    assert toy_run([1.0, 0.5, 0.1, 1e-2, 1e-12], [2.0, 2.0, 0.9, 0.9, 7.0]).tracks
    assert not toy_run([1.0, 0.5, 0.1, 1e-2, 1e-12], [2.0, 2.0, 0.9, 1.1, 7.0]).tracks
    assert toy_run([1.0, 0.5, 0.1, 0.05]).converges
    assert not toy_run([1.0, 0.5, 0.1, 0.2]).converges


TINY = Schedule(iterations=400, rate=0.2, synthesizer_rate=0.3)
CONFIG = ConvergenceConfig(
    data_sets=("noisy", "separable"),
    dims=(2,),
    num_examples=(60,),
    num_hidden=2,
    width=4,
    linear_mse=TINY,
    linear_log=TINY,
    deep_mse=TINY,
    deep_log=TINY,
    num_looks=8,
    library_iterations=5,
    seeds=(0,),
)


def test_the_study_runs_and_reports(tmp_path):
    options = RunOptions(preset="test", out=tmp_path, console=Console(file=io.StringIO()))
    assert EXPERIMENT.run(CONFIG, options).succeeded
    found = read_records(tmp_path)
    assert found[1] == []
    assert len(found[0]) == 8
    findings = find(found[0])
    claims = {claim.claim: claim for claim in findings.claims}
    assert claims["Theorem 1: linear model, MSE, linear SG with line search"].verdict == (
        "reproduced"
    )
    assert claims["Log loss with SG = sigmoid(hA + yB + c)"].verdict == "not reproduced"
    assert len(findings.claims) == 7
    assert [len(table.rows) for table in findings.tables] == [16, 8, 12, 4]
    differences = [e["difference"] for r in found[0] for e in r.of_kind("library")]
    assert max(differences) < 1e-13
    page = EXPERIMENT.write_page(tmp_path, found)
    assert "Theorem 1" in page.read_text()
    assert (tmp_path / "figures" / "distance.svg").is_file()
    assert find([]).claims == ()
    assert find([]).pictures == ()


def test_runs_too_short_for_backprop_are_not_judged(tmp_path):
    short = replace(TINY, iterations=2)
    config = replace(CONFIG, models=("linear-mse",), linear_mse=short, data_sets=("noisy",))
    options = RunOptions(preset="test", out=tmp_path, console=Console(file=io.StringIO()))
    EXPERIMENT.run(config, options)
    claim = find(read_records(tmp_path)[0]).claims[0]
    assert claim.verdict == "not comparable"
    assert "backprop itself has not arrived" in claim.measured


def test_tasks_of_all_presets_can_be_sent_to_other_processes():
    assert set(PRESETS) == {"smoke", "quick", "full", "paper"}
    for config in PRESETS.values():
        assert pickle.loads(pickle.dumps(make_tasks(config)))


@pytest.mark.parametrize(
    "values",
    [
        {"dims": (2, 100), "num_examples": (200,)},
        {"dims": (1,), "num_examples": (200,)},
        {"num_hidden": 0},
        {"batch_size": 0},
    ],
)
def test_configs_that_cannot_work(values):
    with pytest.raises(ConfigError):
        ConvergenceConfig(**values)
    with pytest.raises(ConfigError, match="above 0"):
        Schedule(iterations=1, rate=0.0, synthesizer_rate=1.0)


def test_a_plane_through_equal_points_separates_nothing():
    x = np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    assert not is_separable(ToyData(x=x, y=np.array([0.0, 1.0, 1.0])))
    assert is_separable(ToyData(x=x, y=np.array([0.0, 0.0, 1.0])))
