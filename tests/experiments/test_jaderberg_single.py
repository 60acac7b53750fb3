import pickle
from dataclasses import replace

import pytest
import torch

from bench.fake_records import make_record
from bench.tiny import tiny_data
from synthgrad.errors import ConfigError
from synthgrad.experiments.jaderberg2017.single import EXPERIMENT, PRESETS, SingleConfig
from synthgrad.experiments.jaderberg2017.single_findings import find

CONFIG = SingleConfig(depths=(4,), width=8, batch_size=12)
DATA = tiny_data()
X, Y = DATA.train.take(torch.arange(12))
NAMES = [
    "backprop",
    *(f"{signal}-{k}" for signal in ("no-signal", "dni", "cdni") for k in (1, 2, 3)),
]


def arms(config=CONFIG, case="mnist-fcn4"):
    return {arm.name: arm for arm in EXPERIMENT.cases(config, "")[case].arms}


def records(seeds=(0, 1, 2), **accuracies):
    return [
        make_record(10.0, last + 0.01 * seed, arm=arm.replace("_", "-"), seed=seed, config=CASE)
        for arm, last in accuracies.items()
        for seed in seeds
    ]


CASE = {"case": "mnist-fcn3"}
AS_PAPER = {
    "backprop": 98.4,
    "no_signal_1": 97.0,
    "no_signal_2": 80.0,
    "dni_1": 98.2,
    "dni_2": 96.6,
    "cdni_1": 98.4,
    "cdni_2": 98.3,
}


def verdicts(**accuracies):
    return [claim.verdict for claim in find(records(**(AS_PAPER | accuracies))).claims]


def test_every_signal_at_every_place():
    assert list(arms()) == NAMES
    assert len(EXPERIMENT.arms) == 1 + 3 * (max(PRESETS["full"].depths) - 1)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_make_jobs(preset):
    config = PRESETS[preset]
    jobs = EXPERIMENT.cases(config, preset)
    assert list(jobs) == [f"mnist-fcn{depth}" for depth in config.depths]
    assert not set(config.seeds) & set(config.tune_seeds)
    for job in jobs.values():
        assert job.seeds == config.seeds[: config.num_seeds]


@pytest.mark.parametrize("name", NAMES)
def test_every_arm_takes_a_step_with_one_interface(name):
    learner = pickle.loads(pickle.dumps(arms()[name])).build(0, DATA)
    assert learner.step(X, Y).isfinite()
    assert learner.num_updated == (1 if name.startswith("no-signal") else 2)
    if learner.decoupled:
        [interface] = learner.decoupled.ordered_interfaces()
        assert interface.name == f"layer{name[-1]}"


def test_all_arms_start_from_the_same_weights():
    reference = arms()["backprop"].build(0, DATA).model.state_dict()
    for arm in arms().values():
        torch.testing.assert_close(arm.build(0, DATA).model.state_dict(), reference, rtol=0, atol=0)


def test_the_paper_s_synthesizer_is_an_option():
    learner = arms(replace(CONFIG, dni_synthesizer="mlp"))["dni-1"].build(0, DATA)
    assert sum(p.numel() for p in learner.decoupled.synthesizer_parameters()) > 1024 * 1024


def test_rates_are_by_case():
    jobs = EXPERIMENT.cases(CONFIG, "", {"mnist-fcn4/dni-2": 3e-4})
    rates = {arm.name: arm.options["learning_rate"] for arm in jobs["mnist-fcn4"].arms}
    assert rates.pop("dni-2") == 3e-4
    assert set(rates.values()) == {1e-3}


@pytest.mark.parametrize("depths", [(), (1,)])
def test_depths_that_cannot_work(depths):
    with pytest.raises(ConfigError, match="depths"):
        SingleConfig(depths=depths)


def test_verdicts_where_all_is_as_in_the_paper():
    assert verdicts() == ["reproduced"] * 3


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ({"dni_2": 98.21}, ["not reproduced", "reproduced", "not comparable"]),
        ({"no_signal_1": 98.3}, ["reproduced", "not reproduced", "reproduced"]),
        ({"cdni_2": 97.0}, ["reproduced", "reproduced", "not reproduced"]),
    ],
)
def test_verdicts_go_the_other_way(accuracies, expected):
    assert verdicts(**accuracies) == expected


def test_no_number_of_the_paper_is_named():
    told = [claim.paper for claim in find(records(**AS_PAPER)).claims]
    assert all("not known to us" in text for text in told)
    assert not any(character.isdigit() for text in told for character in text)


def test_few_seeds_make_no_verdict():
    found = find(records(seeds=(0, 1), **AS_PAPER))
    assert {claim.verdict for claim in found.claims} == {"not comparable"}
    assert {claim.reason for claim in found.claims} == {"Fewer than 3 seeds."}


def test_seeds_that_have_no_partner_make_no_verdict():
    found = find(
        records(seeds=(0, 1, 2), backprop=98.4, no_signal_1=80.0, no_signal_2=80.0)
        + records(seeds=(1, 2, 3), dni_1=98.2, dni_2=96.6)
    )
    assert [claim.reason for claim in found.claims] == ["Fewer than 3 seeds."] * 2
    assert all(claim.measured.endswith("n = 2") for claim in found.claims)


def test_a_place_at_which_a_seed_diverged_is_not_as_in_the_paper():
    made = records(**AS_PAPER)
    failed = [
        replace(r, events=(*r.events[:-1], {**r.events[-1], "event": "failed"}))
        if (r.arm, r.seed) == ("dni-1", 1)
        else r
        for r in made
    ]
    rises, needs, _ = find(failed).claims
    assert (rises.verdict, needs.verdict) == ("not reproduced", "not reproduced")
    assert "failed" in needs.measured


def test_tables_and_picture():
    found = find(records(**AS_PAPER))
    table, gaps = found.tables
    assert [row[0] for row in table.rows] == ["mnist-fcn3, layer 1", "mnist-fcn3, layer 2"]
    assert table.rows[1][1:] == (
        "1.59 [1.58, 1.60]",
        "19.99 [19.98, 20.00]",
        "3.39 [3.38, 3.40]",
        "1.69 [1.68, 1.70]",
    )
    assert len(gaps.rows) == 6
    over_backprop = {row[0]: row[1] for row in gaps.rows}
    assert over_backprop["mnist-fcn3, no-signal-1"] == "-1.40 [-1.40, -1.40]"
    [panel] = found.pictures[0].data["panels"]
    assert panel["marks"] == (pytest.approx(1.59),)
    assert [line["x"] for line in panel["lines"]] == [[1, 2]] * 3
    assert panel["lines"][1]["y"] == pytest.approx([1.79, 3.39])


def test_the_cosine_is_that_of_the_last_measurement():
    def with_alignment(record, *cosines):
        events = [
            {"event": "alignment", "iteration": k, "interfaces": {"layer1": {"cosine": c}}}
            for k, c in enumerate(cosines)
        ]
        return replace(record, events=(*events, *record.events))

    [backprop], [dni, other] = (
        records(seeds=(0,), backprop=98.0),
        records(seeds=(0, 1), dni_1=97.0),
    )
    found = find([backprop, with_alignment(dni, 0.1, 0.8), with_alignment(other, 0.2, 0.6)])
    assert found.tables[1].rows[0][2] == "0.70"
    assert found.claims == ()  # one place is no comparison of places
    unknown = find([backprop, with_alignment(dni, 0.1, None), with_alignment(other, 0.2, 0.6)])
    assert unknown.tables[1].rows[0][2] == "0.60"  # of no gradient there is no angle


def test_nothing_is_said_of_no_records():
    assert find([]).all_tables() == []
