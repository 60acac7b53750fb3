"""Where stages meet: a hook takes activations up, and in backward a signal goes down.

Read `hook.py` first: it tells by the kind of signal what happens to an activation. Each of these
ways has a file (`substitute.py`, `own_loss.py`, `by_error.py`), and so has what all of them use:
`step.py`, `interface.py`, `crossing.py`, `anchor.py`.
"""

from synthgrad.interface.anchor import lead_to
from synthgrad.interface.critics import critics_losses
from synthgrad.interface.crossing import Crossing
from synthgrad.interface.hook import Hook
from synthgrad.interface.interface import Interface
from synthgrad.interface.measures import measure
from synthgrad.interface.once import inside_checkpoint
from synthgrad.interface.own_loss import local_loss
from synthgrad.interface.reach import check_reach
from synthgrad.interface.step import Step

__all__ = [
    "Crossing",
    "Hook",
    "Interface",
    "Step",
    "check_reach",
    "critics_losses",
    "inside_checkpoint",
    "lead_to",
    "local_loss",
    "measure",
]
