from contextlib import closing
from dataclasses import replace

import pytest
import torch
from torch import nn

from synthgrad.bench.clock import Stopwatch
from synthgrad.bench.running.by_wavefront import WavefrontLearner
from synthgrad.bench.running.measure import measure_facts
from synthgrad.bench.running.warmup import warm_up
from synthgrad.data import Dataset, Split
from synthgrad.errors import ConfigError
from synthgrad.experiments import EXPERIMENTS, find_experiment
from synthgrad.experiments.bisong2017 import (
    LABELS,
    PRESETS,
    Bisong2017Config,
    make_arm,
    make_job,
)

CONFIG = Bisong2017Config(batch_size=8, width=32)
EAGER = [name for name in LABELS if name != "backprop-compiled"]
GENERATOR = torch.Generator().manual_seed(0)


def images(num_examples, shape=(1, 28, 28)):
    pixels = torch.randint(0, 256, (num_examples, *shape), generator=GENERATOR)
    labels = torch.arange(num_examples) % 10
    return Split(pixels=pixels.to(torch.uint8), labels=labels)


def dataset(shape=(1, 28, 28)):
    parts = {name: images(16, shape) for name in ("train", "validation", "test")}
    return Dataset(name="noise", num_classes=10, **parts)


DATA = dataset()
X, Y = DATA.train.take(torch.arange(8))


def build(name, config=CONFIG, data=DATA, seed=0):
    return make_arm(name, config).build(seed, data)


def test_it_is_registered():
    experiment = find_experiment("bisong2017")
    assert experiment is EXPERIMENTS["bisong2017"]
    assert set(experiment.presets) == {"smoke", "quick", "full", "paper"}
    assert experiment.arms == tuple(LABELS)
    with pytest.raises(ConfigError, match="bisong2017"):
        find_experiment("bisong2016")


def test_the_network_of_the_paper():
    network = build("backprop", Bisong2017Config()).model
    linears = [m for m in network.modules() if isinstance(m, nn.Linear)]
    sizes = [(linear.in_features, linear.out_features) for linear in linears]
    assert sizes == [(784, 256), (256, 256), (256, 256), (256, 10)]


@pytest.mark.parametrize("name", EAGER)
def test_every_arm_takes_a_step(name):
    learner = build(name)
    losses = [learner.step(X, Y) for _ in range(3)]
    assert torch.stack(losses).isfinite().all()
    assert learner.num_stages == 4


def test_all_arms_start_from_the_same_weights():
    reference = build("backprop").model.state_dict()
    for name in EAGER:
        for key, value in build(name).model.state_dict().items():
            torch.testing.assert_close(value, reference[key], rtol=0, atol=0)
    other = build("backprop", seed=1).model.state_dict()
    assert not torch.equal(other["layer1.1.weight"], reference["layer1.1.weight"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("backprop", 0),
        ("no-signal", 0),
        ("dni-linear", 3 * (256 * 256 + 256)),
        ("dni-mlp", 3 * (256 * 1024 + 1024 * 1024 + 4 * 1024 + 1024 * 256 + 256)),
        ("cdni-linear", 3 * (266 * 256 + 256)),
        ("cdni-mirror", 3 * (266 * 256 + 2 * 256 + 256 * 256 + 256)),
    ],
)
def test_the_synthesizers_of_the_paper(name, expected):
    net = build(name, Bisong2017Config()).decoupled
    parameters = net.synthesizer_parameters() if net else ()
    assert sum(p.numel() for p in parameters) == expected


def test_conditioned_arms_need_labels_and_others_do_not():
    for name, conditioned in (("dni-linear", False), ("cdni-linear", True), ("cdni-mirror", True)):
        signals = [i.signal for i in build(name).decoupled.ordered_interfaces()]
        assert [signal.conditioned_on is not None for signal in signals] == [conditioned] * 3


def test_the_sparse_arm_updates_a_fifth():
    arm = make_arm("cdni-mirror-p02", CONFIG)
    assert arm.update_probability == 0.2
    learner = arm.build(0, DATA)
    counts = []
    for _ in range(100):
        learner.step(X, Y)
        counts.append(learner.num_updated)
    assert 0.6 < sum(counts) / 100 < 1.0
    assert all(make_arm(n, CONFIG).update_probability == 1 for n in LABELS if n != arm.name)


def test_stages_and_synthesizers_share_one_optimizer():
    learner = build("cdni-linear")
    held = {p for group in learner.optimizer.param_groups for p in group["params"]}
    assert held == set(learner.net.parameters())
    assert learner.optimizer.param_groups[0]["lr"] == 1e-3


def test_depth_width_and_data_are_options():
    config = Bisong2017Config(depth=6, width=16, batch_size=8)
    learner = build("cdni-linear", config, dataset((3, 32, 32)))
    assert len(learner.decoupled.interfaces) == 5
    assert learner.model.layer1[1].in_features == 3 * 32 * 32
    assert learner.num_stages == 6
    learner.step(torch.rand(8, 3, 32, 32), Y)


def test_tuned_rates_are_of_their_arms_only():
    job = make_job(CONFIG, "quick", {"cdni-linear": 3e-4})
    rates = {arm.name: arm.options["learning_rate"] for arm in job.arms}
    assert rates.pop("cdni-linear") == 3e-4
    assert set(rates.values()) == {1e-3}
    arm = next(arm for arm in job.arms if arm.name == "cdni-linear")
    assert arm.build(0, DATA).optimizer.param_groups[0]["lr"] == 3e-4


def test_the_schedule_of_the_paper():
    job = make_job(PRESETS["paper"], "paper")
    assert job.plan.iterations == 500_000
    assert job.plan.decay_at == (300_000, 400_000)
    factors = [job.plan.rate_factor(i) for i in (0, 299_999, 300_000, 400_000)]
    assert factors == pytest.approx([1, 1, 0.1, 0.01])
    assert job.config["learning_rate"] == 3e-5


def test_the_published_preset():
    full = PRESETS["full"]
    assert len(full.seeds) == 5
    assert full.iterations == 3_000
    assert full.rounds >= 200
    assert full.arms == tuple(LABELS)


def test_presets_keep_tuning_and_reporting_apart():
    for preset in PRESETS.values():
        assert not set(preset.seeds) & set(preset.tune_seeds)
        assert preset.tune_seeds


def test_records_hold_what_decides_the_numbers_and_nothing_else(tmp_path):
    config = make_job(replace(CONFIG, data_dir=tmp_path), "quick").config
    assert {"dataset", "depth", "width", "batch_size", "learning_rate", "iterations"} <= set(config)
    assert not {"seeds", "arms", "data_dir", "rounds"} & set(config)
    assert make_job(replace(CONFIG, seeds=(5,)), "quick").config == make_job(CONFIG, "q").config


def test_the_costly_arm_can_have_fewer_seeds():
    config = replace(CONFIG, seeds=(0, 1), dni_mlp_seeds=1, arms=("backprop", "dni-mlp"))
    runs = [(arm.name, seed) for arm, seed in make_job(config).runs()]
    assert runs == [("backprop", 0), ("dni-mlp", 0), ("backprop", 1)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 1}, "depth=1"),
        ({"width": 0}, "width=0"),
        ({"decay_at": (1.0,)}, "decay_at"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"dni_mlp_seeds": 0}, "dni_mlp_seeds"),
        ({"seeds": (1000,)}, "tune_seeds"),
    ],
)
def test_values_that_cannot_work(values, message):
    with pytest.raises(ConfigError, match=message):
        Bisong2017Config(**values)


def test_without_a_compiler_the_compiled_arm_says_so(monkeypatch):
    from torch._inductor import config

    arm = make_arm("backprop-compiled", CONFIG)
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        assert arm.missing() == "no C++ compiler"
    monkeypatch.setattr("synthgrad.compiler.sysconfig.get_path", lambda name: "/nowhere")
    with config.patch({"cpp.cxx": ("python3",)}):
        assert "Python.h" in arm.missing()
    assert make_arm("backprop", CONFIG).missing() is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler uses what torch deprecates
def test_the_compiled_arm_trains_as_the_eager_one_does():
    arm = make_arm("backprop-compiled", replace(CONFIG, compile_cache=True))
    if reason := arm.missing():
        pytest.skip(reason)
    compiled, eager = arm.build(0, DATA), build("backprop")
    for _ in range(3):
        torch.testing.assert_close(compiled.step(X, Y), eager.step(X, Y))
    assert compiled.num_updated == 4


WAVEFRONT = Bisong2017Config(batch_size=8, width=16, depth=3, engine="wavefront")


@pytest.mark.parametrize("name", ["no-signal", "cdni-linear", "cdni-mirror-p02"])
def test_a_decoupled_arm_by_the_wavefront(name):
    learner = build(name, WAVEFRONT)
    assert isinstance(learner, WavefrontLearner)
    before = {key: value.clone() for key, value in learner.model.state_dict().items()}
    plain = build(name, replace(WAVEFRONT, engine="loop")).model.state_dict()
    torch.testing.assert_close(list(before.values()), list(plain.values()), rtol=0, atol=0)
    for _ in range(4):
        loss = learner.step(X, Y)
        assert loss.shape == ()
    assert torch.isfinite(loss)
    assert any(not torch.equal(v, before[k]) for k, v in learner.model.state_dict().items())


@pytest.mark.parametrize("name", ["cdni-linear", "cdni-mirror-p02"])
def test_the_wavefront_is_warmed_up_and_goes_on_without_a_trace(name):
    """Both are compared bit for bit: warm_up raises where its state is not restored."""
    warmed, fresh = build(name, WAVEFRONT), build(name, WAVEFRONT)
    facts = warm_up(warmed, (X, Y), Stopwatch(), num_steps=3)
    assert facts["flops_per_iteration"] == loop_facts(name)["flops_per_iteration"]
    assert facts["memory_bytes"] == loop_facts(name)["memory_bytes"] + warmed.carried_bytes
    assert warmed.carried_bytes > 0
    for _ in range(4):
        assert torch.equal(warmed.step(X, Y), fresh.step(X, Y))
    again = build(name, WAVEFRONT)
    again.load_state_dict(warmed.state_dict())
    for _ in range(4):
        assert torch.equal(again.step(X, Y), fresh.step(X, Y))
        assert again.num_updated == fresh.num_updated


def loop_facts(name):
    loop = build(name, replace(WAVEFRONT, engine="loop"))
    loop.step(X, Y)
    return measure_facts(loop, X, Y)


def test_updates_are_counted_where_a_batch_was():
    learner = build("cdni-linear", WAVEFRONT)
    counted = []
    for _ in range(4):
        learner.step(X, Y)
        counted.append(learner.num_updated)
    assert counted == [1, 2, 3, 3]


def test_the_rates_of_stages_and_synthesizers_fall_together():
    learner = build("cdni-linear", WAVEFRONT)
    learner.scale_learning_rates(0.1)
    engine = learner.engine
    rates = [o.param_groups[0]["lr"] for o in (engine.optimizer, engine.synthesizer_optimizer)]
    assert rates == [pytest.approx(1e-4)] * 2


def test_backprop_stays_in_the_loop():
    assert not isinstance(build("backprop", WAVEFRONT), WavefrontLearner)


def test_an_engine_that_would_run_nothing():
    with pytest.raises(ConfigError, match="cdni-linear"):
        Bisong2017Config(engine="wavefront", arms=("backprop", "backprop-compiled"))
    with pytest.raises(ConfigError, match="engine='wavefront'"):
        Bisong2017Config(compile_engine=True)


PIPELINE = Bisong2017Config(batch_size=8, width=16, depth=4, engine="pipeline")


@pytest.mark.distributed
@pytest.mark.parametrize("name", ["cdni-linear", "cdni-mirror-p02"])
def test_a_decoupled_arm_by_the_pipeline(name):
    """It is warmed up without a trace, and goes on from its own state bit for bit."""
    learner, plain = build(name, PIPELINE), build(name, replace(PIPELINE, engine="loop"))
    with closing(learner.driver), torch.random.fork_rng():
        same = {"rtol": 0, "atol": 0}
        torch.testing.assert_close(
            list(learner.model.state_dict().values()),
            list(plain.model.state_dict().values()),
            **same,
        )
        facts = warm_up(learner, (X, Y), Stopwatch(), num_steps=3)
        counted = measure_facts(stepped(plain), X, Y)
        assert facts["flops_per_iteration"] == counted["flops_per_iteration"]
        assert facts["memory_bytes"] is None
        other = build(name, PIPELINE)
        with closing(other.driver):
            for _ in range(4):
                learner.step(X, Y)
                other.step(X, Y)
                assert learner.num_updated == other.num_updated
            learner.scale_learning_rates(0.1)
            other.scale_learning_rates(0.1)
            other.load_state_dict(learner.state_dict())
            learner.step(X, Y)
            other.step(X, Y)
            trained = learner.model.state_dict()
            torch.testing.assert_close(other.model.state_dict(), trained, **same)
            assert torch.isfinite(next(iter(trained.values()))).all()


def stepped(learner):
    learner.step(X, Y)
    return learner


def test_the_pipeline_has_a_stage_for_every_rank():
    with pytest.raises(ConfigError, match="ranks=5"):
        replace(PIPELINE, ranks=5)
    with pytest.raises(ConfigError, match="device='cuda'"):
        replace(PIPELINE, device="cuda")
