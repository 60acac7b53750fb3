"""The suite must notice when the source is broken: each mutation below has to turn it red.

A mutation is made in a temporary copy of the package, and a small part of the equivalence tests
runs on it in a process of its own.
"""

import contextlib
import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "src" / "synthgrad"
SUBSET = [
    str(TESTS / "equivalence" / f"test_{name}.py")
    for name in (
        "oracle",
        "by_hand",
        "skipping",
        "wrappers",
        "sequential_engine",
        "feedback_by_hand",
    )
] + [
    str(TESTS / "signals" / "test_local_loss.py"),
    str(TESTS / "signals" / "test_critic.py"),
    str(TESTS / "test_synthetic_input.py"),
]
CHOSEN = (
    "Mlp or InPlaceView or fit_first or loss_scale or held or skipped_stage_runs or one_by_one "
    "or plain_formulas"
)
MUTATIONS = {
    "what starts from the anchor is not reached": (
        "interface/anchor.py",
        "return gradients[0], ctx.start(), None, None",
        "return gradients[0], None, None, None",
    ),
    "a layer with another transpose hands down the true gradient too": (
        "feedback.py",
        "return (x.detach(), *others)",
        "return (x, *others)",
    ),
    "errors go down through the weights, not their signs": (
        "signals/sign_symmetric.py",
        "weight.sign() * magnitude",
        "weight * magnitude",
    ),
    "feedback weights have another range": (
        "signals/transposes.py",
        "return init_bound(weight) / math.sqrt(3)",
        "return init_bound(weight)",
    ),
    "the output error has the wrong sign": (
        "interface/anchor.py",
        "ctx.error.arrive(gradients[0])",
        "ctx.error.arrive(-gradients[0])",
    ),
    "Kickback gives all units the same component": (
        "signals/kickback.py",
        "% errors.shape[1]",
        "* 0",
    ),
    "Kickback assigns errors at the top too": (
        "interface/interface.py",
        "return self.index == len(self.step.updated) - 2",
        "return False",
    ),
    "a local loss lets the true gradient through": (
        "interface/interface.py",
        "[h.detach() for h in float_tensors(output)]",
        "float_tensors(output)",
    ),
    "a local loss forgets 1/B": ("signals/local_loss.py", " * units.factor", ""),
    "a critic's fit leaks into the stage below": (
        "signals/critic.py",
        "leaf = h.detach().requires_grad_()",
        "leaf = h if h.requires_grad else h.detach().requires_grad_()",
    ),
    "a critic forgets its scale": (
        "signals/critic.py",
        "prediction * (units.factor * self.scale)",
        "prediction * units.factor",
    ),
    "a critic's loss is not fitted": (
        "decoupled.py",
        "            interface.learn(loss)\n",
        "            pass\n",
    ),
    "a synthetic input's loss leaks into the stage below": (
        "signals/units.py",
        "prediction.to(wide) - target.detach().to(wide)",
        "prediction.to(wide) - target.to(wide)",
    ),
    "the true activation goes up": (
        "interface/exchange.py",
        "return prediction.clone() if copy else prediction.view_as(prediction)",
        "return activation.clone() if copy else activation.view_as(activation)",
    ),
    "an engine loses its targets": (
        "engines/work.py",
        "self.input_gradients = [h.grad for h in self.inputs]",
        "self.input_gradients = [None for _ in self.inputs]",
    ),
    "the fit goes uphill": (
        "signals/contract.py",
        "alpha=step / units.weight",
        "alpha=-step / units.weight",
    ),
    "the fit forgets the 2 of a square": (
        "signals/contract.py",
        "step = 2 / max(",
        "step = 1 / max(",
    ),
    "the fit forgets the loss scale": (
        "signals/contract.py",
        "prediction.to(wide) * (step * units.loss_scale)",
        "prediction.to(wide) * step",
    ),
    "1/B is forgotten": (
        "signals/units.py",
        "1 / max(batch_size, 1) if mean else 1.0",
        "1.0",
    ),
    "the true gradient is emitted": (
        "signals/synthetic.py",
        "if self.mix == 1.0:",
        "if target is not None:",
    ),
    "the scale is forgotten": ("signals/synthetic.py", "units.factor * self.scale", "units.factor"),
    "the signal comes one fit late": (
        "signals/synthetic.py",
        "num_fits >= self.fit_first",
        "num_fits > self.fit_first",
    ),
    "the last layer does not start at zero": (
        "synthesizers/dense.py",
        "self.last = zero_(nn.Linear(widths[-1], features))",
        "self.last = nn.Linear(widths[-1], features)",
    ),
    "the regression loss leaks into the stage below": (
        "interface/crossing.py",
        "signal.predict(module, h.detach(), code)",
        "signal.predict(module, h, code)",
    ),
    "a skipped stage keeps its graph": (
        "interface/hook.py",
        "torch.set_grad_enabled(interface.updates_above)",
        "torch.set_grad_enabled(True)",
    ),
    "a stage below a skipped one is not reached": (
        "decoupled.py",
        "self._new_anchor() if alone or self._anchored else None",
        "None",
    ),
    "what was released is reached again": (
        "interface/substitute.py",
        "leaves = [h.detach() for h in leaves]",
        "leaves = list(leaves)",
    ),
    "an operation in place destroys the activation": (
        "interface/substitute.py",
        "h.clone() if crossing.interface.clone else h.view_as(h)",
        "h.view_as(h)",
    ),
    "the draw changes within an accumulation": (
        "decoupled.py",
        "divmod(self.num_forwards, self.accumulate)",
        "divmod(self.num_forwards, 1)",
    ),
}


def run_subset(copy, log):
    """In a child process: the chosen tests on the package in `copy`; exits with pytest's code."""
    sys.path.insert(0, str(copy))
    with open(log, "w") as file, contextlib.redirect_stdout(file):
        import synthgrad

        assert Path(synthgrad.__file__).is_relative_to(copy)
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *SUBSET, "-k", CHOSEN])
    os._exit(code)


def exit_code_with(tmp_path, mutation=None):
    copy = tmp_path / "copy"
    shutil.copytree(
        PACKAGE, copy / "synthgrad", ignore=shutil.ignore_patterns("__pycache__", "*.xz")
    )
    if mutation is not None:
        name, old, new = mutation
        file = copy / "synthgrad" / name
        source = file.read_text()
        assert source.count(old) == 1, f"{name} has changed; bring the mutation up to date"
        file.write_text(source.replace(old, new))
    # A server that has torch loaded already, and synthgrad not: children start in no time.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo", "pytest"])
    log = tmp_path / "log"
    child = context.Process(target=run_subset, args=(copy, log))
    child.start()
    child.join(60)
    if child.is_alive():
        child.kill()
        child.join()
    return child.exitcode, log.read_text()


def test_without_a_mutation_the_subset_is_green(tmp_path):
    code, log = exit_code_with(tmp_path)
    assert code == pytest.ExitCode.OK, log


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_a_mutation_turns_the_suite_red(mutation, tmp_path):
    code, log = exit_code_with(tmp_path, mutation)
    assert code == pytest.ExitCode.TESTS_FAILED, log
