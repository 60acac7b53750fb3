"""What a cut in time and a message between two clocks have in common: a target that comes later.

A synthesizer is asked when what it predicts has not happened yet, and fitted when it has, with its
weights of that moment.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from synthgrad.errors import ConfigError, InterfaceError
from synthgrad.signals import ErrorSignal, Need, NoSignal, Units


class PredictsAhead(nn.Module):
    """A module with a synthesizer whose targets come in a later pass.

    Attributes:
        signal: as given.
        mean: whether the loss is a mean over the batch, or a sum.
        num_fits: targets that the synthesizer has been fitted to.
        synthesizer: None for `NoSignal`.
    """

    synthesizer: nn.Module | None

    def __init__(self, signal: ErrorSignal, *, mean: bool) -> None:
        super().__init__()
        self.signal = signal
        self.mean = mean
        self.num_fits = 0

    @property
    def predicts(self) -> bool:
        """Whether there is a synthesizer, and this is training."""
        return self.synthesizer is not None and self.training and torch.is_grad_enabled()

    def synthesizer_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters of the synthesizer, for an optimizer."""
        return iter(()) if self.synthesizer is None else self.synthesizer.parameters()

    def stage_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over all other parameters."""
        fitted = set(self.synthesizer_parameters())
        return (p for p in self.parameters() if p not in fitted)

    def predict(self, rows: Tensor, code: Tensor | None, *, of: str) -> Tensor:
        """Evaluate the synthesizer.

        Args:
            rows: what it sees, [rows, size].
            code: the encoded condition, [rows, C], or None.
            of: what the rows are, for the message.

        Raises:
            InterfaceError: it predicts another shape.
        """
        assert self.synthesizer is not None
        prediction = self.signal.predict(self.synthesizer, rows, code)
        if prediction.shape != rows.shape:
            raise InterfaceError(
                f"the synthesizer predicts shape {tuple(prediction.shape)} for {of} of shape "
                f"{tuple(rows.shape)}; a gradient has the shape of what it is the gradient of"
            )
        return prediction

    def on_target(self, target: Tensor, units: Units) -> None:
        """Take note of a target, in the units of the loss, that a prediction is fitted to."""
        self.num_fits += 1
        if self.signal.observes_target:
            assert self.synthesizer is not None
            self.signal.observe(self.synthesizer, target, units)

    def get_extra_state(self) -> Tensor:
        """Return the number of fits, which decides when `fit_first` is over."""
        return torch.tensor(self.num_fits)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of fits."""
        self.num_fits = int(state)


def check_ahead(signal: ErrorSignal, stead: str) -> None:
    """Refuse a signal that needs what is not there yet.

    Args:
        signal: to be used ahead of its target.
        stead: what it would stand in for, and why that is not there; ends before "use".

    Raises:
        ConfigError: it does.
    """
    if isinstance(signal, NoSignal):
        return
    if not signal.fits_target or signal.needs is not Need.NOTHING:
        raise ConfigError(
            f"{type(signal).__name__} cannot stand in for {stead} use sg.SyntheticGradient with "
            "mix=0, or sg.NoSignal"
        )
