"""What cannot be a chain of stages."""

from collections.abc import Sequence

from torch import Tensor

from synthgrad.errors import ConfigError, UnsupportedModelError
from synthgrad.signals import ErrorSignal
from synthgrad.signals.transposes import TransposeSignal
from synthgrad.stage.stage import Stage


def refuse_shared_parameters(stages: Sequence[Stage]) -> None:
    """Raise an UnsupportedModelError if a parameter belongs to two stages."""
    seen = dict[Tensor, int]()
    for index, stage in enumerate(stages):
        for name, parameter in stage.module.named_parameters():
            if seen.setdefault(parameter, index) != index:
                raise UnsupportedModelError(
                    f"parameter {name!r} of stage {index} is shared with stage {seen[parameter]}: "
                    "stages that run on their own cannot share weights. Put both uses into one "
                    "stage, or train with sg.decouple, where sharing works."
                )


def refuse_signals(signals: Sequence[ErrorSignal]) -> None:
    """Raise a ConfigError for signals that need more than a stage has."""
    for signal in signals:
        if signal.needs_output_error or isinstance(signal, TransposeSignal):
            raise ConfigError(
                f"{signal} cannot work in a chain of stages: an engine runs each stage apart, and "
                "knows neither the output error below the last one nor another way down through a "
                "layer. Train with sg.decouple(model, at=..., signal=...) and an ordinary loop."
            )
