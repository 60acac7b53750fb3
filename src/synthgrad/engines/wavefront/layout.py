"""A chain laid out for the wavefront: which layers are stacked, and where their numbers live."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from synthgrad.engines.wavefront.bundles import Bundle, State, flatten, group, signature, stacked
from synthgrad.engines.wavefront.optimizers import Rule
from synthgrad.engines.wavefront.plan import Cut, Outcome, Plan
from synthgrad.errors import UnsupportedModelError
from synthgrad.stage import Chain
from synthgrad.synthesizers import DenseSynthesizer
from synthgrad.validate import restored

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]


@dataclass
class Layout:
    """The plan of a tick, and the tensors that it works on.

    Attributes:
        plan: what is fixed.
        state: parameters and buffers by name, stacked; the modules' own are views of them.
        moments: the optimizers' running averages.
        owners: by name, the modules' parameters, a stage each.
        optimizers: a stage each, where no stacked rule equals the user's optimizer.
        synthesizer_optimizers: the same for the synthesizers.
    """

    plan: Plan
    state: State
    moments: dict[str, list[Tensor]]
    owners: dict[str, list[nn.Parameter]]
    optimizers: list[Optimizer | None]
    synthesizer_optimizers: list[Optimizer | None]

    @property
    def all_optimizers(self) -> list[Optimizer | None]:
        """Torch's own optimizers, of the stages and then of the synthesizers."""
        return [*self.optimizers, *self.synthesizer_optimizers]

    def apply(
        self,
        outcome: Outcome,
        updated: Sequence[bool],
        fitted: Sequence[bool],
        rates: Sequence[tuple[float, float]],
    ) -> None:
        """Update by torch's own optimizers what the tick has left to them, a stage at a time.

        Args:
            outcome: of the tick.
            updated: a stage each, whether it is updated.
            fitted: a stage each, whether its synthesizer is.
            rates: a stage each, the learning rates of stage and synthesizer.
        """
        for gradients, optimizers, due, index in (
            (outcome.gradients, self.optimizers, updated, 0),
            (outcome.fit_gradients, self.synthesizer_optimizers, fitted, 1),
        ):
            if not gradients:
                continue
            for name, gradient in gradients.items():
                owners = self.owners[name]
                rows = gradient.unbind() if len(owners) > 1 else (gradient,)
                for parameter, row in zip(owners, rows, strict=True):
                    parameter.grad = row
            try:
                for optimizer, now, rate in zip(optimizers, due, rates, strict=True):
                    # An idle or skipped stage must not move, whatever its optimizer would do.
                    if optimizer is not None and now:
                        optimizer.param_groups[0]["lr"] = rate[index]
                        optimizer.step()
            finally:
                for parameter in (p for name in gradients for p in self.owners[name]):
                    parameter.grad = None


def lay_out(
    chain: Chain,
    inputs: Tensor,
    *,
    loss: Callable[[Any, Tensor], Tensor],
    factories: tuple[Callable[..., Optimizer], Callable[..., Optimizer]],
    optimizers: tuple[Optimizer, Optimizer | None],
    fit_again: bool,
    autocast: torch.dtype | None,
    side_streams: bool,
) -> Layout:
    """Stack what can be stacked; the chain's modules become views of the stacked tensors.

    Args:
        chain: the stages.
        inputs: of the first stage; their shapes decide what can be stacked.
        loss: from (outputs, labels) to a scalar.
        factories: of the stages' and of the synthesizers' optimizers.
        optimizers: one made by each, to read their rules.
        fit_again: whether late fits predict anew.
        autocast: dtype of the forward passes, or None.
        side_streams: whether unequal bundles run on CUDA streams of their own.

    Raises:
        UnsupportedModelError: a stage cannot be run stacked; the message says why.
    """
    layers = [flatten(stage.module) for stage in chain]
    _refuse(chain, layers)
    shapes, ups = _shapes(chain, layers, inputs)
    unused = _unused(chain, inputs)
    state = State()
    slots, owners = dict[str, tuple[int, ...]](), dict[str, list[nn.Parameter]]()
    trained, fitted = list[str](), list[str]()

    def stack(modules: list[nn.Module], at: tuple[int, ...], key: str, names: list[str]) -> Bundle:
        bundle = stacked(modules, at, key, state)
        columns = [dict(module.named_parameters()) for module in modules]
        for name in bundle.names:
            slots[key + name] = at
            first = columns[0].get(name)
            if first is not None and first.requires_grad and first not in unused:
                names.append(key + name)
                owners[key + name] = [column[name] for column in columns]
        return bundle

    places = list[tuple[Bundle, ...]]()
    for place in range(max(map(len, layers))):
        keys = [
            (signature(own[place]), shapes[i][place]) if place < len(own) else None
            for i, own in enumerate(layers)
        ]
        bundles = [
            stack([layers[i][place] for i in at], at, f"layers.{place}.{at[0]}.", trained)
            for at in group(keys)
        ]
        places.append(tuple(bundles))
    cuts = list[Cut]()
    interfaces = [stage.interface for stage in chain if stage.interface is not None]
    kinds = [
        (i.signal, [signature(m) for m in i.synthesizers], up)
        for i, up in zip(interfaces, ups, strict=False)
    ]
    for at in group(kinds):
        synthesizers = [interfaces[i].synthesizers for i in at]
        bundle = None
        if len(synthesizers[0]):
            bundle = stack([m[0] for m in synthesizers], at, f"synthesizers.{at[0]}.", fitted)
        first = synthesizers[0][0] if bundle else None
        is_linear = isinstance(first, DenseSynthesizer) and not len(first.hidden)
        cuts.append(Cut(at, interfaces[at[0]].signal, bundle, is_linear))
    rule, synthesizer_rule = Rule.of(optimizers[0]), optimizers[1] and Rule.of(optimizers[1])
    moments = {
        name: [torch.zeros_like(state[name]) for _ in own.moments()]
        for own, names in ((rule, trained), (synthesizer_rule, fitted))
        if own
        for name in names
    }
    plan = Plan(
        places=tuple(places),
        cuts=tuple(cuts),
        num_stages=len(chain),
        loss=loss,
        mean=chain.mean,
        rule=rule,
        synthesizer_rule=synthesizer_rule,
        fit_again=fit_again,
        trained=tuple(trained),
        fitted=tuple(fitted),
        slots=slots,
        autocast=autocast and (inputs.device.type, autocast),
        streams=tuple(torch.cuda.Stream(inputs.device) for _ in range(max(map(len, places)) - 1))
        if side_streams
        else (),
    )
    by_stage = [stage.stage_parameters() for stage in chain]
    by_interface = [stage.synthesizer_parameters() for stage in chain]
    return Layout(
        plan,
        state,
        moments,
        owners,
        [factories[0](p) if p and not rule else None for p in by_stage],
        [factories[1](p) if p and not synthesizer_rule else None for p in by_interface],
    )


def _refuse(chain: Chain, layers: list[list[nn.Module]]) -> None:
    for index, (stage, own) in enumerate(zip(chain, layers, strict=True)):
        parameters = [p for layer in own for p in layer.parameters()]
        if len(set(parameters)) != len(parameters):
            raise UnsupportedModelError(
                f"stage {index} uses a parameter in two of its layers, which cannot both be rows "
                "of a stack: wrap them in one module that is no nn.Sequential."
            )
        if stage.interface is not None and len(stage.interface.synthesizers) > 1:
            count = len(stage.interface.synthesizers)
            raise UnsupportedModelError(
                f"stage {index} hands up {count} tensors; the wavefront engine takes one. Use "
                "engines.Sequential."
            )


def _shapes(
    chain: Chain, layers: list[list[nn.Module]], inputs: Tensor
) -> tuple[list[list[Any]], list[Any]]:
    """Return, a stage, the shape and dtype before each layer, and what goes up at the end."""
    shapes, ups = list[list[Any]](), list[Any]()
    h: Any = inputs
    with restored(chain), torch.no_grad():
        for index, own in enumerate(layers):
            before = list[Any]()
            for layer in own:
                before.append((h.shape[1:], h.dtype))
                h = layer(h)
                if not isinstance(h, Tensor):
                    raise UnsupportedModelError(
                        f"{type(layer).__name__} in stage {index} returns {type(h).__name__}; the "
                        "wavefront engine takes one tensor. Use engines.Sequential."
                    )
            shapes.append(before)
            ups.append((h.shape[1:], h.dtype))
    return shapes, ups


def _unused(chain: Chain, inputs: Tensor) -> set[nn.Parameter]:
    """Return the parameters that have no gradient, which an optimizer must not even decay."""
    unused = set[nn.Parameter]()
    h = inputs
    with restored(chain), torch.enable_grad():
        for stage in chain:
            out = stage(h.detach())
            own = [p for p in stage.stage_parameters() if p.requires_grad]
            if not out.requires_grad:
                unused.update(own)
            elif own:
                gradients = torch.autograd.grad(out.sum(), own, allow_unused=True)
                found = list[Tensor | None](gradients)
                unused.update(p for p, g in zip(own, found, strict=True) if g is None)
            h = out
    return unused
