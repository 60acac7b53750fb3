import itertools
import json
import math
import statistics
from dataclasses import asdict
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from fake_records import ARMS, FakeArm, make_record, write_fake_records

from synthgrad.bench.figures import data, paper
from synthgrad.bench.figures.style import arm_style
from synthgrad.bench.figures.thinning import MAX_SEEDS, thin
from synthgrad.bench.records.record import read_records
from synthgrad.bench.scoring.summary import summarize

DRAWN = {
    paper.accuracy_svg: "curves",
    paper.loss_svg: "curves",
    paper.alignment_svg: "alignment",
    paper.timing_svg: "timing",
    paper.accounting_svg: "accounting",
}


def numbers_of(records):
    summaries = summarize(records)
    return {
        "curves": data.curves(records, summaries),
        "alignment": data.alignment(records, summaries),
        "timing": data.timing(records, summaries),
        "accounting": data.accounting(summaries),
    }


def by_arm(figure):
    return {arm["arm"]: arm for arm in figure["arms"]}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return read_records(write_fake_records(tmp_path_factory.mktemp("records")))[0]


@pytest.fixture(scope="module")
def numbers(records):
    return numbers_of(records)


class TestCurves:
    def test_hold_every_snapshot_of_every_seed(self, records, numbers):
        seeds = [seed for arm in numbers["curves"]["arms"] for seed in arm["seeds"]]
        drawn = {seed["record"]: seed for seed in seeds}
        runs = [run for run in records if run.snapshots and run.kind == "run"]
        assert sorted(drawn) == sorted(run.name for run in runs)
        for run in runs:
            for name in ("iteration", "seconds", "val_accuracy", "train_loss"):
                expected = [getattr(snapshot, name) for snapshot in run.snapshots]
                assert drawn[run.name][name] == expected

    def test_the_median_counts_a_failed_run_as_a_miss(self):
        records = [
            make_record(10.0, 90.0, 96.0, seed=0),
            make_record(10.0, 92.0, 98.0, seed=1),
            make_record(10.0, 94.0, seed=2, ending="failed"),
        ]
        [arm] = numbers_of(records)["curves"]["arms"]
        assert arm["median"]["iteration"] == [0, 10, 20]
        assert arm["median"]["val_accuracy"] == [10.0, 92.0, 96.0]

    def test_a_median_that_is_a_miss_is_a_gap(self):
        records = [make_record(10.0, 90.0), make_record(10.0, seed=1, ending="failed")]
        [arm] = numbers_of(records)["curves"]["arms"]
        assert arm["median"]["val_accuracy"] == [10.0, None]

    def test_an_interrupted_run_is_drawn_but_not_counted(self):
        records = [
            make_record(10.0, 90.0, 96.0, seed=0),
            make_record(10.0, 30.0, seed=1, ending="interrupted"),
        ]
        [arm] = numbers_of(records)["curves"]["arms"]
        assert arm["median"]["val_accuracy"] == [10.0, 90.0, 96.0]
        assert [seed["seed"] for seed in arm["seeds"]] == [0, 1]

    def test_interrupted_runs_alone_have_a_median_too(self):
        [arm] = numbers_of([make_record(10.0, 30.0, ending="interrupted")])["curves"]["arms"]
        assert arm["median"]["val_accuracy"] == [10.0, 30.0]

    def test_an_arm_that_never_ran_is_left_out(self, numbers):
        assert "backprop-compiled" not in by_arm(numbers["curves"])

    def test_what_is_not_finite_is_none(self):
        [arm] = numbers_of([make_record(10.0, None, 96.0)])["curves"]["arms"]
        assert arm["seeds"][0]["val_accuracy"] == [10.0, None, 96.0]
        json.dumps(arm, allow_nan=False)


class TestAlignment:
    def test_is_that_of_the_records(self, records, numbers):
        assert numbers["alignment"]["interfaces"] == ["layer1", "layer2", "layer3"]
        arms = by_arm(numbers["alignment"])
        assert list(arms) == ["dni-linear", "cdni-linear", "cdni-mirror-p0.2"]
        run = next(run for run in records if run.arm == "cdni-linear")
        values = [event["interfaces"]["layer2"] for event in run.of_kind("alignment")]
        first = arms["cdni-linear"]["interfaces"]["layer2"]["seeds"][0]
        assert first["cosine"] == [value["cosine"] for value in values]
        assert first["relative_error"] == [value["relative_error"] for value in values]

    def test_malformed_events_are_passed_over(self):
        record = make_record(10.0, 90.0)
        events = (
            {"event": "alignment"},
            {"event": "alignment", "iteration": 5, "interfaces": ["layer1"]},
            {"event": "alignment", "iteration": 10, "interfaces": {"layer1": {"cosine": "high"}}},
        )
        record = type(record)(record.folder, record.name, record.run, (*events, *record.events))
        interface = numbers_of([record])["alignment"]["arms"][0]["interfaces"]["layer1"]
        assert interface["median"] == {
            "iteration": [10],
            "cosine": [None],
            "relative_error": [None],
        }


class TestSpeed:
    def test_ratios_are_taken_within_rounds(self, numbers):
        # Every fifth round is on a machine at half its speed, which a ratio does not show.
        arm = by_arm(numbers["timing"])["cdni-linear"]
        assert arm["rounds"] == list(range(20))
        assert max(arm["ratios"]) / min(arm["ratios"]) < 1.1
        assert arm["median"] == statistics.median(arm["ratios"])

    def test_backprop_is_not_compared_with_itself(self, numbers):
        assert "backprop" not in by_arm(numbers["timing"])
        assert "backprop" not in by_arm(numbers["accounting"])

    def test_sparse_updates_look_fast_per_iteration_and_are_slow_per_update(self, numbers):
        arm = by_arm(numbers["accounting"])["cdni-mirror-p0.2"]
        assert arm["per_iteration"] < 1 < arm["per_stage_update"]
        # It updates 0.8 stages an iteration, backprop all four.
        assert arm["per_stage_update"] == pytest.approx(arm["per_iteration"] * 4 / 0.8)

    def test_without_a_timing_record_there_is_nothing_to_draw(self, tmp_path):
        records, _ = read_records(write_fake_records(tmp_path, num_rounds=0))
        assert numbers_of(records)["timing"] == {
            "baseline": "backprop",
            "record": None,
            "arms": [],
        }


class TestThinning:
    def test_leaves_a_small_figure_as_it_is(self, numbers):
        thinned = thin(numbers)
        assert thinned.keys() == numbers.keys()
        for before, after in zip(_leaves(numbers), _leaves(thinned), strict=True):
            if isinstance(before, float):
                before = pytest.approx(before, rel=1e-5)  # six digits are kept
            assert after == before

    def test_bounds_what_is_drawn_and_keeps_the_ends(self, tmp_path):
        write_fake_records(tmp_path, num_seeds=12, num_snapshots=250, num_rounds=400)
        numbers = numbers_of(read_records(tmp_path)[0])
        thinned = thin(numbers)
        for before, after in zip(numbers["curves"]["arms"], thinned["curves"]["arms"], strict=True):
            assert len(after["seeds"]) == MAX_SEEDS
            for key in ("iteration", "val_accuracy"):
                kept = after["median"][key]
                assert (kept[0], kept[-1]) == pytest.approx(
                    (before["median"][key][0], before["median"][key][-1]), rel=1e-5
                )
        seeds = [seed for arm in thinned["curves"]["arms"] for seed in arm["seeds"]]
        assert sum(len(seed["seconds"]) for seed in seeds) <= 3000
        assert len(by_arm(thinned["timing"])["cdni-linear"]["ratios"]) == 300


def _leaves(value):
    """Return the values at the ends of nested JSON, in order."""
    if isinstance(value, dict):
        return [leaf for key in value for leaf in _leaves(value[key])]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in _leaves(part)]
    return [value]


class TestSvg:
    @pytest.mark.parametrize("draw", DRAWN, ids=lambda draw: draw.__name__)
    def test_is_the_same_under_any_settings_and_changes_none(self, numbers, draw):
        figure = numbers[DRAWN[draw]]
        first = draw(figure)
        with matplotlib.rc_context({"lines.linewidth": 9, "svg.fonttype": "none"}):
            before = dict(matplotlib.rcParams)
            assert draw(figure) == first
            assert dict(matplotlib.rcParams) == before
        assert ElementTree.fromstring(first).tag == "{http://www.w3.org/2000/svg}svg"

    @pytest.mark.parametrize("draw", DRAWN, ids=lambda draw: draw.__name__)
    def test_shows_every_arm(self, numbers, draw):
        figure = numbers[DRAWN[draw]]
        assert draw({**figure, "arms": figure["arms"][1:]}) != draw(figure)

    def test_a_label_is_text_whatever_stands_in_it(self, numbers):
        figure = numbers["accounting"]
        arms = [{**arm, "label": r"$\frac{</svg><script>"} for arm in figure["arms"]]
        drawn = ElementTree.fromstring(paper.accounting_svg({**figure, "arms": arms}))
        assert not [node for node in drawn.iter() if node.tag.endswith("script")]

    @pytest.mark.parametrize("accuracies", [(10.0, None, 100.0), (10.0,), (None, None)])
    def test_perfect_and_missing_values_can_be_drawn(self, accuracies):
        figure = numbers_of([make_record(*accuracies)])["curves"]
        ElementTree.fromstring(paper.accuracy_svg(figure))
        ElementTree.fromstring(paper.loss_svg(figure))


class TestStyle:
    def test_the_first_24_arms_differ(self):
        assert len({tuple(asdict(arm_style(index)).values()) for index in range(24)}) == 24

    @pytest.mark.parametrize(("theme", "ground"), [("light", "#ffffff"), ("dark", "#15171a")])
    def test_colors_stay_apart_for_every_eye(self, theme, ground):
        colors = [_linear(getattr(arm_style(index), theme)) for index in range(8)]
        for sight, matrix in SIGHTS.items():
            seen = [_oklab(matrix @ color) for color in colors]
            closest = min(math.dist(a, b) for a, b in itertools.combinations(seen, 2))
            assert closest > (0.07 if sight == "tritanope" else 0.09), sight
        for color in colors:
            light, dark = sorted((_luminance(color), _luminance(_linear(ground))), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 3


# Color vision deficiencies as matrices on linear RGB: Machado, Oliveira and Fernandes 2009,
# severity 1. OKLab: Ottosson 2020.
SIGHTS = {
    "normal": np.eye(3),
    "protanope": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deuteranope": np.array(
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    ),
    "tritanope": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def _linear(color):
    levels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def _luminance(linear):
    return float(np.array([0.2126, 0.7152, 0.0722]) @ linear)


def _oklab(linear):
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ np.clip(linear, 0, 1))


def test_arms_keep_their_look_in_every_figure(numbers):
    order = [arm.arm for arm in ARMS]
    for figure in numbers.values():
        for arm in figure["arms"]:
            assert arm["style"] == asdict(arm_style(order.index(arm["arm"])))


def test_labels_are_those_of_the_records(tmp_path):
    arm = FakeArm(
        arm="backprop",
        label="<b>bold</b>",
        signal=None,
        limit=98.0,
        pace=1.0,
        milliseconds=1.0,
        updates_per_iteration=4,
    )
    records, _ = read_records(write_fake_records(tmp_path, arms=(arm,)))
    assert numbers_of(records)["curves"]["arms"][0]["label"] == "<b>bold</b>"
