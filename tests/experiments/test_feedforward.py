"""The feed-forward table of Jaderberg et al.: its jobs, its arms, and what its verdicts rest on."""

import pickle
from dataclasses import replace

import pytest
import torch
from fake_arms import summary
from test_bisong2017 import dataset

from synthgrad.errors import ConfigError
from synthgrad.experiments.accuracy import gap_interval
from synthgrad.experiments.jaderberg2017 import feedforward
from synthgrad.experiments.jaderberg2017.feedforward import PRESETS, Family, FeedforwardConfig
from synthgrad.experiments.jaderberg2017.feedforward_findings import _claims
from synthgrad.experiments.jaderberg2017.numbers import recalled_error

EXPERIMENT = feedforward.EXPERIMENT
SMALL = Family(depths=(3,), width=4, iterations=2, num_seeds=1)
CONFIG = FeedforwardConfig(
    mnist_fcn=SMALL,
    mnist_cnn=SMALL,
    cifar10_fcn=replace(SMALL, depths=()),
    cifar10_cnn=SMALL,
    cifar10_resnet=replace(SMALL, depths=(1,)),
    batch_size=8,
)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_make_jobs(preset):
    jobs = EXPERIMENT.cases(PRESETS[preset], preset)
    assert jobs
    for case, job in jobs.items():
        assert job.config["case"] == case
        assert [arm.name for arm in job.arms] == list(EXPERIMENT.arms)
        assert (recalled_error(case, "cdni") is None) == ("resnet" in case)


def test_the_papers_preset_is_the_papers_recipe():
    job = EXPERIMENT.cases(PRESETS["paper"], "paper")["mnist-fcn4"]
    assert job.plan.iterations == 500_000
    assert job.plan.decay_at == (300_000, 400_000)
    assert job.arms[0].options["learning_rate"] == 3e-5


@pytest.mark.parametrize("case", ["mnist-fcn3", "mnist-cnn3", "cifar10-resnet1"])
def test_every_arm_takes_a_step_from_the_same_weights(case):
    data = dataset((3, 32, 32) if case.startswith("cifar10") else (1, 28, 28))
    inputs, labels = data.train.take(torch.arange(8))
    first = None
    for arm in EXPERIMENT.cases(CONFIG, "")[case].arms:
        learner = pickle.loads(pickle.dumps(arm)).build(0, data)
        weights = learner.model.state_dict()
        first = first or {key: value.clone() for key, value in weights.items()}
        torch.testing.assert_close(dict(weights), first, rtol=0, atol=0)
        assert learner.num_stages == (5 if "resnet" in case else 3)
        assert learner.step(inputs, labels).isfinite()


def test_a_tuned_rate_is_that_of_its_case():
    jobs = EXPERIMENT.cases(CONFIG, "", {"mnist-fcn3/cdni": 0.5})
    rates = {arm.name: arm.options["learning_rate"] for arm in jobs["mnist-fcn3"].arms}
    assert rates == {"no-signal": 1e-3, "backprop": 1e-3, "dni": 1e-3, "cdni": 0.5}
    assert jobs["mnist-cnn3"].arms[-1].options["learning_rate"] == 1e-3


def test_wrong_values_are_refused():
    families = ("mnist_fcn", "mnist_cnn", "cifar10_fcn", "cifar10_cnn", "cifar10_resnet")
    none = FeedforwardConfig(**dict.fromkeys(families, replace(SMALL, depths=())))
    with pytest.raises(ConfigError, match="no network"):
        EXPERIMENT.cases(none, "")
    with pytest.raises(ConfigError, match="num_seeds"):
        EXPERIMENT.cases(replace(CONFIG, mnist_fcn=replace(SMALL, num_seeds=0)), "")
    with pytest.raises(ConfigError, match="decay_at"):
        replace(CONFIG, decay_at=(1.5,))
    with pytest.raises(ConfigError, match="tune"):
        replace(CONFIG, tune_seeds=(0,))


def arms(**accuracies):
    return {name: summary(name, points) for name, points in accuracies.items()}


def verdicts(cases, depths=None):
    depths = depths or {case: int(case[-1]) for case in cases}
    return {claim.claim: claim.verdict for claim in _claims(cases, depths)}


def test_a_gap_is_taken_within_seeds():
    made = arms(backprop=(98.0, 97.0, 99.0), cdni=(97.5, 97.0, 98.0))
    assert gap_interval(made["cdni"], made["backprop"]) == (-0.5, -1.0, 0.0, 3)


@pytest.mark.parametrize(
    ("cdni", "iterations", "verdict"),
    [
        ((97.9, 98.0, 98.1), 100, "reproduced"),
        ((90.0, 91.0, 92.0), 100, "not comparable"),  # the paper trained longer
        ((90.0, 91.0, 92.0), 500_000, "not reproduced"),
        ((99.0, 99.1, 99.2), 100, "not reproduced"),  # a gap, and of the other sign
        ((97.9, 98.0, None), 100, "not reproduced"),  # it failed, and not for want of iterations
        ((97.9, 98.0), 100, "not comparable"),
    ],
)
def test_the_verdict_on_closeness(cdni, iterations, verdict):
    made = arms(backprop=(98.0,) * len(cdni), cdni=cdni)
    made = {name: replace(arm, iterations=iterations) for name, arm in made.items()}
    assert verdicts({"mnist-fcn4": made})["cDNI against backprop on mnist-fcn4"] == verdict


def test_what_is_better_than_the_paper_is_said_to_be():
    for cdni, is_better in (((99.0, 99.1, 99.2), True), ((99.0, 99.1, 98.0), False)):
        (claim, *_) = _claims({"mnist-fcn4": arms(backprop=(98.0,) * 3, cdni=cdni)}, {})
        assert claim.reason.startswith("Better: in every seed") is is_better


@pytest.mark.parametrize(
    ("backprop", "cdni", "verdict"),
    [
        (56.5, 51.5, "reproduced"),  # the paper's own numbers
        (52.0, 27.0, "not reproduced"),  # the gap has the paper's sign, and five times its size
        (45.0, 40.0, "not comparable"),  # the paper's gap, of another backprop
        (10.0, 10.0, "not comparable"),  # both at chance
    ],
)
def test_a_gap_is_compared_with_the_papers_and_not_its_side(backprop, cdni, verdict):
    made = arms(backprop=(backprop,) * 3, cdni=(cdni,) * 3)
    made = {name: replace(arm, iterations=500_000) for name, arm in made.items()}
    assert verdicts({"cifar10-fcn3": made})["cDNI against backprop on cifar10-fcn3"] == verdict


@pytest.mark.parametrize(
    ("deep", "verdict"),
    [
        ((90.0, 91.0, 92.0), "reproduced"),
        ((97.0, 98.0, 97.5), "not reproduced"),
        ((90.0, 91.0), "not comparable"),
    ],
)
def test_the_verdict_on_fading_with_depth(deep, verdict):
    cases = {
        "mnist-fcn3": arms(backprop=(98.0,) * 3, dni=(97.0, 97.5, 97.2)),
        "mnist-fcn6": arms(backprop=(98.0,) * 3, dni=deep),
    }
    name = "DNI without labels and depth, mnist-fcn3 to mnist-fcn6"
    assert verdicts(cases)[name] == verdict


def test_depths_are_numbers_and_what_is_not_recalled_is_not_judged():
    one = arms(backprop=(98.0,) * 3, dni=(97.0,) * 3)
    depths = {"mnist-fcn3": 3, "mnist-fcn10": 10, "mnist-fcn4": 4}
    known = {case: one for case in depths if case != "mnist-fcn10"}
    assert list(verdicts(known, depths)) == [
        "DNI without labels and depth, mnist-fcn3 to mnist-fcn4"
    ]
    assert verdicts(dict.fromkeys(depths, one), depths) == {}  # the paper has no 10 layers


def test_fading_says_n_and_nothing_where_backprop_is_not_the_papers():
    cases = {f"mnist-fcn{k}": arms(backprop=(90.0,) * 3, dni=(80.0,) * 3) for k in (3, 6)}
    [claim] = _claims(cases, {"mnist-fcn3": 3, "mnist-fcn6": 6})
    assert claim.verdict == "not comparable"
    assert claim.measured.endswith("n = 3")


def test_the_papers_synthesizers():
    jobs = EXPERIMENT.cases(PRESETS["paper"], "paper")
    signals = {
        case: next(a.options["signal"] for a in job.arms if a.name == "dni")
        for case, job in jobs.items()
    }
    assert "hidden=(4000,)" in signals["cifar10-fcn3"]
    assert "hidden" not in signals["mnist-fcn3"]
