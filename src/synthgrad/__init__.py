"""synthgrad: train networks whose parts do not wait for backpropagation."""

from synthgrad import diagnostics, engines, errors, metrics, recurrent, synthesizers
from synthgrad.decouple import decouple
from synthgrad.decoupled import DecoupledModel
from synthgrad.signals import (
    Backprop,
    Critic,
    DirectFeedbackAlignment,
    ErrorSignal,
    FeedbackAlignment,
    Kickback,
    LocalLoss,
    NoSignal,
    PredSim,
    SignSymmetric,
    SyntheticGradient,
)
from synthgrad.stage import Chain, Stage
from synthgrad.synthesizers import Features, OneHot
from synthgrad.synthetic_input import SyntheticInput
from synthgrad.validate import Validation, validate

__version__ = "0.1.0"

__all__ = [
    "Backprop",
    "Chain",
    "Critic",
    "DecoupledModel",
    "DirectFeedbackAlignment",
    "ErrorSignal",
    "Features",
    "FeedbackAlignment",
    "Kickback",
    "LocalLoss",
    "NoSignal",
    "OneHot",
    "PredSim",
    "SignSymmetric",
    "Stage",
    "SyntheticGradient",
    "SyntheticInput",
    "Validation",
    "decouple",
    "diagnostics",
    "engines",
    "errors",
    "metrics",
    "recurrent",
    "synthesizers",
    "validate",
]
