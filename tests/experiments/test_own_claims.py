"""Verdicts of the experiments that train many signals: each can go either way, or say nothing."""

import pytest
from fake_arms import summary

from bench.fake_records import make_record
from synthgrad.experiments import EXPERIMENTS, long_chains, rivals
from synthgrad.experiments.czarnecki2017 import signals
from synthgrad.experiments.unlabeled import options


def arms(num_seeds=3, iterations=2_000, **accuracies):
    return {
        name.replace("_", "-"): summary(name, (value,) * num_seeds, iterations=iterations)
        for name, value in accuracies.items()
    }


LOGS = {"backprop": 85.7, "dgl": 85.6, "cdni": 84.2, "dni": 65.2}


@pytest.mark.parametrize(
    ("case", "changed", "verdict"),
    [
        ("cifar10-cnn4", {}, "reproduced"),
        ("cifar10-cnn4", {"dgl": 90.0}, "reproduced"),  # level with backprop in the logs
        ("cifar10-cnn4", {"dni": 84.5}, "not reproduced"),
        ("cifar10-cnn4", {"dni": 84.5, "iterations": 250}, "not comparable"),
        ("cifar10-cnn4", {"num_seeds": 2}, "not comparable"),
        ("mnist-fcn4", {}, "not comparable"),
    ],
)
def test_rivals(case, changed, verdict):
    assert rivals._order(case, arms(**(LOGS | changed))).verdict == verdict


def test_rivals_without_one_of_them_say_nothing():
    assert rivals._order("cifar10-cnn4", arms(backprop=90.0, cdni=80.0)) is None


@pytest.mark.parametrize(
    ("changed", "verdicts"),
    [
        ({}, ["reproduced", "reproduced", "reproduced"]),
        ({"cdni": 97.5}, ["not reproduced", "reproduced", "not reproduced"]),
        ({"stages_of_4": 50.0}, ["reproduced", "not reproduced", "reproduced"]),
        ({"backprop": 40.0}, ["not comparable"] * 3),
        ({"num_seeds": 2}, ["not comparable"] * 3),
    ],
)
def test_long_chains(changed, verdicts):
    given = {"backprop": 97.9, "cdni": 60.0, "stages_of_4": 98.3, "local": 97.0} | changed
    claims = long_chains._claims("mnist-fcn16", arms(**given))
    assert [claim.verdict for claim in claims] == verdicts


@pytest.mark.parametrize(
    ("backprop", "dni", "num_seeds", "verdict"),
    [
        (98.0, 97.0, 3, "reproduced"),
        (98.0, 98.1, 3, "not reproduced"),
        (90.0, 80.0, 3, "not comparable"),
        (98.0, 97.0, 2, "not comparable"),
    ],
)
def test_unlabeled_options(backprop, dni, num_seeds, verdict):
    given = arms(num_seeds, backprop=backprop, dni=dni)
    assert options._behind("mnist-fcn4", given).verdict == verdict
    assert options._behind("fashion-mnist-fcn4", given) is None  # nothing is recalled of it


def test_signals():
    given = dict.fromkeys(signals._IN_THE_TABLE, 95.0) | {"no_signal": 90.0}
    assert signals._all_train("mnist-fcn4", arms(**given)).verdict == "reproduced"
    worse = signals._all_train("mnist-fcn4", arms(**given | {"kickback": 90.0}))
    assert worse.verdict == "not reproduced"
    assert "kickback" in worse.reason
    del given["fa"]
    assert signals._all_train("mnist-fcn4", arms(**given)).verdict == "not comparable"
    assert signals._all_train("mnist-fcn4", arms(fa=95.0)) is None


def with_rate(arm, *, tuned=None):
    record = make_record(10.0, 98.0, arm=arm, config={"case": "a", "learning_rate": 3e-3})
    if tuned is not None:
        record.run["tuned"] = tuned
    return record


def test_rates_are_called_tuned_only_where_the_records_say_so():
    table = rivals._rates_table([with_rate("cdni", tuned=True), with_rate("dni", tuned=False)])
    assert table.rows == (("cdni", "0.003 *"), ("dni", "0.003"))
    assert table.notes[0].startswith("* tuned")
    table = rivals._rates_table([with_rate("cdni")])  # before it was recorded
    assert table.rows == (("cdni", "0.003"),)
    assert table.notes[0].startswith("No rate was tuned")


def test_an_arm_is_tuned_where_it_has_a_rate_of_its_own():
    for name, rate_of, tuned in (
        ("rivals", "mnist-fcn3/dni", "dni"),
        ("bisong2017", "backprop", "backprop"),
    ):
        experiment = EXPERIMENTS[name]
        [job] = experiment.cases(experiment.presets["smoke"], "smoke", {rate_of: 3e-3}).values()
        assert [arm.name for arm in job.arms if arm.tuned] == [tuned]
