import pickle

import pytest
import torch

from bench.fake_records import make_record
from bench.tiny import tiny_data
from synthgrad.experiments.jaderberg2017.unlock import EXPERIMENT, LABELS, PRESETS, UnlockConfig
from synthgrad.experiments.jaderberg2017.unlock_findings import find

CONFIG = UnlockConfig(width=8, batch_size=12)
CASE = "mnist-fcn4"
DATA = tiny_data()
X, Y = DATA.train.take(torch.arange(12))
WITH_INPUTS = [name for name in LABELS if name.endswith("-inputs")]
WITHOUT = [name for name in LABELS if not name.endswith("-inputs")]


def build(name, config=CONFIG):
    job = EXPERIMENT.cases(config, "")[CASE]
    arm = next(arm for arm in job.arms if arm.name == name)
    return pickle.loads(pickle.dumps(arm)).build(0, DATA)


def records(seeds=(0, 1, 2), **arms):
    """Make runs whose accuracies are those given, from the second snapshot on."""
    return [
        make_record(10.0, *accuracies, arm=arm, seed=seed, config={"case": CASE})
        for arm, accuracies in arms.items()
        for seed in seeds
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_make_jobs(preset):
    config = PRESETS[preset]
    [(case, job)] = EXPERIMENT.cases(config, preset).items()
    assert case == f"mnist-fcn{config.depth}"
    assert [arm.name for arm in job.arms] == list(LABELS)
    assert not set(config.seeds) & set(config.tune_seeds)
    assert config.depth >= 3  # three stages or more


@pytest.mark.parametrize("name", [*WITHOUT, *(pytest.param(name) for name in WITH_INPUTS)])
def test_every_arm_takes_a_step(name):
    learner = build(name)
    losses = torch.stack([learner.step(X, Y) for _ in range(3)])
    assert losses.isfinite().all()
    assert learner.num_updated == (1 if name == "no-signal" else 4)


@pytest.mark.parametrize("name", WITH_INPUTS)
def test_the_unlocked_arms_predict_every_input_and_train_what_predicts(name):
    learner = build(name)
    assert list(learner.decoupled.synthetic_inputs) == ["layer1", "layer2", "layer3"]
    modules = [m for found in learner.decoupled.synthetic_inputs.values() for m in found]
    before = [[p.clone() for p in m.parameters()] for m in modules]
    learner.step(X, Y)
    for module, old in zip(modules, before, strict=True):
        changed = [not torch.equal(p, q) for p, q in zip(module.parameters(), old, strict=True)]
        assert any(changed)


def test_synthesizers_have_one_hidden_layer_as_in_the_paper():
    # Linear without bias, batch norm, and the last layer, for each of three interfaces.
    dni = 3 * (8 * 8 + 2 * 8 + 8 * 8 + 8)
    cdni = dni + 3 * DATA.num_classes * 8
    for name, expected in (("dni", dni), ("cdni", cdni)):
        parameters = build(name).decoupled.synthesizer_parameters()
        assert sum(p.numel() for p in parameters) == expected


@pytest.mark.parametrize(
    ("unlocked", "cdni", "verdicts"),
    [
        ((95.0, 96.0, 98.0), (97.5, 98.0, 98.4), ["reproduced", "reproduced"]),
        ((97.5, 97.8, 98.0), (95.0, 96.0, 98.4), ["reproduced", "not reproduced"]),
        ((90.0, 96.0), (97.5, 98.4), ["not comparable", "reproduced"]),
        ((90.0, 96.0), (90.0, 96.0), ["not comparable", "not comparable"]),
        # A tie, and one snapshot later: runs are not looked at often enough to tell.
        ((97.5, 98.0), (97.5, 98.4), ["reproduced", "not comparable"]),
        ((96.0, 98.0), (97.5, 98.4), ["reproduced", "not comparable"]),
    ],
)
def test_verdicts_go_either_way(unlocked, cdni, verdicts):
    found = find(records(**{"cdni": cdni, "cdni-inputs": unlocked}))
    assert [claim.verdict for claim in found.claims] == verdicts


def test_pace_is_judged_seed_by_seed():
    slow, fast = (90.0, 95.0, 96.0, 98.0), (97.5, 97.8, 98.0, 98.4)
    ours = {0: slow, 1: slow, 2: fast}  # slower in the median, and level with one seed
    given = records(cdni=fast)
    for seed, accuracies in ours.items():
        given += records((seed,), **{"cdni-inputs": accuracies})
    assert find(given).claims[1].verdict == "not comparable"
    ours_only = [r for r in given if r.arm == "cdni" or r.seed < 2]
    assert find(ours_only).claims[1].reason == "Fewer than 3 seeds."


def test_few_seeds_make_no_verdict():
    given = {"cdni": (97.5, 98.4), "cdni-inputs": (96.0, 98.0)}
    found = find(records(seeds=(0, 1), **given))
    assert [claim.reason for claim in found.claims] == ["Fewer than 3 seeds."] * 2
    assert {claim.verdict for claim in found.claims} == {"not comparable"}


def test_tables_and_pictures():
    given = {"backprop": (97.0, 98.5), "cdni": (96.0, 98.4), "cdni-inputs": (90.0, 98.0)}
    found = find(records(**given))
    rows = {row[0]: row for row in found.tables[0].rows}
    row = rows["mnist-fcn4, cdni-inputs"]
    assert row[3:6] == ("2.00 [2.00, 2.00]", "-0.50 [-0.50, -0.50]", "200")
    [dots], [panel] = (picture.data["panels"] for picture in found.pictures)
    papers = {row["label"]: row["paper"] for row in dots["rows"]}
    assert papers == {"backprop": None, "cdni": None, "cdni-inputs": 2.0}
    curves = {line["label"]: line["y"] for line in panel["lines"]}
    assert curves["cdni-inputs"] == pytest.approx([10.0, 2.0])


def test_nothing_is_said_of_no_records():
    assert find([]).all_tables() == []
