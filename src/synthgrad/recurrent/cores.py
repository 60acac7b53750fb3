"""How each kind of recurrent core is called, so that everything after it knows only one kind."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.errors import ConfigError, RecurrentStateError
from synthgrad.trees import Tree, float_tensors, replace_float_tensors

InitialState = Callable[[int], Tree]


class Calling(ABC):
    """How to call a core, where its state has the batch, and what it starts from.

    Args:
        initial_state: of the user's, from a batch size; None for the core's own.

    Attributes:
        time_axis: of the inputs and outputs; the batch is on the other of the first two.
        batch_axis: of the state's tensors.
    """

    time_axis = 0
    batch_axis = 0

    def __init__(self, initial_state: InitialState | None) -> None:
        self._initial_state = initial_state

    def initial(self, core: nn.Module, batch_size: int) -> Tree:
        """Return the state before the first step."""
        if self._initial_state is not None:
            return self._initial_state(batch_size)
        return self.zeros(core, batch_size)

    @abstractmethod
    def run(self, core: nn.Module, inputs: Tensor, state: Tree) -> tuple[Tensor, Tree]:
        """Return the outputs [time, batch, ...] (or batch first) and the state after them."""

    @abstractmethod
    def zeros(self, core: nn.Module, batch_size: int) -> Tree:
        """Return what the core starts from where the user says nothing."""


class _Layers(Calling):
    """nn.RNN, nn.LSTM, nn.GRU: whole sequences, and states [layers, batch, units]."""

    batch_axis = 1

    def __init__(self, core: nn.RNNBase, initial_state: InitialState | None) -> None:
        super().__init__(initial_state)
        if core.bidirectional:
            raise ConfigError(
                "a bidirectional core reads the sequence from its end as well, so it cannot go "
                "through it in chunks; make it with bidirectional=False"
            )
        self.time_axis = 1 if core.batch_first else 0

    def run(self, core: nn.Module, inputs: Tensor, state: Tree) -> tuple[Tensor, Tree]:
        return core(inputs, state)

    def zeros(self, core: nn.Module, batch_size: int) -> Tree:
        assert isinstance(core, nn.RNNBase)
        like = next(core.parameters())
        units = core.proj_size or core.hidden_size
        h = like.new_zeros(core.num_layers, batch_size, units)
        if not isinstance(core, nn.LSTM):
            return h
        return h, like.new_zeros(core.num_layers, batch_size, core.hidden_size)


class _Unrolled(Calling):
    """A cell, called step by step: (x_t, state) -> (output_t, state)."""

    def run(self, core: nn.Module, inputs: Tensor, state: Tree) -> tuple[Tensor, Tree]:
        outputs = list[Tensor]()
        for x in inputs.unbind(0):
            output, state = self.step(core, x, state)
            outputs.append(output)
        return torch.stack(outputs), state

    @abstractmethod
    def step(self, core: nn.Module, x: Tensor, state: Tree) -> tuple[Tensor, Tree]:
        """Go one step."""


class _TorchCell(_Unrolled):
    """nn.RNNCell, nn.LSTMCell, nn.GRUCell, whose output is (the first tensor of) their state."""

    def step(self, core: nn.Module, x: Tensor, state: Tree) -> tuple[Tensor, Tree]:
        state = core(x, state)
        return (state[0] if isinstance(state, tuple) else state), state

    def zeros(self, core: nn.Module, batch_size: int) -> Tree:
        assert isinstance(core, nn.RNNCellBase)
        h = core.weight_hh.new_zeros(batch_size, core.hidden_size)
        return (h, torch.zeros_like(h)) if isinstance(core, nn.LSTMCell) else h


class _OwnCell(_Unrolled):
    """Any other module."""

    def step(self, core: nn.Module, x: Tensor, state: Tree) -> tuple[Tensor, Tree]:
        returned: Any = core(x, state)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise RecurrentStateError(
                f"{type(core).__name__} must return (output, state), where it returned a "
                f"{type(returned).__name__}"
            )
        output, state = returned
        if not isinstance(output, Tensor):
            raise RecurrentStateError(
                f"the output of {type(core).__name__} must be one tensor [batch, ...], not a "
                f"{type(output).__name__}; what else it makes belongs to its state"
            )
        return output, state

    def zeros(self, core: nn.Module, batch_size: int) -> Tree:
        raise ConfigError(
            f"what {type(core).__name__} starts from is not known: give TruncatedBPTT(..., "
            "initial_state=function), where function(batch_size) returns a state"
        )


def calling(core: nn.Module, initial_state: InitialState | None) -> Calling:
    """Return how to call a core.

    Raises:
        ConfigError: it is bidirectional.
    """
    if isinstance(core, nn.RNNBase):
        return _Layers(core, initial_state)
    if isinstance(core, nn.RNNCellBase):
        return _TorchCell(initial_state)
    return _OwnCell(initial_state)


def detached(state: Tree) -> Tree:
    """Return a state without its graph."""
    return replace_float_tensors(state, [t.detach() for t in float_tensors(state)])
