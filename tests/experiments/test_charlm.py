"""Character models: the loop on a tiny text, equal data for every arm, and verdicts."""

import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

import synthgrad as sg
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.records.reading import read_records
from synthgrad.bench.scoring.formats import MISSING
from synthgrad.data import CharText
from synthgrad.errors import ConfigError, DataNotFoundError, DivergedError
from synthgrad.experiments.accuracy import MIN_SEEDS
from synthgrad.experiments.contract import RunOptions
from synthgrad.experiments.jaderberg2017.charlm import (
    EXPERIMENT,
    PRESETS,
    CharlmConfig,
    data_name,
    measure,
    method,
    texts,
)
from synthgrad.experiments.jaderberg2017.charlm_findings import ARMS, find
from synthgrad.experiments.jaderberg2017.charlm_training import CharModel, Method, Training

WORDS = "to be or not to be, that is the question: whether 'tis nobler in the mind to suffer\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(WORDS * 20)
    return CharlmConfig(
        text=path, units=6, batch_size=2, num_characters=640, num_looks=3, num_judged=60
    )


class TestTraining:
    def test_every_arm_reads_the_same_characters(self, config):
        for name, arm in ARMS.items():
            looks = list(measure(config, name, 0))
            assert [look["characters"] for look in looks] == [213, 426, 640]
            for look in looks:
                read = look["updates"] * arm.horizon * config.batch_size
                assert 0 <= look["characters"] - read < arm.horizon * config.batch_size
            json.dumps(looks, allow_nan=False)

    def test_a_text_is_read_again_from_its_beginning(self, config):
        long = replace(config, num_characters=6_000, learning_rate=1e-2)
        *_, last = measure(long, "cdni-8", 0)
        assert last["validation_bits"] < 3.5, "20 characters alike would take 4.3"

    def test_a_seed_gives_the_same_numbers_and_another_does_not(self, config):
        one, again, other = (list(measure(config, "dni-aux-8", seed)) for seed in (0, 0, 1))
        assert one == again
        assert one != other

    def test_arms_begin_with_the_same_weights(self, config):
        size = len(texts(config.text, None, 0.1).train.vocabulary)
        made = []
        for name in ARMS:
            torch.manual_seed(0)
            model = CharModel(method(config, name, size), size, 6)
            made.append((model.rnn.core.state_dict(), model.head.state_dict()))
        for weights in made[1:]:
            torch.testing.assert_close(weights, made[0], rtol=0, atol=0)

    def test_only_the_told_synthesizer_sees_what_comes_next(self, config):
        size = len(texts(config.text, None, 0.1).train.vocabulary)
        for name in ARMS:
            how = method(config, name, size)
            assert how.num_ahead == (4 if name == "cdni-8" else 0)
            assert (how.signal.conditioned_on is None) == (name != "cdni-8")

    def test_what_it_is_told(self):
        model = CharModel(Method(horizon=3, signal=sg.NoSignal()), 5, 2)
        upcoming = torch.tensor([[0, 1], [2, 3], [4, 0]])
        told = model.ahead(upcoming, 2)
        assert told.reshape(2, 2, 5).argmax(2).tolist() == [[0, 2], [1, 3]]
        assert model.ahead(upcoming, 0) is None

    def test_bits_are_those_of_one_pass_over_the_text(self):
        torch.manual_seed(0)
        text = CharText.of(WORDS)
        model = CharModel(Method(horizon=3, signal=sg.NoSignal()), len(text.vocabulary), 5)
        tokens = text.tokens[:81].view(1, -1)
        rows = tokens[0, :80].view(20, 4).t()
        targets = tokens[0, 1:].view(20, 4).t()
        logits = model.head(model.rnn.core(model.inputs(rows))[0])
        by_hand = F.cross_entropy(logits.flatten(0, 1), targets.flatten()) / math.log(2)
        assert model.bits(text, 80) == pytest.approx(by_hand.item(), rel=1e-6)  # float32
        assert model.bits(text, 3) > 0, "fewer characters than streams"

    def test_rates_go_down_to_zero(self, config):
        def rates(decay_from):
            (task, *_) = EXPERIMENT.tasks(replace(config, decay_from=decay_from, seeds=(0,)))
            return [look["validation_bits"] for look in task.measure()]

        assert rates(1.0) != rates(0.5)
        training = Training(
            units=1,
            batch_size=1,
            num_characters=1,
            num_looks=1,
            num_judged=1,
            learning_rate=1,
            synthesizer_rate=1,
            decay_from=0.5,
            device="cpu",
        )
        assert [training.rate(share) for share in (0, 0.5, 0.75, 1)] == [1, 1, 0.5, 0]
        assert replace(training, decay_from=1.0).rate(1) == 1

    def test_what_diverges_says_so(self, config):
        with pytest.raises(DivergedError, match="updates"):
            list(measure(replace(config, learning_rate=math.inf), "bptt-8", 0))


class TestConfig:
    def test_tasks(self, config):
        tasks = EXPERIMENT.tasks(config)
        assert {task.arm for task in tasks} == set(EXPERIMENT.arms) == set(ARMS)
        assert len(tasks) == len(ARMS) * len(config.seeds)
        assert {task.options["data"] for task in tasks} == {"mine.txt"}, "a name, and no folder"

    def test_presets(self):
        assert set(PRESETS) == {"smoke", "quick", "full", "paper"}
        for preset in PRESETS.values():
            assert data_name(preset) == "tinyshakespeare"
        assert len(PRESETS["full"].seeds) >= MIN_SEEDS

    def test_penn_treebank_brings_its_own_validation_text(self, config, tmp_path):
        for part, words in (("train", "a b c"), ("valid", "c a"), ("test", "b")):
            (tmp_path / f"ptb.{part}.txt").write_text(f"{words}\n" * 30)
        bank = texts(None, tmp_path, 0.1)
        assert bank.validation.decode(bank.validation.tokens[:4]) == "c a\n"
        assert bank.train.decode(bank.train.tokens[:6]) == "a b c\n"
        of_bank = replace(config, text=None, ptb=tmp_path, num_characters=160, num_looks=2)
        assert data_name(of_bank) == "Penn Treebank"

    def test_no_such_text(self, config, tmp_path):
        with pytest.raises(DataNotFoundError, match=r"none\.txt"):
            list(measure(replace(config, text=tmp_path / "none.txt"), "bptt-8", 0))

    @pytest.mark.parametrize(
        "values",
        [
            {"ptb": Path("somewhere")},
            {"held_out": 1.0},
            {"decay_from": 1.5},
            {"units": 0},
            {"num_looks": 0},
            {"num_characters": 100},
            {"num_ahead": 9},
            {"learning_rate": 0.0},
            {"synthesizer_rate": -1.0},
        ],
    )
    def test_refused(self, config, values):
        with pytest.raises(ConfigError, match=next(iter(values))):
            replace(config, **values)


def record(arm, bits, seed=0, ending="finished"):
    """A run whose validation bits at its looks are these."""
    run = {"kind": "study", "arm": arm, "label": arm, "seed": seed, "config": {"data": "a text"}}
    looks = [
        {
            "event": "look",
            "characters": 1000 * number,
            "updates": 10 * number,
            "training_bits": 2.0,
            "validation_bits": value,
        }
        for number, value in enumerate(bits, 1)
    ]
    name = f"runs/{arm}-s{seed}"
    closing = {"event": ending}
    return RunRecord(folder=Path(name), name=name, run=run, events=(*looks, closing))


def records(**bits):
    """Three seeds of each arm; the last look of seed s is s/10 higher."""
    return [
        record(arm.replace("_", "-"), [3.0, value + seed / 10], seed)
        for arm, value in bits.items()
        for seed in range(3)
    ]


class TestFindings:
    @pytest.mark.parametrize(
        ("dni", "verdict"), [(1.99, "reproduced"), (2.0, "not reproduced"), (2.1, "not reproduced")]
    )
    def test_pairs_of_one_seed_are_compared(self, dni, verdict):
        """Seeds differ by more than arms do, so only pairs can tell."""
        claims = find(records(bptt_8=2.0, dni_8=dni)).claims
        assert claims[0].verdict == verdict
        assert claims[0].paper.startswith("by 0.014 bits")

    def test_every_seed_must_show_it(self):
        runs = [*records(bptt_8=2.0, dni_8=1.9)[:-1], record("dni-8", [3.0, 2.3], 2)]
        assert find(runs).claims[0].verdict == "not reproduced"

    @pytest.mark.parametrize(
        ("long", "dni", "verdict", "text"),
        [
            (1.9, 1.85, "reproduced", "150% of a gap of 0.1000 bits"),
            (1.9, 1.95, "not reproduced", "50% of a gap"),
            (2.1, 1.95, "not comparable", "there is no gap to close"),
        ],
    )
    def test_gap(self, long, dni, verdict, text):
        claims = find(records(bptt_8=2.0, bptt_40=long, dni_8=dni)).claims
        (gap,) = (claim for claim in claims if "closes the gap" in claim.claim)
        assert gap.verdict == verdict
        assert text in gap.measured

    def test_other_data_are_not_comparable(self):
        (*_, absolute) = find(records(dni_8=1.34)).claims
        assert absolute.verdict == "not comparable"
        assert "median 1.440 on a text" in absolute.measured

    def test_an_arm_of_ours_has_no_paper(self):
        found = find(records(bptt_8=2.0, cdni_8=1.9))
        assert found.claims[0].paper == "no paper: an arm of ours"
        assert found.tables[0].rows[1][-1] == MISSING

    def test_one_seed_is_too_few(self):
        runs = [record("bptt-8", [2.0]), record("dni-8", [1.9])]
        assert {claim.verdict for claim in find(runs).claims} == {"not comparable"}

    def test_table_and_pictures(self):
        found = find(records(dni_8=1.9, bptt_8=2.0))
        first, second = found.tables[0].rows
        assert first[0] == "truncated BPTT, T = 8"
        assert second[1:5] == ("20", "2.0000", "1.9000 to 2.1000", "2.0000")
        assert second[6] == "-0.1000"
        curves, differences = found.pictures
        assert [len(panel["lines"]) for panel in curves.data["panels"]] == [2, 2]
        (line,) = differences.data["panels"][0]["lines"]
        assert line["x"] == [1000, 2000]
        assert line["y"] == pytest.approx([0.0, -0.1])
        json.dumps(found.to_json(), allow_nan=False)

    def test_what_is_missing_or_null_is_left_out(self):
        runs = [
            record("bptt-8", [2.0]),
            record("dni-8", [None]),
            record("dni-8", [1.0], 1, "interrupted"),
        ]
        found = find(runs)
        assert found.claims == ()
        json.dumps(found.to_json(), allow_nan=False)
        assert find([]).all_tables() == []


def test_the_folder_goes_from_command_to_page(config, tmp_path):
    options = RunOptions(preset="test", out=tmp_path / "out", console=Console(file=StringIO()))
    outcome = EXPERIMENT.run(replace(config, seeds=(0,)), options)
    assert outcome.runs == {"finished": len(ARMS)}
    page = EXPERIMENT.write_page(tmp_path / "out", read_records(tmp_path / "out")).read_text()
    assert page.count("data:image/svg+xml") >= 2
    assert str(tmp_path) not in page
