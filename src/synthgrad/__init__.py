"""synthgrad: train networks whose parts do not wait for backpropagation."""

from synthgrad import diagnostics, engines, metrics, synthesizers
from synthgrad.decouple import DecoupledModel, decouple
from synthgrad.signals import Backprop, ErrorSignal, NoSignal, SyntheticGradient
from synthgrad.stage import Chain, Stage
from synthgrad.synthesizers import OneHot
from synthgrad.validate import Validation, validate

__version__ = "0.1.0"

__all__ = [
    "Backprop",
    "Chain",
    "DecoupledModel",
    "ErrorSignal",
    "NoSignal",
    "OneHot",
    "Stage",
    "SyntheticGradient",
    "Validation",
    "decouple",
    "diagnostics",
    "engines",
    "metrics",
    "synthesizers",
    "validate",
]
