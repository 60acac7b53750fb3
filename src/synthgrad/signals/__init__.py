"""What an interface hands down, one idea a file, all through one contract."""

from synthgrad.signals.contract import ErrorSignal, Lock, Need, Units
from synthgrad.signals.critic import Critic
from synthgrad.signals.limits import Backprop, NoSignal
from synthgrad.signals.local_loss import LocalLoss
from synthgrad.signals.synthetic import SyntheticGradient

__all__ = [
    "Backprop",
    "Critic",
    "ErrorSignal",
    "LocalLoss",
    "Lock",
    "Need",
    "NoSignal",
    "SyntheticGradient",
    "Units",
]
