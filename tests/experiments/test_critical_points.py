"""Stationary points with synthetic gradients: formulas against autograd, roots against proofs."""

import io
import pickle

import numpy as np
import pytest
import torch
from rich.console import Console

from synthgrad.bench.records.reading import read_records
from synthgrad.errors import ConfigError
from synthgrad.experiments.contract import RunOptions
from synthgrad.experiments.czarnecki2017.critical_points import (
    EXPERIMENT,
    LABELS,
    PRESETS,
    CriticalPointsConfig,
    make_problem,
    make_tasks,
)
from synthgrad.experiments.czarnecki2017.critical_points_findings import find
from synthgrad.experiments.czarnecki2017.stationary import descend, find_roots, growth_rates
from synthgrad.experiments.czarnecki2017.toy_solutions import (
    linear_sg_rest,
    minimum,
    unconditioned_rest_curve,
)


def states(problem, num=4):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(num, problem.num_weights, generator=generator, dtype=torch.float64)
    return problem.fitted(0.5 * draws)


def sg_roots(name):
    problem = make_problem(name, 40, 0)
    roots = find_roots(lambda s: problem.update(s, 2.0), states(problem), tolerance=1e-10)
    return problem, [root[: problem.num_weights].numpy() for root in roots]


@pytest.mark.parametrize("name", LABELS)
def test_the_gradient_equals_autograds(name):
    problem = make_problem(name, 12, 0)
    weights = states(problem)[:, : problem.num_weights].requires_grad_()
    (expected,) = torch.autograd.grad(problem.mean_loss(weights).sum(), weights)
    torch.testing.assert_close(problem.gradient(weights.detach()), expected)


@pytest.mark.parametrize("name", LABELS)
def test_the_update_equals_autograds(name):
    """Below the interface with the synthesizer's signal, above it with the true gradient."""
    problem = make_problem(name, 12, 0)
    state = states(problem, 1)[0] + 0.1
    x, y = torch.from_numpy(problem.data.x), torch.from_numpy(problem.data.y)
    below = state[: problem.num_below].reshape(problem.width, 3).clone().requires_grad_()
    phi = state[problem.num_weights :].reshape(problem.width, -1).clone().requires_grad_()
    top = state[problem.num_below : problem.num_weights].clone().requires_grad_()
    h = x @ below.T
    up = h.detach().requires_grad_()
    score = torch.tanh(up) @ top[:-1] + top[-1] if problem.num_hidden else up[:, 0]
    loss = (
        ((score - y) ** 2).mean() / 2
        if problem.loss == "mse"
        else torch.nn.functional.binary_cross_entropy_with_logits(score, y)
    )
    loss.backward()
    columns = [h.detach(), y[:, None], torch.ones(12, 1, dtype=torch.float64)]
    features = torch.cat(columns if problem.conditioned else [columns[0], columns[2]], dim=1)
    prediction = features @ phi.T
    h.backward(prediction.detach() / 12)
    ((prediction - 12 * up.grad) ** 2).sum().div(12).backward()
    tops = [top.grad] if problem.num_hidden else []
    parts = [below.grad.flatten(), *tops, 3.0 * phi.grad.flatten()]
    torch.testing.assert_close(problem.update(state, 3.0), -torch.cat(parts))


@pytest.mark.parametrize("name", LABELS)
def test_a_fitted_synthesizer_does_not_move(name):
    problem = make_problem(name, 12, 0)
    moves = problem.update(states(problem), 1.0)[:, problem.num_weights :]
    torch.testing.assert_close(moves, torch.zeros_like(moves), rtol=0, atol=1e-12)


def test_mse_with_a_conditioned_linear_synthesizer_has_the_minimum_alone():
    problem, roots = sg_roots("linear-mse")
    assert len(roots) == 4
    for root in roots:
        np.testing.assert_allclose(root, minimum("mse", problem.data), atol=1e-7)


def test_log_loss_has_one_rest_point_which_was_derived():
    problem, roots = sg_roots("linear-log")
    rest, best = linear_sg_rest(problem.data), minimum("log", problem.data)
    assert len(roots) == 4
    for root in roots:
        np.testing.assert_allclose(root, rest, atol=1e-7)
    assert np.linalg.norm(rest - best) > 0.05 * np.linalg.norm(best)
    rates = growth_rates(lambda s: problem.update(s, 2.0), problem.fitted(torch.from_numpy(rest)))
    assert rates.max() < -1e-3  # it attracts


def test_without_labels_every_direction_has_a_rest_point():
    problem, roots = sg_roots("unconditioned")
    roots = [root for root in roots if np.linalg.norm(root[:2]) > 1e-3]  # zero has no direction
    assert len({tuple(root.round(5)) for root in roots}) >= 2
    curve = torch.from_numpy(unconditioned_rest_curve(problem.data, 16))
    field = problem.update(problem.fitted(curve), 1.0)
    torch.testing.assert_close(field, torch.zeros_like(field), rtol=0, atol=1e-12)
    for root in roots:
        direction = np.arctan2(root[1], root[0]) % np.pi
        fine = unconditioned_rest_curve(problem.data, 4001)
        nearest = fine[round(direction / np.pi * 4000)]
        np.testing.assert_allclose(root, nearest, atol=2e-3)  # the grid is as fine as that
    rates = growth_rates(lambda s: problem.update(s, 2.0), problem.fitted(curve[3]))
    assert abs(rates[0]) < 1e-12  # along the curve
    assert rates[1] < -1e-3


def test_the_least_squares_fit_is_exact_where_h_holds_all_of_x():
    problem = make_problem("tanh-2", 20, 0)  # two units and the constant span two inputs
    fitted = states(problem)
    weights = fitted[:, : problem.num_weights]
    update = problem.update(fitted, 1.0)[:, : problem.num_weights]
    torch.testing.assert_close(update, -problem.gradient(weights), rtol=1e-9, atol=1e-12)
    narrow = make_problem("tanh-1", 20, 0)
    fitted = states(narrow)
    weights = fitted[:, : narrow.num_weights]
    update = narrow.update(fitted, 1.0)[:, : narrow.num_weights]
    assert (update + narrow.gradient(weights)).norm(dim=-1).min() > 1e-3


def test_descend_keeps_a_path():
    start = torch.tensor([[1.0], [2.0]])
    path = descend(lambda s: -s, start, rate=0.5, iterations=4, keep_every=2)
    torch.testing.assert_close(path, torch.stack([start, start / 4, start / 16]))
    end = descend(lambda s: -s, start, rate=0.5, iterations=4)
    torch.testing.assert_close(end, start / 16)


def test_roots_at_infinity_and_none_at_all():
    start = torch.tensor([[1.0]], dtype=torch.float64)
    assert find_roots(lambda s: s.square() + 1, start, tolerance=1e-10) == []
    assert find_roots(lambda s: torch.exp(-s), start, tolerance=1e-60) == []
    [root] = find_roots(lambda s: s.square() - 2, start, tolerance=1e-10)
    assert float(root) == pytest.approx(2**0.5)


def test_the_study_runs_and_reports(tmp_path):
    config = CriticalPointsConfig(
        problems=("linear-mse", "linear-log", "unconditioned"),
        num_starts=2,
        num_runs=2,
        linear_iterations=3000,
        start_scale=0.5,
        seeds=(0,),
    )
    options = RunOptions(preset="test", out=tmp_path, console=Console(file=io.StringIO()))
    assert EXPERIMENT.run(config, options).succeeded
    found = read_records(tmp_path)
    assert found[1] == []
    findings = find(found[0])
    points, critical, ends = findings.tables
    rows = {row[:2]: row for row in points.rows}
    assert rows[LABELS["linear-mse"], "both"][2:4] == ("1", "1")
    assert rows[LABELS["linear-mse"], "only SG"][2] == "0"
    assert rows[LABELS["linear-log"], "both"][2] == "0"
    assert rows[LABELS["linear-log"], "only SG"][2:4] == ("1", "1")
    assert int(rows[LABELS["unconditioned"], "only SG"][2]) >= 2
    assert {row[0]: row[2] for row in critical.rows}[LABELS["linear-mse"]] == "1"
    settled = {row[0]: row[2:4] for row in ends.rows}
    assert settled[LABELS["linear-mse"]] == ("2", "0")
    assert settled[LABELS["linear-log"]] == ("0", "2")
    assert [claim.verdict for claim in findings.claims] == [
        "reproduced",
        "reproduced",
        "not comparable",
    ]
    assert {picture.name for picture in findings.pictures} == {"planes", "gradients"}
    assert EXPERIMENT.write_page(tmp_path, found).is_file()
    assert find([]).claims == ()


def test_tasks_of_all_presets_can_be_sent_to_other_processes():
    assert set(PRESETS) == {"smoke", "quick", "full", "paper"}
    for config in PRESETS.values():
        assert pickle.loads(pickle.dumps(make_tasks(config)))


@pytest.mark.parametrize("values", [{"num_runs": 0}, {"num_examples": 3}, {"rate": 0.0}])
def test_configs_that_cannot_work(values):
    with pytest.raises(ConfigError):
        CriticalPointsConfig(**values)
