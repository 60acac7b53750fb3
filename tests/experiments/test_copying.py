"""Copy and repeat copy: a tiny run of every arm, and findings from runs made by hand."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from synthgrad.bench.records.events import RunRecord
from synthgrad.data import Curriculum
from synthgrad.errors import ConfigError, DivergedError
from synthgrad.experiments.accuracy import MIN_SEEDS
from synthgrad.experiments.jaderberg2017.copying import (
    ARMS,
    COPY,
    PRESETS,
    REPEAT_COPY,
    CopyingConfig,
    measure,
)
from synthgrad.experiments.jaderberg2017.copying_findings import find, modelled
from synthgrad.experiments.jaderberg2017.copying_training import Copier
from synthgrad.experiments.jaderberg2017.numbers import recalled_length

TINY = CopyingConfig(
    num_units=16,
    batch_size=16,
    learning_rate=1e-2,
    num_updates=300,
    look_every=100,
    seeds=(0,),
)


def copier(arm, config=TINY):
    torch.manual_seed(0)
    return Copier(
        config,
        num_inputs=3,
        num_outputs=2,
        horizon=3,
        method=ARMS[arm],
    )


def batches(number):
    curriculum, draw = Curriculum("repeat-copy"), torch.Generator().manual_seed(0)
    curriculum.length = 3
    return [curriculum.sample(4, 1, draw) for _ in range(number)]


class TestTraining:
    @pytest.mark.parametrize("arm", ARMS)
    @pytest.mark.parametrize("task", ["copy", "repeat-copy"])
    def test_events(self, task, arm):
        events = list(measure(TINY, task, arm, 3, 0))
        json.dumps(events, allow_nan=False)
        updates = [event["updates"] for event in events]
        assert updates == sorted(updates)
        assert 300 <= updates[-1] < 300 + 3  # the last sequence is finished
        assert {1, 2} <= {at // 100 for at in updates}, "it is looked at on its way"
        assert all(0 < event["bits"] < 2 for event in events)
        before = 0
        for event in events:
            assert (event["modelled"] > before) == (event["event"] == "longer")
            before = event["modelled"]
        assert before >= (1 if task == "copy" else 0)

    def test_a_seed_gives_the_same_numbers(self):
        short = replace(TINY, num_updates=30)
        first, again, other = (list(measure(short, "copy", "dni", 3, s)) for s in (0, 0, 1))
        assert first == again != other

    def test_arms_begin_alike_and_part(self):
        """On the first sequence the synthesizer is zero, which is truncated BPTT."""
        (first, second) = batches(2)
        found = {}
        for arm in ARMS:
            learner = copier(arm)
            found[arm] = [learner.train_on(first), learner.train_on(second)]
        numbers = {arm: [updates for _, updates in runs] for arm, runs in found.items()}
        assert set(map(tuple, numbers.values())) == {(3, 3)}
        bits = {arm: [error for error, _ in runs] for arm, runs in found.items()}
        assert len({errors[0] for errors in bits.values()}) == 1
        assert len({errors[1] for errors in bits.values()}) == len(ARMS)

    def test_the_error_is_that_of_the_whole_sequence(self):
        (batch,) = batches(1)
        still = copier("bptt", replace(TINY, learning_rate=1e-30))
        bits, _ = still.train_on(batch)
        outputs = still.head(still.rnn.core(batch.inputs)[0])[batch.mask]
        wanted = batch.targets[batch.mask]
        p = torch.where(wanted == 1, outputs.sigmoid(), 1 - outputs.sigmoid())
        assert bits == pytest.approx(-p.log2().mean().item(), rel=1e-5)  # float32

    def test_the_limit_on_gradients_is_not_for_the_synthesizer(self):
        (batch,) = batches(1)
        (bound, free) = (copier("dni", replace(TINY, max_norm=m)) for m in (1e-12, None))
        before = [p.clone() for p in bound.rnn.core.parameters()]
        for learner in (bound, free):
            learner.train_on(batch)
        moved = [
            (p - q).abs().max().item()
            for p, q in zip(bound.rnn.core.parameters(), before, strict=True)
        ]
        # Adam's step is at most the rate, but for gradients like its epsilon of 1e-8 or below.
        assert max(moved) < 1e-4
        last = bound.rnn.synthesizer.last.weight
        assert last.abs().max() > 1e-5, "it is fitted all the same"

    def test_what_diverges_says_so(self):
        with pytest.raises(DivergedError, match="bits after"):
            list(measure(replace(TINY, learning_rate=3e38), "copy", "dni", 3, 0))


class TestConfig:
    @pytest.mark.parametrize("study", [COPY, REPEAT_COPY])
    def test_tasks(self, study):
        for config in PRESETS.values():
            tasks = study.tasks(config)
            assert len(tasks) == len(config.seeds) * len(config.horizons) * len(ARMS)
            assert {task.arm for task in tasks} == set(study.arms)
            assert {task.options["task"] for task in tasks} == {study.name.split("/")[1]}
        assert len(PRESETS["full"].seeds) >= MIN_SEEDS
        assert PRESETS["full"].horizons == (3,)

    def test_the_papers_preset_is_the_papers(self):
        paper = PRESETS["paper"]
        assert paper.horizons == (2, 3, 4, 5)
        assert (paper.num_bits, paper.num_units, paper.batch_size) == (8, 256, 256)
        assert (paper.learning_rate, paper.scale, paper.hidden) == (7e-5, 0.1, (256,))

    @pytest.mark.parametrize(
        "values",
        [
            {"horizons": ()},
            {"horizons": (0,)},
            {"num_units": 0},
            {"window": 0},
            {"num_updates": 0},
            {"look_every": 0},
            {"learning_rate": 0.0},
            {"synthesizer_learning_rate": -1.0},
            {"max_norm": 0.0},
        ],
    )
    def test_refused(self, values):
        with pytest.raises(ConfigError, match=next(iter(values))):
            replace(TINY, **values)


def record(arm, lengths, seed=0, *, ending="finished", task="copy", horizon=3):
    """Make a run that mastered these lengths, one every ten updates."""
    config = {**asdict(TINY), "num_updates": 100, "task": task, "horizon": horizon}
    run = {"kind": "study", "arm": arm, "label": ARMS[arm].label, "seed": seed, "config": config}
    events = [
        {"event": "longer", "updates": 10 * k, "modelled": length, "bits": 0.1}
        for k, length in enumerate(lengths, start=1)
    ]
    events.append({"event": "look", "updates": 100, "modelled": 0, "bits": 0.1})
    name = f"runs/{arm}-T{horizon}-s{seed}"
    closing = {"event": ending, "reason": "", "crashed": False}
    return RunRecord(folder=Path(name), name=name, run=run, events=(*events, closing))


def records(arm, lengths, **options):
    return [record(arm, range(1, n + 1), seed, **options) for seed, n in enumerate(lengths)]


class TestFindings:
    @pytest.mark.parametrize(
        ("dni", "verdict"),
        [
            ((6, 7, 6), "not reproduced"),
            ((5, 6, 30), "reproduced"),  # the median of 1.25, 1.5 and 7.5 is enough
            ((5, 5, 30), "not reproduced"),
            ((9, 9), "not comparable"),
        ],
    )
    def test_whether_dni_is_longer(self, dni, verdict):
        bptt = (4, 4, 4) if dni[0] == 5 else (6, 5, 6)
        (claim,) = find([*records("bptt", bptt), *records("dni", dni)]).claims
        assert claim.verdict == verdict
        assert "14 against 8, 1.8 times (recalled)" in claim.paper

    def test_ratios_are_within_seeds(self):
        given = [*records("bptt", (2, 8, 8)), *records("dni", (8, 12, 2))]
        (claim,) = find(given).claims
        assert claim.measured.startswith("1.50 times as long in the median, seeds 0.25 to 4.00;")

    @pytest.mark.parametrize(("aux", "verdict"), [(9, "reproduced"), (8, "not reproduced")])
    def test_whether_the_auxiliary_task_keeps_up(self, aux, verdict):
        given = [*records("dni", (9,) * 3), *records("dni-aux", (aux,) * 3)]
        (claim,) = find(given).claims
        assert claim.verdict == verdict

    def test_horizons_stand_apart(self):
        given = [
            *records("bptt", (4,) * 3, horizon=2, task="repeat-copy"),
            *records("dni", (4,) * 3, horizon=2, task="repeat-copy"),
            *records("bptt", (2,) * 3, horizon=5, task="repeat-copy"),
            *records("dni", (8,) * 3, horizon=5, task="repeat-copy"),
        ]
        found = find(given)
        assert [claim.verdict for claim in found.claims] == ["not reproduced", "reproduced"]
        assert [row[:4] for row in found.tables[0].rows] == [
            ("truncated BPTT", "2", "7", "4"),
            ("DNI", "2", "39", "4"),
            ("truncated BPTT", "5", "23", "2"),
            ("DNI", "5", "59", "8"),
        ]
        assert [p["title"] for p in found.pictures[0].data["panels"]] == ["T = 2", "T = 5"]

    def test_a_run_that_diverged_counts_with_what_it_mastered(self):
        given = [record("bptt", [1, 2], ending="failed"), record("bptt", [1, 2, 3, 4], 1)]
        (row,) = find([*given, record("bptt", [1], 2, ending="interrupted")]).tables[0].rows
        assert row == ("truncated BPTT", "3", "8", "3", "2 to 4", "2 (1 diverged)")

    def test_curves(self):
        found = find([*records("bptt", (2, 4, 6))])
        (line,) = found.pictures[0].data["panels"][0]["lines"]
        heights = dict(zip(line["x"], line["y"], strict=True))
        assert heights[0] == 0
        assert heights[9.5] == 0
        assert heights[10] == 1
        assert heights[30] == 3
        assert heights[100] == 4
        assert (line["low"][-1], line["high"][-1]) == (2, 6)

    def test_nothing_mastered_gives_no_ratio(self):
        found = find([record("bptt", []), record("dni", [1])])
        assert found.claims == ()
        assert found.tables[1].rows[0][2:] == ("\N{EN DASH}", "\N{EN DASH}", "0")

    def test_no_records(self):
        assert find([]).all_tables() == []

    def test_modelled_by_then(self):
        run = record("dni", [1, 2, 3])
        assert [modelled(run, at) for at in (9, 10, 25, 99)] == [0, 1, 2, 3]

    def test_numbers_of_the_paper(self):
        assert recalled_length("repeat-copy", "dni-aux", 4) == 67
        assert recalled_length("copy", "bptt", 2) == 7
        assert recalled_length("copy", "bptt", 6) is None
        assert recalled_length("copy", "no-signal", 3) is None
