"""Kickback: backpropagation cut off after one stage, with the output error put in there."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synthgrad.signals.contract import Need
from synthgrad.signals.output_error import OutputErrorSignal, errors_by_example


@dataclass(frozen=True, kw_only=True)
class Kickback(OutputErrorSignal):
    """Hand down a stage's influence on the *next* one only, times the output error.

    When to use it: to study truncated credit assignment. Once the output error exists all stages
    can run at once, each through its own weights and those of one stage above. When not: to save
    work. A stage runs its vector-Jacobian product twice, once for its own update and once for the
    signal below, which costs more than backprop on one device. It learns only where the units of
    a layer keep to the sign of the error assigned to them.

    Math: the signal at interface i is d_i = v J, with J = dh_{i+1}/dh_i of the stage above and v
    the output error e = dL/d(output) [C] of each example, assigned to the units of h_{i+1} by
    fixed blocks of ones: unit k takes component k mod C. On feature maps [batch, channels, height,
    width] a unit is a channel, at all its positions; on other activations it is an element of the
    flattened example. At the topmost interface v is e itself, so the signal there is the true
    gradient. For a stage relu(h W^T + b) and C = 1 this is e times sum_k w_kj 1[unit k is active].

    Equals backprop at the topmost interface.

    Source: Balduzzi et al. 2015, for a network with one output and rectified units, which C = 1
    gives exactly. The form for several outputs, by partition of the units, is ours.

    Example:
        >>> import synthgrad as sg
        >>> sg.Kickback().needs.value
        'the output error through the stage above'
    """

    @property
    def needs(self) -> Need:
        """The output error, and the stage above to take it through."""
        return Need.STAGE_ABOVE

    def project_error(self, module: nn.Module | None, error: Tensor, shape: torch.Size) -> Tensor:
        """Return the error assigned to the units of what the stage above hands up.

        Raises:
            InterfaceError: the error has not the number of examples expected.
        """
        del module
        errors = errors_by_example(error, shape)
        is_maps = len(shape) == 4
        num_units = shape[1] if is_maps else shape[1:].numel()
        component = torch.arange(num_units, device=error.device) % errors.shape[1]
        assigned = errors[:, component]
        return assigned[:, :, None, None].expand(shape) if is_maps else assigned.reshape(shape)
