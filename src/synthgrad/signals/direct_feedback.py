"""Direct feedback alignment: the output error, through a fixed random matrix, to every stage."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synthgrad.errors import ConfigError, InterfaceError
from synthgrad.signals.contract import Need, Place
from synthgrad.signals.fixed import fixed_uniform
from synthgrad.signals.output_error import OutputErrorSignal, errors_by_example


class FixedFeedback(nn.Module):
    """A fixed random linear map from the output error to the gradient at an interface.

    Args:
        matrix: [outputs, units], kept as a buffer.
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, error: Tensor) -> Tensor:
        """Return the gradient [batch, units] for an output error [batch, outputs]."""
        return error.to(self.matrix.dtype) @ self.matrix


@dataclass(frozen=True, kw_only=True)
class DirectFeedbackAlignment(OutputErrorSignal):
    """Hand every stage the output error, through a fixed random matrix of its own.

    When to use it: to study learning without a backward chain. All stages can run their backward
    at once as soon as the output error exists, and no stage computes the gradient of its input: 2
    units of work a layer instead of backprop's 3. When not: where the update
    lock matters, since the forward pass must have ended before any stage is updated; and in
    convolutional networks it is reported to learn poorly (recalled; measure yours).

    Math: at an interface with n units a signal is d_b = e_b A, with e_b = dL/d(output_b) [C] the
    output error of example b in the units of the loss, and A [C, n] fixed, drawn uniformly from
    [-s, s] with s = scale / sqrt(n): the range from which `nn.Linear(n, C)` draws the weight that
    A stands in for. The stage below multiplies by its own derivative, so set interfaces after the
    nonlinearity.

    Args:
        seed: of the matrices; each interface has another one.
        scale: factor on them.

    Raises:
        ConfigError: scale is not positive.

    Equals backprop at an interface below a single linear layer when A is that layer's weight.

    Source: Nokland 2016. Which range the matrices are drawn from is our choice.

    Example:
        >>> import synthgrad as sg
        >>> sg.DirectFeedbackAlignment(seed=1).needs.value
        'the output error'
    """

    seed: int = 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ConfigError(
                f"scale={self.scale} must be positive; for no signal at all use sg.NoSignal()."
            )

    @property
    def needs(self) -> Need:
        """The output error."""
        return Need.OUTPUT_ERROR

    def build_at(self, example: Tensor, place: Place) -> nn.Module:
        """Draw the matrix of one place.

        Raises:
            ConfigError: the network's output is not one tensor with the activation's batch axis.
        """
        super().build_at(example, place)
        assert place.output is not None
        units = example[0].numel()
        return FixedFeedback(
            fixed_uniform(
                torch.Size((place.output[0].numel(), units)),
                self.scale * max(units, 1) ** -0.5,
                like=example,
                key=f"direct feedback {self.seed} {place.index} {place.tensor}",
            )
        )

    def project_error(self, module: nn.Module | None, error: Tensor, shape: torch.Size) -> Tensor:
        """Return the error times the matrix, in the activation's shape.

        Raises:
            InterfaceError: the error has not the number of examples or of outputs expected.
        """
        assert isinstance(module, FixedFeedback)
        errors = errors_by_example(error, shape)
        if errors.shape[1] != len(module.matrix):
            raise InterfaceError(
                f"the output has shape {tuple(error.shape)}, which is {errors.shape[1]} values an "
                f"example; with the example inputs it had {len(module.matrix)}, and the feedback "
                "matrix is made for that."
            )
        return module(errors).reshape(shape)
