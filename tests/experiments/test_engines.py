"""The experiment `engines`: what is asked for, what is counted, and what is said of it."""

import itertools
import json
import math

import pytest
import torch
from engines_records import machine, study, timed, trained

from synthgrad.bench.figures.maps import heat_maps_svg
from synthgrad.data import Dataset, Split
from synthgrad.errors import ConfigError
from synthgrad.experiments.engines.bars import Bar, judge
from synthgrad.experiments.engines.cases import Case, Cut, parse_case
from synthgrad.experiments.engines.findings import find, maps, ratios_table
from synthgrad.experiments.engines.limits import Peaks, Work, limits
from synthgrad.experiments.engines.measured import (
    learned,
    may_be_headline,
    peaks_of,
    timed_cases,
)
from synthgrad.experiments.engines.study import EnginesConfig, tasks
from synthgrad.experiments.engines.timing import Arm, arms_of, count_work, threads_to_try
from synthgrad.experiments.engines.training import train_case

PEAKS = Peaks(
    flops=1e9,
    copies={1000: 1e9, 100_000: 1e8},
    launches=1e6,
    graph_launches=1e7,
    product_seconds=1e-7,
)
WORK = Work(flops=1000, moved_bytes=1000, working_set=1000, launches=10, path=4)
EAGER = ("backprop", "eager", None)
COMPILED = ("backprop", "compiled", None)
WAVE = ("wavefront", "compiled", "cdni-4")


def dataset():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (64, 1, 4, 4), generator=generator, dtype=torch.uint8)
    split = Split(pixels=pixels, labels=torch.arange(64) % 10)
    return Dataset(name="noise", num_classes=10, train=split, validation=split, test=split)


DATA = dataset()
RATES = (1e-3, 1e-4)


def bar_of(records, at_least=2.0, rival="best"):
    bar = Bar(case="32x32-b16", cut="cdni-4", at_least=at_least, rival=rival)
    return judge(bar, timed_cases(records), learned(records), peaks_of(records))


def one_case(own=0.25, eager=1.0, compiled=0.75, **facts):
    arms = {
        EAGER: ([eager] * 4, {}),
        COMPILED: ([compiled] * 4, {}),
        WAVE: ([own] * 4, {"flops": 2000, **facts}),
    }
    return timed("32x32-b16", 32, 32, 16, arms)


# --- what is asked for


def test_a_case_in_a_word():
    case = parse_case("32x64@128:cdni/4,local/1")
    cuts = (Cut(signal="cdni", length=4), Cut(signal="local", length=1))
    assert case == Case(layers=32, width=64, batch_size=128, cuts=cuts)
    assert case.name == "32x64-b128"
    assert [case.num_stages(cut) for cut in cuts] == [8, 32]
    assert parse_case("fcn-4x256@256").kind == "fcn"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("32x64", "is no case"),
        ("32x64@128:dni/4", "is no cut"),
        ("32x64@128:cdni", "is no cut"),
        ("32x64@128:cdni/5", "divides the layers"),
        ("32x64@128:cdni/32", "two stages or more"),
        ("32x0@128", "1 or more"),
    ],
)
def test_what_is_no_case(text, match):
    with pytest.raises(ConfigError, match=match):
        parse_case(text)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"head_rate": 0.0}, "head_rate=0.0"),
        ({"examples": 0}, "examples=0"),
        ({"rounds": -1}, "0 or more"),
        ({"threads": 0}, "threads=0"),
        ({"decay_at": (1.5,)}, "decay_at"),
        ({"sweep": ("32x32@16:cdni/8",)}, "stands there twice"),
        ({"training": ("32x32@16:cdni/3",)}, "divides the layers"),
    ],
)
def test_a_config_that_cannot_work(change, match):
    with pytest.raises(ConfigError, match=match):
        EnginesConfig(**change)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about a machine without CUDA")
def test_a_device_that_is_not_there():
    with pytest.raises(ConfigError, match="no CUDA device"):
        tasks(EnginesConfig(device="cuda"))


def test_tasks_by_part():
    config = EnginesConfig(cases=("4x8@4:cdni/2",), training=("4x8@4:cdni/2",), seeds=(0, 1))
    assert [task.name for task in tasks(config)] == [
        "machine",
        "throughput/4x8-b4",
        "training/4x8-b4-backprop-s0",
        "training/4x8-b4-cdni-2-s0",
        "training/4x8-b4-backprop-s1",
        "training/4x8-b4-cdni-2-s1",
    ]


def test_stages_hold_the_same_layers_with_stem_and_output_at_the_ends():
    case = parse_case("4x8@4:cdni/2")
    network = case.network((1, 4, 4), 10)
    chain = case.chain(network, case.cuts[0], torch.zeros(2, 1, 4, 4), 10)
    names = [[type(layer).__name__ for layer in stage.module] for stage in chain]
    assert names == [["Stem", "EvenLayer", "EvenLayer"], ["EvenLayer", "EvenLayer", "Linear"]]


def test_the_same_seed_gives_every_arm_the_same_network():
    case = parse_case("4x8@4:cdni/2,local/1")
    arms = arms_of(case, ("eager",), ("eager",))
    assert [arm.name for arm in arms] == [
        "backprop-eager",
        "sequential-cdni-2-eager",
        "wavefront-cdni-2-eager",
        "sequential-local-1-eager",
        "wavefront-local-1-eager",
    ]
    models = [arm.build(case, DATA, 0, RATES).model.state_dict() for arm in arms]
    for model in models[1:]:
        torch.testing.assert_close(model, models[0], rtol=0, atol=0)


def test_the_compiled_wavefront_may_take_the_threads_of_its_eager_form_and_its_rival_tries_all():
    case = parse_case("4x8@4:cdni/2")
    plain, _, eager, compiled = arms_of(case, ("compiled",), ("eager", "compiled"))
    best = {eager: 1}
    assert threads_to_try(compiled, (1, 2), best, compiles_once=True) == (1,)
    assert threads_to_try(compiled, (1, 2), best, compiles_once=False) == (1, 2)
    assert threads_to_try(compiled, (1, 2), {}, compiles_once=True) == (1, 2)
    assert threads_to_try(eager, (1, 2), best, compiles_once=True) == (1, 2)
    assert threads_to_try(plain, (1, 2), best, compiles_once=True) == (1, 2)


# --- what is counted


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"flops": 10**6}, "arithmetic"),
        ({"moved_bytes": 10**6}, "memory"),
        ({"launches": 10**5}, "launches"),
        ({"path": 10**5}, "critical path"),
    ],
)
def test_the_largest_limit_binds(change, name):
    work = Work(**{**WORK.__dict__, **change})
    assert limits(work, PEAKS).binding[0] == name


def test_the_arithmetic_of_limits():
    found = limits(WORK, PEAKS)
    assert found.arithmetic == pytest.approx(1e-6)
    assert found.memory == pytest.approx(1e-6)
    assert found.launches == pytest.approx(1e-5)
    assert found.critical_path == pytest.approx(4e-7)
    on_graph = Work(**{**WORK.__dict__, "on_graph": True})
    assert limits(on_graph, PEAKS).launches == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("working_set", "rate"), [(10, 1e9), (1000, 1e9), (99_999, 1e9), (10**6, 1e8)]
)
def test_bytes_move_at_the_rate_of_what_is_no_larger(working_set, rate):
    """So that the limit stays a limit where a step is in a nearer cache than the larger copy."""
    assert PEAKS.bytes_per_second(working_set) == rate


def test_work_is_counted():
    case = parse_case("4x8@4:cdni/2,local/1")
    batch = DATA.train.take(torch.arange(4))
    options = {"seed": 0, "rates": RATES, "batch": batch}
    counted = {
        arm.name: count_work(arm, case, DATA, **options)
        for arm in (*arms_of(case, ("eager", "compiled"), ("eager",)),)
    }
    plain = counted["backprop-eager"]
    # Forward and weights' gradients of every layer; the stem passes nothing down.
    layers, stem, output = 4 * 8 * 8, 16 * 8, 8 * 10
    assert plain["flops"] == 2 * 4 * (3 * layers + 2 * stem + 3 * output)
    assert plain["path"] == 2 * (4 + 2)
    local = counted["wavefront-local-1-eager"]
    # No stage gives the one below a target: two products a layer, and three a head. Only the
    # lowest layer hands a gradient down, to the stem in its stage.
    assert local["flops"] == 2 * 4 * (2 * layers + 8 * 8 + 2 * stem + 4 * 3 * output)
    assert local["path"] == 2 * (1 + 1)
    assert plain["launches"] > counted["backprop-compiled"]["launches"] == 4 * 3 + 2 + 3
    assert counted["wavefront-cdni-2-eager"]["flops"] == counted["sequential-cdni-2-eager"]["flops"]


def test_training_ends_flushed_and_is_read_at_every_stop():
    case = parse_case("4x8@4:cdni/2")
    options = {
        "seed": 0,
        "rates": RATES,
        "updates": 5,
        "num_snapshots": 2,
        "decay_at": (0.6,),
        "threads": 1,
    }
    for cut in (None, case.cuts[0]):
        events = list(train_case(case, cut, DATA, "graph", **options))
        assert events[0]["form"] == "eager", "no CUDA graph on this device"
        stops = [e["iteration"] for e in events if e["event"] == "snapshot"]
        assert stops == [2, 5]
        assert events[-1]["event"] == "tested"


# --- what is said of it


@pytest.mark.parametrize(
    ("points", "holds"),
    [
        ([0.1, -0.4, -0.5], True),
        ([-0.5, -0.5, -0.5], True),
        ([-0.6, -0.6, 3.0], False),
        ([0.1, 0.1], False),
        ([], False),
        ([math.nan] * 3, False),
    ],
)
def test_a_headline_needs_the_accuracy(points, holds):
    assert may_be_headline(points)[0] is holds


def test_a_bar_is_judged_against_the_fastest_form_of_backprop():
    judged = bar_of([one_case(), machine()])
    assert judged.measured == pytest.approx(3.0)  # over compiled backprop; over eager it is 4
    assert judged.verdict == "met"
    assert "no headline" in judged.why
    assert bar_of([one_case()], at_least=3.5).verdict == "not met"
    assert bar_of([one_case()], at_least=3.5, rival="eager").verdict == "met"


def test_a_bar_that_is_met_is_a_headline_where_the_accuracy_holds():
    case = "32x32-b16"
    records = [one_case(), *trained(case, None, [97.0] * 3), *trained(case, "cdni-4", [96.6] * 3)]
    assert bar_of(records).why.endswith("a headline")
    assert "no headline" not in bar_of(records).why


def test_a_bar_of_nine_tenths_of_the_operations():
    # The wavefront has twice the operations of backprop: they allow a half.
    assert bar_of([one_case(own=1.65)], at_least=None).at_least == pytest.approx(0.45)
    assert bar_of([one_case(own=1.65)], at_least=None).verdict == "met"
    assert bar_of([one_case(own=1.70)], at_least=None).verdict == "not met"


def test_a_bar_that_is_not_met_says_how_far_the_limit_is():
    why = bar_of([one_case(own=1.0), machine()]).why
    assert why.startswith("100000.0 times its own limit (launches)")


def test_what_the_record_does_not_hold_is_not_measured():
    assert bar_of([]).verdict == "not measured"
    assert bar_of([one_case()], rival="graph").verdict == "not measured"


def test_what_was_timed_beside_other_runs_is_not_shown():
    record = timed("32x32-b16", 32, 32, 16, {EAGER: ([1.0], {})}, clocked=False)
    assert not timed_cases([record])
    [*_, left_out] = find([record]).tables
    assert left_out.rows == (("timed beside other runs, so not shown", "32x32-b16"),)


def test_ratios_with_their_verdict():
    records = [one_case()]
    [row] = ratios_table(timed_cases(records), learned(records)).rows
    assert row[2] == "3.00 [3.00, 3.00]"
    assert row[4] == "0.50"
    assert row[-1] == "no headline: accuracy not measured"


def test_maps_hold_a_ratio_a_place_and_nothing_where_nothing_was_measured():
    records = [
        timed(
            f"8x{width}-b{batch}",
            8,
            width,
            batch,
            {EAGER: ([1.0] * 2, {}), ("wavefront", "eager", "local-1"): ([own] * 2, {})},
        )
        for width, batch, own in [(32, 16, 0.25), (64, 16, 0.5), (64, 32, 2.0)]
    ]
    (picture,) = maps(timed_cases(records))
    assert picture.name == "break-even-width-batch"
    [panel] = picture.data["panels"]
    assert (panel["x"], panel["y"]) == ([32, 64], [16, 32])
    assert panel["values"] == [[4.0, 2.0], [None, 0.5]]
    assert panel["title"] == "local-1, 8 layers"


def test_heat_maps_are_drawn():
    panel = {"title": "a", "x": [1, 2], "y": [3], "values": [[2.0, None]]}
    svg = heat_maps_svg({"x_label": "units", "y_label": "batch", "panels": [panel]})
    assert "<!-- 2.00 -->" in svg
    assert "<!-- units -->" in svg
    assert heat_maps_svg({"x_label": "", "y_label": "", "panels": []}).startswith("<?xml")


def test_findings_hold_no_nan_whatever_is_there():
    full = [one_case(), machine(), *trained("32x32-b16", None, [97.0])]
    for count in range(1, len(full) + 1):
        for records in itertools.combinations(full, count):
            json.dumps(find(list(records)).to_json(), allow_nan=False)


def test_time_to_the_goal_is_updates_times_the_fastest_seconds():
    case = "32x32-b16"
    records = [
        one_case(),
        *trained(case, None, [97.0] * 3, to_goal=500),
        *trained(case, "cdni-4", [97.0] * 3, to_goal=750),
    ]
    table = next(t for t in find(records).tables if t.title.startswith("What each method"))
    assert [row[-1] for row in table.rows] == ["1.00", "0.50"]


def test_the_papers_claim_needs_a_gpu():
    arms = {EAGER: ([1.0] * 2, {}), ("wavefront", "graph", "cdni-1"): ([0.25] * 2, {})}
    name = "fcn-4x256-b256"
    on = {
        device: [
            timed(name, 4, 256, 256, arms, network="fcn", device=device),
            *trained(name, None, [98.0] * 3),
            *trained(name, "cdni-1", [98.0] * 3),
        ]
        for device in ("cpu", "cuda")
    }
    assert [find(records).claims[0].verdict for records in on.values()] == [
        "not comparable",
        "reproduced",
    ]
    bars = next(t for t in find(on["cuda"]).tables if "asked to reach" in t.title)
    assert [row[4] for row in bars.rows][:2] == ["met", "not measured"]


def test_an_unfinished_run_says_nothing():
    record = study("backprop", [], case="a")
    assert not learned([record])


def test_a_name_of_an_arm_holds_all_of_it():
    arm = Arm(engine="wavefront", form="compiled-graph", cut=Cut(signal="local", length=1))
    assert arm.name == "wavefront-local-1-compiled-graph"
    assert arm.label == "wavefront, local loss, a layer a stage, compiled CUDA graph"
