"""What every experiment of several networks has in common: records that can be gone on with."""

import json
import re
from functools import partial

import pytest
import torch
from torch.nn import functional as F

import synthgrad as sg
from bench.tiny import tiny_data
from synthgrad.experiments import EXPERIMENTS
from synthgrad.experiments.comparison import Comparison
from synthgrad.experiments.grid import describe
from synthgrad.experiments.unlabeled import options

COMPARISONS = [name for name, e in EXPERIMENTS.items() if isinstance(e, Comparison)]


@pytest.mark.parametrize("name", COMPARISONS)
def test_options_are_the_same_text_in_every_process(name):
    experiment = EXPERIMENTS[name]
    for preset, config in experiment.presets.items():
        for job in experiment.cases(config, preset).values():
            for arm in job.arms:
                text = json.dumps(dict(arm.options), allow_nan=False)
                assert not re.search("0x[0-9a-f]", text), "an address differs in every process"


def test_a_description_leaves_defaults_out_and_calls_functions_by_name():
    assert describe(sg.SyntheticGradient()) == "SyntheticGradient()"
    signal = sg.SyntheticGradient(
        synthesizer=partial(sg.synthesizers.conv, hidden=()), condition=sg.OneHot(3), mix=0.5
    )
    assert describe(signal) == (
        "SyntheticGradient(synthesizer=conv(hidden=()), condition=OneHot(num_classes=3), mix=0.5)"
    )
    assert describe({"a": F.relu}) == "{a: relu}"
    assert describe(partial(torch.add, 1, alpha=2)) == "add(1, alpha=2)"


@pytest.mark.parametrize("rates", [{}, {"mnist-fcn4/rate-x10": 3e-4}])
def test_a_synthesizer_s_rate_is_over_the_tuned_one(rates):
    config = options.OptionsConfig(depths=(4,), width=8, arms=("rate-x10",), batch_size=12)
    [arm] = options.EXPERIMENT.cases(config, "", rates)["mnist-fcn4"].arms
    rate = rates.get("mnist-fcn4/rate-x10", 1e-3)
    assert arm.options["learning_rate"] == rate
    assert arm.options["synthesizer_rate"] == pytest.approx(10 * rate)
    assert "synthesizer_rate_factor" not in arm.options
    groups = arm.build(0, tiny_data()).optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([rate, 10 * rate])
