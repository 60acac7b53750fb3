"""Which layers of which stages run as one: equal layers at equal places are stacked.

Stages that work at the same time are independent, so what they have in common can be one batched
kernel. The layers of all stages are lined up by place; at each place those with the same structure
and the same input shape form a *bundle*, whose parameters are stacked along a new first axis. An
odd-shaped first layer, or a classifier that only the last stage has, is a bundle of one.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from synthgrad.engines.wavefront.linear import for_stacking
from synthgrad.errors import UnsupportedModelError

State = dict[str, Tensor]


@dataclass(frozen=True)
class Bundle:
    """Equal layers of several stages (or a layer of one), run by one call.

    Attributes:
        slots: the stages, in rising order.
        template: the layer's structure; its own weights are not used.
        key: prefix of the bundle's entries in the stacked state.
        names: of parameters and buffers within the layer.
        buffers: which of them are buffers.
    """

    slots: tuple[int, ...]
    template: nn.Module
    key: str
    names: tuple[str, ...]
    buffers: tuple[str, ...]

    def run(self, state: State, *inputs: Tensor | None) -> tuple[Tensor, State]:
        """Return the outputs, and the buffers as they are afterwards.

        Args:
            state: the stacked state of everything.
            *inputs: [stages, batch, ...], or [batch, ...] in a bundle of one; or None.
        """
        own = {name: state[f"{self.key}{name}"] for name in self.names}
        given = [t for t in inputs if t is not None]  # vmap takes tensors alone
        absent = (None,) * (len(inputs) - len(given))

        def one(own: State, *given: Tensor) -> tuple[Tensor, State]:
            # Batch norm writes to its buffers; a copy keeps that inside this call.
            own = {k: v.clone() if k in self.buffers else v for k, v in own.items()}
            output = functional_call(self.template, own, (*given, *absent))
            return output, {k: own[k] for k in self.buffers}

        run = one if len(self.slots) == 1 else vmap(one, randomness="different")
        output, buffers = run(own, *given)
        return output, {f"{self.key}{name}": value for name, value in buffers.items()}


def stacked(modules: Sequence[nn.Module], slots: Sequence[int], key: str, state: State) -> Bundle:
    """Stack equal modules' parameters and buffers into `state`, and make the modules views of it.

    After that, the modules keep showing the trained values under their own names: evaluation,
    checkpoints and the user's model need no copying back.
    """
    names = tuple(name for name, _ in _tensors(modules[0]))
    columns = [dict(_tensors(module)) for module in modules]
    for name in names:
        own = [column[name] for column in columns]
        if len(modules) == 1:
            state[key + name] = own[0].detach()
            continue
        joint = torch.stack([t.detach() for t in own])
        state[key + name] = joint
        for tensor, view in zip(own, joint.unbind(), strict=True):
            tensor.data = view
    template = copy.deepcopy(modules[0])
    if len(modules) > 1:
        template = for_stacking(template)
    buffers = tuple(name for name, _ in template.named_buffers())
    return Bundle(tuple(slots), template.to("meta"), key, names, buffers)


def _tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


@dataclass
class Streams:
    """Activations on their way up: tensors that belong to one stage, or to several stacked."""

    parts: list[tuple[tuple[int, ...], Tensor]] = field(
        default_factory=list[tuple[tuple[int, ...], Tensor]]
    )

    def take(self, slots: tuple[int, ...]) -> Tensor:
        """Return the activations of some stages, stacked (or plain for one), copying if need be."""
        pieces = list[Tensor]()
        rest = slots
        while rest:
            own, tensor = next(part for part in self.parts if rest[0] in part[0])
            begin = own.index(rest[0])
            count = 1
            while own[begin + count : begin + count + 1] == rest[count : count + 1] != ():
                count += 1
            if len(own) == 1:
                piece = tensor.unsqueeze(0)
            else:
                piece = tensor if count == len(own) else tensor[begin : begin + count]
            if count == len(slots):
                return piece[0] if count == 1 else piece
            pieces.append(piece)
            rest = rest[count:]
        return torch.cat(pieces)

    def after(self, moved: list[tuple[tuple[int, ...], Tensor]]) -> "Streams":
        """Return what there is when some stages have moved on; the others stay where they are."""
        done = {slot for slots, _ in moved for slot in slots}
        parts = list(moved)
        for own, tensor in self.parts:
            left = tuple(slot for slot in own if slot not in done)
            if left == own:
                parts.append((own, tensor))
            elif left:
                parts.append((left, Streams([(own, tensor)]).take(left)))
        return Streams(parts)


def flatten(module: nn.Module) -> list[nn.Module]:
    """Return the layers that a module runs one after the other; itself, if it is no Sequential."""
    if type(module) is nn.Sequential and not _has_hooks(module):
        return [layer for child in module for layer in flatten(child)]
    return [module]


_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"training"}


def _has_hooks(module: nn.Module) -> bool:
    return any(
        (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
    )


def signature(module: nn.Module) -> tuple[Any, ...]:
    """Return what two modules must have in common to run as one."""
    if _has_hooks(module):
        raise UnsupportedModelError(
            f"{type(module).__name__} has hooks, which a stacked layer would not call: remove them "
            "(a decoupled model: net.recouple()), or use engines.Sequential."
        )
    plain = {
        k: id(v) if isinstance(v, Tensor) else v
        for k, v in vars(module).items()
        if k not in _OF_EVERY_MODULE and not isinstance(v, nn.Module)
    }
    own = [
        (name, tuple(t.shape), t.dtype, t.device, t.requires_grad)
        for name, t in [*module._parameters.items(), *module._buffers.items()]
        if t is not None
    ]
    children = [(name, signature(child)) for name, child in module.named_children()]
    return (type(module), repr(sorted(plain.items(), key=lambda kv: kv[0])), own, children)


def group(keys: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return the indices of equal keys together, in order of first appearance; None is left out."""
    groups = list[tuple[Any, list[int]]]()
    for index, key in enumerate(keys):
        if key is None:
            continue
        for other, members in groups:
            if other == key:
                members.append(index)
                break
        else:
            groups.append((key, [index]))
    return [tuple(members) for _, members in groups]
