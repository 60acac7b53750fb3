"""The interface: what stands between two stages, and what it has learned.

How activations cross it is told by `hook.py`; an engine runs each stage apart and needs no hook.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from synthgrad.errors import ConditionError, InterfaceError
from synthgrad.interface.anchor import Attach
from synthgrad.interface.step import Step
from synthgrad.signals import ErrorSignal, Units
from synthgrad.trees import Tree, float_tensors, replace_float_tensors


class Interface(nn.Module):
    """The place between two stages: activations go up through it, an error signal goes down.

    It is made by `decouple` and by `Chain`; one signal object serves all interfaces of a model, and
    what each of them has learned lies here.

    Args:
        name: dotted name of the module after which it stands.
        index: its place from the bottom; stage `index` is below it, stage `index + 1` above.
        signal: what it hands down.
        synthesizers: what the signal's `build` made, one a floating-point tensor in the module's
            output; the heads of a local signal; empty if the signal has neither.
        step: shared by the interfaces of one model.
        mean: whether the loss is a mean over examples (else a sum).
        clone: hand up a copy, because the next operation works in place.
        release: run the stage below's backward during forward.
        synthetic_inputs: the models that predict what goes up from the network's input, one a
            floating-point tensor; empty where the true activation goes up.
        below: the modules with parameters that the stage below calls.
    """

    def __init__(
        self,
        name: str,
        index: int,
        signal: ErrorSignal,
        synthesizers: Iterable[nn.Module],
        step: Step,
        *,
        mean: bool,
        clone: bool,
        release: bool,
        synthetic_inputs: Iterable[nn.Module] = (),
        below: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.name = name
        self.index = index
        self.signal = signal
        self.synthesizers = nn.ModuleList(synthesizers)
        self.synthetic_inputs = nn.ModuleList(synthetic_inputs)
        self.below = tuple(below)  # a tuple, so that they are no children
        self.step = step
        self.mean = mean
        self.clone = clone
        self.release = release
        self.num_fits = 0
        num_tensors = max(len(self.synthesizers), len(self.synthetic_inputs))
        self.measures: list[dict[str, Tensor]] = [{} for _ in range(num_tensors)]

    @property
    def is_local(self) -> bool:
        """Whether all that trains the stage below is at hand here, so that nothing comes down."""
        return self.signal.is_local or self.signal.fits_loss

    @property
    def hangs_on_anchor(self) -> bool:
        """Whether something that is its own is reached by way of the anchor: a loss, a signal."""
        own = self.is_local or self.signal.needs_output_error or len(self.synthetic_inputs) > 0
        return own and not self.release

    @property
    def is_topmost(self) -> bool:
        """Whether the stage above ends in the model's output."""
        return self.index == len(self.step.updated) - 2

    @property
    def updates_below(self) -> bool:
        """Whether this step updates the stage below."""
        return self.step.updates(self.index)

    @property
    def updates_above(self) -> bool:
        """Whether this step updates the stage above."""
        return self.step.updates(self.index + 1)

    def get_extra_state(self) -> Tensor:
        """Return the number of fits, which decides when `fit_first` is over."""
        return torch.tensor(self.num_fits)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of fits."""
        self.num_fits = int(state)

    def leaves(self, output: Tree, modules: nn.ModuleList) -> list[Tensor]:
        """Return the floating-point tensors in an output, one for each of the modules.

        Raises:
            InterfaceError: their number is another.
        """
        leaves = float_tensors(output)
        if len(leaves) != len(modules):
            raise InterfaceError(
                f"the output at interface {self.name!r} holds {len(leaves)} floating-point "
                f"tensors; with the example inputs it held {len(modules)}."
            )
        return leaves

    def hand_up(self, output: Tree, leaves: list[Tensor]) -> Tree:
        """Return an output with other tensors in it, safe from what the next operation does."""
        return replace_float_tensors(output, [h.clone() for h in leaves] if self.clone else leaves)

    def detached(self, output: Tree) -> Tree:
        """Return an output through which no gradient comes down."""
        return self.hand_up(output, [h.detach() for h in float_tensors(output)])

    def units(self, h: Tensor) -> Units:
        """Return the units of an activation's batch in this step."""
        return self.units_of(h.shape[0] if h.dim() else 1)

    def units_of(self, count: int) -> Units:
        """Return the units of so many examples, or labels, in this step."""
        return Units.of(count, mean=self.mean, loss_scale=self.step.loss_scale)

    def code(self, h: Tensor) -> Tensor | None:
        """Return the encoded condition for an activation, encoded once a step for all interfaces.

        Raises:
            ConditionError: it is missing, or does not suit the activation's batch or the encoder.
        """
        encoder = self.signal.conditioned_on
        if encoder is None:
            return None
        labels = self.step.condition
        if labels is None:
            raise ConditionError(
                f"the signal is conditioned on {encoder}, and the forward pass was given no "
                "condition: call net(x, condition=y)."
            )
        if labels.shape[:1] != h.shape[:1]:
            raise ConditionError(
                f"the condition has shape {tuple(labels.shape)} and the activation "
                f"{tuple(h.shape)}: both need the batch as first axis."
            )
        key = (encoder, h.dtype, h.device)
        if key not in self.step.codes:
            self.step.codes[key] = encoder.encode(labels, h.dtype).to(h.device)
        return self.step.codes[key]

    def learn(self, loss: Tensor) -> None:
        """Run a loss's backward with that of the model, or now where the stage is released."""
        if not loss.requires_grad:  # such as a frozen stage under a head without parameters
            return
        if self.release:
            with torch.autocast(loss.device.type, enabled=False):
                loss.backward()
        else:
            self.attach(loss, partial(torch.ones_like, loss.detach()))

    def attach(self, tensor: Tensor, start: Callable[[], Tensor]) -> None:
        """Have the model's backward start at a tensor as well, with the gradient of `start()`."""
        self.step.anchor = Attach.apply(self.step.anchor, tensor, start, self.name)
