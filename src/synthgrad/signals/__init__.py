"""What an interface hands down, one idea a file, all through one contract."""

from synthgrad.signals import heads
from synthgrad.signals.contract import ErrorSignal, Lock, Need, Place
from synthgrad.signals.critic import Critic
from synthgrad.signals.direct_feedback import DirectFeedbackAlignment
from synthgrad.signals.feedback_alignment import FeedbackAlignment
from synthgrad.signals.kickback import Kickback
from synthgrad.signals.limits import Backprop, NoSignal
from synthgrad.signals.local_loss import LocalLoss
from synthgrad.signals.pred_sim import PredSim
from synthgrad.signals.sign_symmetric import SignSymmetric
from synthgrad.signals.synthetic import SyntheticGradient
from synthgrad.signals.units import Units

__all__ = [
    "Backprop",
    "Critic",
    "DirectFeedbackAlignment",
    "ErrorSignal",
    "FeedbackAlignment",
    "Kickback",
    "LocalLoss",
    "Lock",
    "Need",
    "NoSignal",
    "Place",
    "PredSim",
    "SignSymmetric",
    "SyntheticGradient",
    "Units",
    "heads",
]
