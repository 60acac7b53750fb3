"""Find every problem with a requested cut before training, and tell all of them at once.

The model runs once on example inputs with a marker at each interface. The autograd graph that
this leaves behind shows what no one could see from the module tree: which stage feeds which, where
a skip connection bypasses an interface, and whether the next operation works in place.
"""

import difflib
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from synthgrad.errors import UnsupportedModelError
from synthgrad.interface import inside_checkpoint
from synthgrad.trees import float_tensors, replace_float_tensors

At = str | Sequence[str] | Callable[[str, nn.Module], bool]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One interface as the example inputs showed it.

    Attributes:
        name: dotted name of the module after which it stands.
        examples: the floating-point tensors in that module's output, detached.
        clone: whether the operation after it works in place, so that it must hand up a copy.
    """

    name: str
    examples: tuple[Tensor, ...]
    clone: bool


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What `validate` found.

    Attributes:
        cuts: the interfaces in the order in which a forward pass crosses them.
        problems: one sentence or two each, with the place and the mend; empty if all is well.
        outputs: the floating-point tensors in the model's output, detached.
        stages: of each, bottom first, the names of the modules with parameters that it calls.
    """

    cuts: tuple[Cut, ...] = ()
    problems: tuple[str, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    stages: tuple[tuple[str, ...], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the model can be decoupled there."""
        return not self.problems

    def raise_problems(self) -> None:
        """Raise one error that names every problem; do nothing if there is none.

        Raises:
            UnsupportedModelError: there is a problem.
        """
        if self.problems:
            lines = "\n".join(f"  {n}. {text}" for n, text in enumerate(self.problems, 1))
            raise UnsupportedModelError(f"the model cannot be decoupled as asked:\n{lines}")


def validate(model: nn.Module, at: At, example_inputs: Any) -> Validation:
    """Try a cut on example inputs and report every problem with it.

    The model is left as it was: buffers and the random state are restored, no gradient is made,
    no hook stays.

    Args:
        model: any module.
        at: dotted names of modules, "every" (after each direct child of the outermost
            `nn.Sequential` or `ModuleList` but the last), or a callable (name, module) -> bool.
        example_inputs: a tuple of positional arguments, a dict of keyword arguments, or one
            tensor; at least two examples, so that batch norm works.

    Returns:
        A `Validation`; `decouple` raises its problems.

    Example:
        >>> import synthgrad as sg, torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> sg.validate(model, ["1", "tail"], torch.zeros(2, 4)).problems[0].split(";")[0]
        "there is no module named 'tail'"
    """
    names, problems = resolve(model, at)
    trial = _try(model, names, example_inputs)
    problems += trial.problems
    if names and not trial.problems:
        counts = {name: [c.name for c in trial.crossed].count(name) for name in names}
        problems += [_miscounted(name, n) for name, n in counts.items() if n != 1]
        names = [name for name, n in counts.items() if n == 1]
        if len(names) < len(counts):
            trial = _try(model, names, example_inputs)
        problems += trial.examine_graph()
    outputs = tuple(t.detach() for t in trial.output)
    return Validation(
        cuts=tuple(trial.cuts()),
        problems=tuple(problems),
        outputs=outputs,
        stages=tuple(trial.stages()),
    )


def resolve(model: nn.Module, at: At) -> tuple[list[str], list[str]]:
    """Return the names of the modules that `at` means, and what is wrong with it."""
    modules = dict(model.named_modules())
    if at == "every":
        names = _every(model)
        if names:
            return names, []
        return [], [
            'at="every" found no nn.Sequential or nn.ModuleList with two children or more; '
            "name the modules instead, as in at=['encoder.layer1', 'encoder.layer2']."
        ]
    if callable(at):
        names = [name for name, module in modules.items() if name and at(name, module)]
        return names, ([] if names else ["the callable `at` chose no module of the model."])
    names = [at] if isinstance(at, str) else list(at)
    problems = list[str]()
    if not names:
        problems.append("`at` names no module; give at least one, after which to set an interface.")
    for name in dict.fromkeys(names):
        if name not in modules or not name:
            near = difflib.get_close_matches(name, [n for n in modules if n], n=3, cutoff=0.5)
            hint = (
                f"did you mean {' or '.join(map(repr, near))}?"
                if near
                else (f"its children are {', '.join(repr(n) for n, _ in model.named_children())}.")
            )
            problems.append(f"there is no module named {name!r}; {hint}")
        elif names.count(name) > 1:
            problems.append(f"module {name!r} is named {names.count(name)} times; name it once.")
    return [n for n in dict.fromkeys(names) if n in modules and n], problems


def _every(model: nn.Module) -> list[str]:
    """After each direct child but the last, of the outermost containers."""
    names = list[str]()

    def visit(module: nn.Module, prefix: str) -> None:
        children = list(module.named_children())
        if isinstance(module, (nn.Sequential, nn.ModuleList)) and len(children) > 1:
            names.extend(prefix + child for child, _ in children[:-1])
            return
        for child, inner in children:
            visit(inner, f"{prefix}{child}.")

    visit(model, "")
    return names


@dataclass
class _Crossed:
    """One crossing of an interface in the trial."""

    name: str
    below: list[Tensor]
    above: list[Tensor]
    version: list[int]


@dataclass
class _Trial:
    """The marked forward pass: what crossed where, and the graph between the marks."""

    crossed: list[_Crossed] = field(default_factory=list[_Crossed])
    output: list[Tensor] = field(default_factory=list[Tensor])
    problems: list[str] = field(default_factory=list[str])
    called: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def note(self, name: str) -> Callable[..., None]:
        def call(module: nn.Module, args: Any) -> None:
            self.called.append((len(self.crossed), name))

        return call

    def hook(self, name: str) -> Callable[..., Any]:
        def mark(module: nn.Module, args: Any, output: Any) -> Any:
            del module, args
            leaves = float_tensors(output)
            if not leaves:
                self.problems.append(
                    f"the output of {name!r} is {type(output).__name__} without a floating-point "
                    "tensor; an interface needs an activation to predict a gradient for."
                )
            if inside_checkpoint() or not torch.is_grad_enabled():
                self.problems.append(
                    f"{name!r} is called inside an activation checkpoint (or under no_grad), so "
                    f"an interface after it would run twice; checkpoint the layers within {name!r} "
                    "instead, or name the module that calls checkpoint()."
                )
                return output
            anchor = torch.zeros((), requires_grad=True)
            up = [_Mark.apply(h, anchor, len(self.crossed)) for h in leaves]
            self.crossed.append(_Crossed(name, leaves, up, [h._version for h in up]))
            return replace_float_tensors(output, up)

        return mark

    def cuts(self) -> Iterator[Cut]:
        for crossing in self.crossed:
            yield Cut(
                name=crossing.name,
                examples=tuple(h.detach() for h in crossing.below),
                clone=any(
                    h._version != v for h, v in zip(crossing.above, crossing.version, strict=True)
                ),
            )

    def stages(self) -> Iterator[tuple[str, ...]]:
        for stage in range(len(self.crossed) + 1):
            yield tuple(dict.fromkeys(name for at, name in self.called if at == stage))

    def examine_graph(self) -> list[str]:
        """Walk down from each stage's output; a stage must touch its own lower interface only."""
        problems = list[str]()
        stages = [c.below for c in self.crossed] + [self.output]
        places = [f"after {c.name!r}" for c in self.crossed] + ["at the output"]
        owner = dict[Node, int]()
        for stage, tops in enumerate(stages):
            nodes, marks = _walk(tops)
            for lower in sorted(marks - {stage - 1}):
                problems.append(
                    f"a skip connection bypasses the interface {places[lower + 1]}: what leaves "
                    f"the interface {places[lower]} is used again in the stage that ends "
                    f"{places[stage]}. Set interfaces only where a single path goes up, such as "
                    "after a whole residual block."
                )
            for lower in sorted({owner[n] for n in nodes if n in owner}):
                problems.append(
                    f"a skip connection bypasses the interface {places[lower]}: an activation "
                    f"from inside the stage below it is used in the stage that ends "
                    f"{places[stage]}. Set interfaces only where a single path goes up, or return "
                    "that activation from the module too, as part of a tuple."
                )
            owner.update(dict.fromkeys(nodes, stage))
            if not tops:
                problems.append(
                    "the model's output has no floating-point tensor in it; tuples, lists and "
                    "dicts are searched, so return one of these, or a tensor."
                )
            elif stage and not nodes:
                problems.append(
                    f"nothing with a gradient stands between the interface {places[stage - 1]} and "
                    f"{places[stage]}: set interfaces below the last layer, and where what goes up "
                    "is used with a gradient (not detached)."
                )
            elif stage and stage - 1 not in marks:
                problems.append(
                    f"what goes up through the interface {places[stage - 1]} does not reach the "
                    f"stage that ends {places[stage]} with a gradient, so its synthesizer would "
                    "never be fitted: it is detached, or not used there."
                )
        return problems


def _miscounted(name: str, count: int) -> str:
    mend = (
        "Set the interface after a module that wraps the repetition."
        if count
        else "Is it behind a condition, or replaced by a functional call?"
    )
    return (
        f"module {name!r} is called {count} times in one forward pass; an interface needs exactly "
        f"one crossing. {mend}"
    )


def _walk(tops: Sequence[Tensor]) -> tuple[set[Node], set[int]]:
    """Return the graph's inner nodes below `tops`, and the marks reached, without entering them."""
    nodes, marks = set[Node](), set[int]()
    pending = [t.grad_fn for t in tops]
    while pending:
        node = pending.pop()
        # Meeting the same leaf from two stages is weight sharing, which is allowed.
        if node is None or node in nodes or type(node).__name__ == "AccumulateGrad":
            continue
        mark: int | None = getattr(node, "synthgrad_mark", None)
        if mark is not None:
            marks.add(mark)
            continue
        nodes.add(node)
        pending += [following for following, _ in node.next_functions]
    return nodes, marks


class _Mark(torch.autograd.Function):
    """An identity that leaves a numbered node in the graph."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, anchor: Tensor, number: int) -> Tensor:
        ctx.synthgrad_mark = number
        return h.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None, None


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """Call a model with example inputs: a tuple, a dict of keywords, or one argument."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _try(model: nn.Module, names: list[str], example_inputs: Any) -> _Trial:
    """Run the model once in training mode, with a mark after each of the named modules."""
    trial = _Trial()
    modules = dict(model.named_modules())
    handles = [modules[n].register_forward_hook(trial.hook(n)) for n in names]
    for name, module in modules.items():
        if any(True for _ in module.parameters(recurse=False)):
            handles.append(module.register_forward_pre_hook(trial.note(name)))
    try:
        with restored(model), torch.enable_grad():
            if not model.training:
                model.train()
            trial.output = float_tensors(call(model, example_inputs))
    except Exception as error:  # whatever the user's forward raises is a finding, not a crash
        trial.problems.append(
            f"the forward pass on the example inputs failed: {type(error).__name__}: {error}"
        )
    finally:
        for handle in handles:
            handle.remove()
    return trial


# The stance and the random state are the process's: two threads that take turns at random, such as
# ranks that build their chains, would put back each other's.
_ALONE = threading.RLock()


@contextmanager
def restored(model: nn.Module) -> Generator[None]:
    """Put a model's buffers and training flags, and torch's random state, back at the end.

    Compiled modules run uncompiled meanwhile: the examples have not the shapes of the batches to
    come.
    """
    modes = [(m, m.training) for m in model.modules()]
    buffers = [
        (m, name, buffer, buffer.detach().clone())
        for m in model.modules()
        for name, buffer in m.named_buffers(recurse=False)
    ]
    devices = {t.device for t in [*model.parameters(), *model.buffers()] if t.is_cuda}
    compiled = "torch._dynamo" in sys.modules
    with (
        _ALONE,
        torch.random.fork_rng(devices=sorted(d.index or 0 for d in devices)),
        torch.compiler.set_stance("force_eager") if compiled else nullcontext(),
    ):
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for module, name, buffer, saved in buffers:
                with torch.no_grad():
                    buffer.copy_(saved)
                setattr(module, name, buffer)  # a forward pass may have put another one there
