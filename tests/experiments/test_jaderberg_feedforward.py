import pytest
import torch

from bench.fake_records import make_record
from bench.tiny import tiny_data
from synthgrad.errors import ConfigError
from synthgrad.experiments.jaderberg2017.accuracy import median_curve
from synthgrad.experiments.jaderberg2017.feedforward import (
    EXPERIMENT,
    LABELS,
    PRESETS,
    Family,
    FeedforwardConfig,
)
from synthgrad.experiments.jaderberg2017.feedforward_findings import find

DATA = tiny_data()
X, Y = DATA.train.take(torch.arange(12))


def records(case, seeds=(0, 1, 2), **accuracies):
    return [
        make_record(10.0, last + 0.01 * seed, arm=arm, seed=seed, config={"case": case})
        for arm, last in accuracies.items()
        for seed in seeds
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_make_jobs(preset):
    jobs = EXPERIMENT.cases(PRESETS[preset], preset)
    for case, job in jobs.items():
        assert [arm.name for arm in job.arms] == list(LABELS)
        assert job.config["case"] == case
        assert job.plan.iterations == job.config["iterations"]
        assert not set(job.seeds) & set(PRESETS[preset].tune_seeds)


def test_the_schedule_and_synthesizer_of_the_paper():
    job = EXPERIMENT.cases(PRESETS["paper"], "paper")["mnist-fcn6"]
    assert job.plan.decay_at == (300_000, 400_000)
    assert job.config["dni_synthesizer"] == "mlp"
    assert {arm.options["learning_rate"] for arm in job.arms} == {3e-5}


@pytest.mark.parametrize("name", LABELS)
def test_every_arm_takes_a_step(name):
    family = Family(depths=(3,), width=8, iterations=2, num_seeds=1)
    config = FeedforwardConfig(mnist_fcn=family, batch_size=12)
    job = EXPERIMENT.cases(config, "")["mnist-fcn3"]
    learner = next(arm for arm in job.arms if arm.name == name).build(0, DATA)
    assert learner.step(X, Y).isfinite()
    assert learner.num_updated == (1 if name == "no-signal" else 3)


def test_a_family_takes_the_first_seeds_and_rates_are_by_case():
    family = Family(depths=(3, 4), width=8, iterations=2, num_seeds=2)
    config = FeedforwardConfig(mnist_fcn=family)
    jobs = EXPERIMENT.cases(config, "", {"mnist-fcn4/dni": 3e-4})
    assert jobs["mnist-fcn3"].seeds == (0, 1)
    rates = {arm.name: arm.options["learning_rate"] for arm in jobs["mnist-fcn4"].arms}
    assert rates == {"no-signal": 1e-3, "backprop": 1e-3, "dni": 3e-4, "cdni": 1e-3}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decay_at": (1.0,)}, "decay_at"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"num_snapshots": 0}, "num_snapshots"),
        ({"seeds": (1000,)}, "tune_seeds"),
    ],
)
def test_values_that_cannot_work(values, message):
    with pytest.raises(ConfigError, match=message):
        FeedforwardConfig(**values)


@pytest.mark.parametrize(
    ("cdni", "deep_dni", "verdicts"),
    [
        (98.0, 95.0, ["reproduced", "reproduced", "reproduced"]),
        (97.0, 97.0, ["not reproduced", "not reproduced", "not reproduced"]),
    ],
)
def test_verdicts_go_either_way(cdni, deep_dni, verdicts):
    arms = {"backprop": 98.0, "cdni": cdni}
    found = find(
        [
            *records("mnist-fcn3", **arms, dni=97.0),
            *records("mnist-fcn6", **arms, dni=deep_dni),
        ]
    )
    assert [claim.verdict for claim in found.claims] == verdicts
    assert len(found.tables[0].rows) == 6
    assert found.pictures[0].data["panels"][1]["rows"][1]["paper"] == 1.6


def test_nothing_is_said_of_no_records():
    assert find([]).all_tables() == []


def test_a_median_curve_is_over_the_runs_that_finished():
    runs = [make_record(10.0, 90.0, 98.0), make_record(10.0, 80.0, 96.0, seed=1)]
    curve = median_curve([*runs, make_record(10.0, None, seed=2, ending="failed")])
    assert curve.iterations == [10, 20]
    assert curve.stage_updates == [40, 80]
    assert curve.errors == [15.0, 3.0]
    assert median_curve([]).errors == []
