import pickle
from dataclasses import replace

import pytest
import torch

from bench.fake_records import make_record
from bench.tiny import EventList, tiny_data, tiny_plan
from synthgrad.bench.running.training import train
from synthgrad.errors import ConfigError
from synthgrad.experiments.jaderberg2017.any_order import draw_order
from synthgrad.experiments.jaderberg2017.sparse import EXPERIMENT, PRESETS, SparseConfig
from synthgrad.experiments.jaderberg2017.sparse_findings import ANY_ORDER, find

CONFIG = SparseConfig(
    width=8, batch_size=12, probabilities=(1.0, 0.2), long_probabilities=(0.2,), iterations=10
)
DATA = tiny_data()
MAIN, LONG = "mnist-fcn4", "mnist-fcn4-p0.2-long"
NAMES = ["backprop", "dni-p1", "dni-p0.2", "cdni-p1", "cdni-p0.2", ANY_ORDER]


def arms(config=CONFIG, case=MAIN):
    return {arm.name: arm for arm in EXPERIMENT.cases(config, "")[case].arms}


def batches(count, size=12):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield DATA.train.take(torch.randint(0, 96, (size,), generator=generator))


def records(case=MAIN, seeds=(0, 1, 2), between=90.0, **accuracies):
    return [
        make_record(10.0, between, last + 0.01 * seed, arm=arm, seed=seed, config={"case": case})
        for arm, last in accuracies.items()
        for seed in seeds
    ]


def test_the_arms():
    assert list(arms()) == NAMES
    assert list(arms(case=LONG)) == ["backprop", "cdni-p0.2"]
    assert {name: arm.update_probability for name, arm in arms().items()} == dict(
        zip(NAMES, [1, 1, 0.2, 1, 0.2, 1], strict=True)
    )
    assert len(EXPERIMENT.arms) == 2 + 2 * 4


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_make_jobs(preset):
    config = PRESETS[preset]
    jobs = EXPERIMENT.cases(config, preset)
    assert not set(config.seeds) & set(config.tune_seeds)
    main = f"mnist-fcn{config.depth}"
    assert jobs[main].plan.iterations == config.iterations
    for p in config.long_probabilities:
        long = jobs[f"{main}-p{p:g}-long"]
        assert long.plan.iterations == round(config.iterations / p)
        assert long.throughput.rounds == 0


def test_long_runs_have_a_stretched_schedule():
    jobs = EXPERIMENT.cases(CONFIG, "")
    assert jobs[LONG].plan.iterations == 50
    assert jobs[LONG].plan.decay_at == (30, 40)
    assert jobs[MAIN].plan.decay_at == (6, 8)


@pytest.mark.parametrize("name", NAMES)
def test_every_arm_takes_steps(name):
    learner = pickle.loads(pickle.dumps(arms()[name])).build(0, DATA)
    updated = 0
    for x, y in batches(50):
        assert learner.step(x, y).isfinite()
        updated += learner.num_updated
    if name.endswith("p0.2"):
        assert 20 < updated < 60  # 40 on average, with a standard deviation of 5.7
    else:
        assert updated == 200


@pytest.mark.parametrize(
    "values",
    [
        {"probabilities": (0.5,)},
        {"probabilities": (1.0, 0.0)},
        {"long_probabilities": (2.0,)},
        {"signals": ()},
    ],
)
def test_values_that_cannot_work(values):
    with pytest.raises(ConfigError, match="probabilities"):
        SparseConfig(**values)


def test_orders_are_drawn_anew_and_repeat():
    orders = [tuple(draw_order(1, 4, step)) for step in range(50)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len(set(orders)) > 10
    assert orders == [tuple(draw_order(1, 4, step)) for step in range(50)]


def test_any_order_gives_the_numbers_of_the_ordinary_loop():
    ordinary, free = (arms()[name].build(3, DATA) for name in ("cdni-p1", ANY_ORDER))
    for x, y in batches(12):
        torch.testing.assert_close(free.step(x, y), ordinary.step(x, y), rtol=0, atol=0)
    for key in ("net", "optimizer"):
        ours, theirs = free.state_dict()[key], ordinary.state_dict()[key]
        if key == "net":  # the loop counts its passes, the engine its steps
            ours.pop("_extra_state"), theirs.pop("_extra_state")
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_any_order_goes_on_from_its_state():
    through, first, second = (arms()[ANY_ORDER].build(0, DATA) for _ in range(3))
    data = list(batches(6))
    for x, y in data:
        through.step(x, y)
    for x, y in data[:3]:
        first.step(x, y)
    second.load_state_dict(first.state_dict())
    assert second.engine.num_steps == 3
    for x, y in data[3:]:
        second.step(x, y)
    torch.testing.assert_close(second.state_dict(), through.state_dict(), rtol=0, atol=0)


def test_any_order_is_trained_and_measured_as_any_arm(tmp_path):
    found = {}
    for name in ("cdni-p1", ANY_ORDER):
        sink = EventList()
        plan = tiny_plan(decay_at=(6,))
        train(arms()[name], DATA, plan, seed=0, folder=tmp_path, sink=sink)
        [facts], [finished] = sink.of("facts"), sink.of("finished")
        snapshots = [(s["val_loss"], s["stage_updates"]) for s in sink.of("snapshot")]
        found[name] = (facts, snapshots, finished["test_loss"])
    assert found[ANY_ORDER] == found["cdni-p1"]


AS_PAPER = {
    "backprop": 98.5,
    "dni-p1": 97.9,
    "dni-p0.2": 97.8,
    "cdni-p1": 98.4,
    "cdni-p0.2": 98.0,
    ANY_ORDER: 98.4,
}


def verdicts(iterations=20, **accuracies):
    given = records(**(AS_PAPER | accuracies))
    if iterations != 20:
        given = [
            replace(
                record,
                events=tuple(
                    {**event, "iteration": iterations} if event.get("iteration") == 20 else event
                    for event in record.events
                ),
            )
            for record in given
        ]
    return [claim.verdict for claim in find(given).claims]


def test_verdicts_where_all_is_as_in_the_paper():
    assert verdicts() == ["reproduced"] * 3


def test_verdicts_go_the_other_way():
    worse = {"dni-p0.2": 95.0, "cdni-p0.2": 97.0, ANY_ORDER: 98.0}
    assert verdicts(**worse) == ["not comparable", "not comparable", "not reproduced"]
    assert verdicts(iterations=500_000, **worse) == ["not reproduced"] * 3


def test_orders_that_differ_by_less_than_the_seeds():
    found = find(records(**(AS_PAPER | {ANY_ORDER: 98.41})))
    assert found.claims[-1].verdict == "reproduced"
    assert "no further apart than the seeds" in found.claims[-1].reason


def test_orders_take_seeds_and_are_called_what_they_are():
    claim = find(records(seeds=(0,), **AS_PAPER)).claims[-1]
    assert claim.verdict == "not comparable"
    assert claim.claim == "order of the updates within a batch"
    assert "asynchronous" not in claim.paper


def test_errors_stand_beside_those_after_as_many_updates():
    # Snapshots are 10 iterations and 40 updates apart.
    short = [
        replace(
            record,
            events=tuple(
                {**event, "stage_updates": event["stage_updates"] // 2} for event in record.events
            ),
        )
        for record in records(**{"cdni-p0.2": 95.0})
    ]
    found = find([*records(backprop=98.5, **{"cdni-p1": 98.4}), *short])
    rows = {row[0]: row for row in found.tables[0].rows}
    assert rows["cdni-p0.2"][3:] == ("40", "4.99 [4.98, 5.00]", "4.99", "10.00")
    assert rows["cdni-p1"][-1] == "1.59"
    assert rows["backprop"][-1] == "\N{EN DASH}"


def test_long_runs_are_rows_and_a_line_of_their_own():
    found = find(
        [*records(**AS_PAPER), *records(LONG, **{"cdni-p0.2": 98.3, "dni-p0.2": 97.9})],
    )
    assert len(found.tables[0].rows) == 8
    [panel] = found.pictures[0].data["panels"]
    lines = {line["label"]: line for line in panel["lines"]}
    assert lines["cDNI"]["x"] == [0.2, 1.0]
    assert lines["cDNI (as many updates)"]["y"] == pytest.approx([1.69])
    assert [p["title"] for p in found.pictures[1].data["panels"]] == ["DNI", "cDNI"]


def test_time_is_counted_both_ways():
    def timed(record, seconds, updates):
        events = tuple(
            {
                **event,
                "seconds": seconds * event["iteration"],
                "stage_updates": updates * event["iteration"],
            }
            for event in record.events
        )
        return replace(record, events=events)

    base, sparse = records(backprop=98.5), records(**{"cdni-p0.2": 98.0})
    found = find(
        [*(timed(r, 0.01, 4) for r in base), *(timed(r, 0.005, 1) for r in sparse)],
    )
    rows = {row[0]: row for row in found.tables[1].rows}
    assert rows["cdni-p0.2"][2:] == ("5.00", "1.00", "0.50 [0.50, 0.50]", "2.00")


def test_nothing_is_said_of_no_records():
    assert find([]).all_tables() == []
