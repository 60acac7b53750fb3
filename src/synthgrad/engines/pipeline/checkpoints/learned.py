"""What a rank has learned, as a state and as the entries of a checkpoint.

Entries are named by stage, and no number of ranks is part of a name.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from synthgrad.engines.pipeline.own_input import OwnInput
from synthgrad.engines.pipeline.own_stages import OwnStages
from synthgrad.engines.pipeline.wire.message import put_together, take_apart

_SPEC = "spec"


class Learned:
    """What a rank has learned.

    Args:
        stages: with their optimizers.
        own_input: the model of what comes up, if there is one.
    """

    def __init__(self, stages: OwnStages, own_input: OwnInput | None) -> None:
        self.stages = stages
        self.own_input = own_input

    @property
    def optimizers(self) -> list[Optimizer]:
        """Those of the stages, those of their synthesizers, and that of the own input."""
        made = [*self.stages.optimizers.values(), *self.stages.synthesizer_optimizers.values()]
        if self.own_input is not None:
            made.append(self.own_input.optimizer)
        return [optimizer for optimizer in made if optimizer is not None]

    def state(self) -> dict[int, dict[str, Any]]:
        """Return the state of each stage."""
        found: dict[int, dict[str, Any]] = {
            s: {"stage": stage.state_dict()} | self.stages.state(s)
            for s, stage in self.stages.stages.items()
        }
        if self.own_input is not None:
            found[self.stages.numbers[0]]["input"] = self.own_input.state()
        return found

    def load_state(self, states: Mapping[int, Mapping[str, Any]]) -> None:
        """Continue from such a state; others' stages may be in it too."""
        for s, stage in self.stages.stages.items():
            stage.load_state_dict(states[s]["stage"])
            self.stages.load_state(s, states[s])
        if self.own_input is not None:
            self.own_input.load_state(states[self.stages.numbers[0]]["input"])

    def entries(self) -> dict[str, Tensor]:
        """Return copies of all, named by stage."""
        found = dict[str, Tensor]()
        for s, state in self.state().items():
            modules = state.pop("stage")
            found |= {f"stages.{s}.{k}": v.detach().clone() for k, v in modules.items()}
            for kind, rest in state.items():
                found |= to_entries(f"{kind}.{s}", rest)
        return found

    def is_own(self, name: str) -> bool:
        """Return whether an entry belongs to one of these stages."""
        kind, _, rest = name.partition(".")
        stage = rest.partition(".")[0]
        is_kind = kind in ("stages", "optimizers") or (kind == "input" and self.own_input)
        return bool(is_kind) and stage.isdecimal() and int(stage) in self.stages.numbers

    def from_entries(self, entries: Mapping[str, Tensor]) -> dict[int, dict[str, Any]]:
        """Return the state that such entries hold.

        Raises:
            KeyError: an entry is missing.
        """
        found = dict[int, dict[str, Any]]()
        for s in self.stages.numbers:
            prefix = f"stages.{s}."
            modules = {
                k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)
            }
            found[s] = {"stage": modules, "optimizers": from_entries(f"optimizers.{s}", entries)}
        if self.own_input is not None:
            bottom = self.stages.numbers[0]
            found[bottom]["input"] = from_entries(f"input.{bottom}", entries)
        return found


def to_entries(name: str, state: Any) -> dict[str, Tensor]:
    """Return a tree of tensors, numbers and texts as named tensors, copied to the CPU.

    Example:
        >>> sorted(to_entries("a", {"x": torch.zeros(2), "y": 3}))
        ['a.0', 'a.spec']
    """
    spec, tensors = take_apart(state)
    text = torch.frombuffer(bytearray(json.dumps(spec).encode()), dtype=torch.uint8)
    entries = {f"{name}.{k}": t.detach().clone().cpu() for k, t in enumerate(tensors)}
    return {f"{name}.{_SPEC}": text} | entries


def from_entries(name: str, entries: Mapping[str, Tensor]) -> Any:
    """Return the tree that `to_entries` made entries of.

    Raises:
        KeyError: an entry is missing.
    """
    spec = json.loads(bytes(entries[f"{name}.{_SPEC}"].tolist()))
    count = sum(1 for key in entries if key.rpartition(".")[0] == name) - 1
    return put_together(spec, [entries[f"{name}.{k}"] for k in range(count)])
