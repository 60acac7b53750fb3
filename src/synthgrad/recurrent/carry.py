"""What goes from one chunk of a sequence to the next: the state, and what is still to be fitted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from synthgrad.recurrent.traces import Past
from synthgrad.trees import Tree


@dataclass(frozen=True, kw_only=True, eq=False)
class Carry:
    """The end of one chunk, and so the start of the next.

    Attributes:
        state: of the core, nested as the core returned it, without a graph.
        awaits: [batch] bool: rows for which a synthetic gradient stood in for what comes next, so
            that the next chunk's gradient is its target. None for no row.
        code: the encoded condition that the synthesizer saw, [batch, C], or None.
        past: of a signal with a trace decay: the boundaries before this one, newest first.
    """

    state: Tree
    awaits: Tensor | None = None
    code: Tensor | None = None
    past: tuple[Past, ...] = ()

    def state_dict(self) -> dict[str, Any]:
        """Return it as nested tensors, for a checkpoint; `TruncatedBPTT.load_carry` reads it."""
        return {
            "state": self.state,
            "awaits": self.awaits,
            "code": self.code,
            "past": [past.state_dict() for past in self.past],
        }

    @classmethod
    def from_state_dict(cls, saved: Mapping[str, Any]) -> "Carry":
        """Undo `state_dict`.

        Raises:
            KeyError: something is missing.
        """
        return cls(
            state=saved["state"],
            awaits=saved["awaits"],
            code=saved["code"],
            past=tuple(Past(**past) for past in saved["past"]),
        )
