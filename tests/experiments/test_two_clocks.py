"""The two-clock task on tiny data: its arms against each other, and its verdicts."""

from pathlib import Path

import pytest
import torch
from tiny_data import tiny_dataset

from synthgrad.bench.records.events import RunRecord
from synthgrad.errors import ConfigError
from synthgrad.experiments.jaderberg2017 import two_clocks
from synthgrad.experiments.jaderberg2017.two_clocks import (
    EXPERIMENT,
    PRESETS,
    TwoClocksConfig,
    errors,
    make_networks,
    make_stream,
    make_tasks,
    measure,
    window,
)
from synthgrad.experiments.jaderberg2017.two_clocks_findings import find

DATA = tiny_dataset(num_classes=5)
CONFIG = TwoClocksConfig(
    period=2,
    units=6,
    message_size=4,
    synthesizer_hidden=5,
    batch_size=8,
    num_steps=16,
    num_looks=2,
    validation_windows=1,
    test_windows=1,
)
ARMS = EXPERIMENT.arms


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(two_clocks, "load_once", lambda *_: DATA)


def networks_of(arm):
    torch.manual_seed(0)
    return make_networks(CONFIG, arm, DATA)


def common(networks):
    """Parameters that every arm has."""
    return {k: p for k, p in networks.named_parameters() if "synthesizer" not in k}


def test_the_arms_begin_with_the_same_weights():
    first, *others = (dict(common(networks_of(arm))) for arm in ARMS)
    for other in others:
        assert other.keys() == first.keys()
        assert all(torch.equal(other[k], first[k]) for k in first)


def one_window(arm):
    """Return the gradients of one window of B, and the answers' losses."""
    networks = networks_of(arm)
    stream, carry, losses = make_stream(CONFIG, DATA.train, 8, 0), None, []
    for _ in range(4 // networks.num_steps):
        digits = window(stream, networks.num_steps, 2)
        answers, carry = networks(digits, carry)
        losses += [answer.loss for answer in answers.values()]
    sum(losses).backward()
    return common(networks), sum(losses).item()


def test_a_fresh_synthesizer_is_no_gradient_and_the_losses_are_those_of_the_coupled():
    found = {arm: one_window(arm) for arm in ARMS}
    # Summed in another order.
    assert [loss for _, loss in found.values()] == pytest.approx([found["dni"][1]] * 4, rel=1e-6)
    for arm in ("dni", "cdni"):
        for key, p in found["no-gradient"][0].items():
            if p.grad is not None:  # of A's message there is none
                assert torch.equal(found[arm][0][key].grad, p.grad)
    coupled = found["coupled"][0]["clocks.channels.0.message.weight"].grad
    assert coupled.norm() > 0
    # B learns from the same messages, however their gradient goes on.
    key = "clocks.networks.1.core.weight_ih_l0"
    torch.testing.assert_close(found["coupled"][0][key].grad, found["dni"][0][key].grad)


def test_what_is_told_adds_up_to_what_is_asked():
    stream = make_stream(CONFIG, DATA.train, 8, 0)
    for _ in range(5):
        digits = window(stream, 4, 2)
        assert digits.threes_told.shape == digits.num_odd.shape == (2, 8)
        assert torch.equal(digits.threes_told.sum(0, keepdim=True), digits.num_threes)
    assert window(stream, 2, 2).num_threes is None


@pytest.mark.parametrize("arm", ARMS)
def test_a_run_says_the_same_twice(arm):
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        runs.append(list(measure(CONFIG, arm, 0)))
    assert runs[0] == runs[1]
    assert [event["event"] for event in runs[0]] == ["look", "look", "test"]
    assert [event["steps"] for event in runs[0][:2]] == [8, 16]
    assert all(0 <= event[f"error_{n}_percent"] <= 100 for event in runs[0] for n in "ab")


def test_errors_are_shares_of_wrong_counts_and_change_nothing():
    networks = networks_of("dni")
    before = {k: v.clone() for k, v in networks.state_dict().items()}
    with torch.no_grad():
        for head in networks.heads:
            head.weight.zero_()
            head.bias.copy_(torch.arange(len(head.bias)) == 0)
    seen = errors(CONFIG, networks, DATA.test, 3, "test")
    expected = {"a": [], "b": []}
    stream = make_stream(CONFIG, DATA.test, 200, two_clocks.derive_seed(0, "test"))
    window(stream, 4, 2)
    for _ in range(3):
        digits = window(stream, 4, 2)
        expected["a"].append(digits.num_odd != 0)
        expected["b"].append(digits.num_threes != 0)
    for name, wrong in expected.items():
        share = 100 * torch.cat(wrong).float().mean().item()
        assert seen[f"error_{name}_percent"] == share
    assert networks.training
    unchanged = [k for k in before if "heads" not in k and "extra" not in k]
    assert all(torch.equal(before[k], networks.state_dict()[k]) for k in unchanged)


@pytest.mark.parametrize(
    "options",
    [
        {"period": 0},
        {"units": 0},
        {"num_looks": 0},
        {"num_steps": 100},
        {"num_steps": 0},
        {"learning_rate": 0.0},
        {"test_windows": 0},
    ],
)
def test_what_cannot_work_is_refused(options):
    with pytest.raises(ConfigError):
        TwoClocksConfig(**options)


def test_tasks_and_presets():
    assert [task.name for task in make_tasks(PRESETS["smoke"])] == [f"{arm}-s0" for arm in ARMS]
    assert len(PRESETS["full"].seeds) == 3
    assert PRESETS["paper"].units == PRESETS["paper"].message_size == 256
    assert PRESETS["paper"].learning_rate == 1e-5
    assert PRESETS["paper"].scale == 10


def record(arm, seed, looks, test):
    events = [
        *(
            {"event": "look", "steps": k, "loss": 0.0, "error_a_percent": a, "error_b_percent": b}
            for k, (a, b) in enumerate(looks)
        ),
        {"event": "test", "error_a_percent": test[0], "error_b_percent": test[1]},
        {"event": "finished"},
    ]
    run = {"kind": "study", "arm": arm, "label": arm, "seed": seed, "config": {"period": 3}}
    name = f"runs/{arm}-s{seed}"
    return RunRecord(folder=Path(name), name=name, run=run, events=tuple(events))


def records(dni=(5.0, 12.0), dni_looks=((5.0, 20.0),), num_seeds=3):
    return [
        record(arm, seed, looks, test)
        for seed in range(num_seeds)
        for arm, looks, test in (
            ("coupled", [(10.0, 40.0)], (5.0, 10.0)),
            ("dni", dni_looks, dni),
            ("cdni", dni_looks, dni),
            ("no-gradient", [(10.0, 60.0)], (5.0, 60.0)),
        )
    ]


def verdicts(found):
    return [claim.verdict for claim in found.claims if "told" not in claim.claim]


def test_verdicts_are_of_every_seed():
    good, bad = "reproduced", "not reproduced"
    assert verdicts(find(records())) == [good, good, good]
    assert verdicts(find(records(dni=(5.0, 14.0)))) == [bad, good, good]
    assert verdicts(find(records(dni=(9.0, 12.0)))) == [bad, good, good]
    assert verdicts(find(records(dni_looks=[(11.0, 20.0)]))) == [good, bad, good]
    assert verdicts(find(records(dni=(5.0, 55.0)))) == [bad, good, bad]
    assert verdicts(find(records(num_seeds=2))) == ["not comparable"] * 3
    one_is_bad = [*records(num_seeds=2), record("coupled", 2, [(1.0, 1.0)], (1.0, 1.0))]
    one_is_bad += [record("dni", 2, [(5.0, 50.0)], (5.0, 59.0))]
    one_is_bad += [record("no-gradient", 2, [(5.0, 60.0)], (5.0, 60.0))]
    assert verdicts(find(one_is_bad)) == [bad] * 3


def test_what_is_missing_is_no_error():
    for number in (0, 1, 2):
        found = find(records()[:number])
        assert set(verdicts(found)) == {"not comparable"}
        assert len(found.tables[0].rows) == number


def test_the_table_and_the_curves_show_every_arm():
    found = find(records())
    rows = {row[0]: row for row in found.tables[0].rows}
    assert rows["coupled"][1:] == (
        "9 steps",
        "5.0 (5.0 to 5.0)",
        "10.0 (10.0 to 10.0)",
        "10.0 (10.0 to 10.0)",
        "40.0 (40.0 to 40.0)",
    )
    assert rows["synthetic gradient"][1] == "3 steps"
    panels = found.pictures[0].data["panels"]
    assert [len(panel["lines"]) for panel in panels] == [4, 4]


@pytest.mark.parametrize(("arm", "number"), [("coupled", 0), ("no-gradient", 0), ("dni", 5)])
def test_the_synthesizers_parameters_are_told_apart(arm, number):
    networks = networks_of(arm)
    synthesizers = networks.synthesizer_parameters()
    # Two layers, a batch norm between them, one bias.
    assert len(synthesizers) == number
    together = {id(p) for p in (*networks.own_parameters(), *synthesizers)}
    assert together == {id(p) for p in networks.parameters()}
    assert len(together) == len(networks.own_parameters()) + number
