"""Recurrent networks: chunks of a long sequence, with a synthetic gradient at the cuts in time.

And networks on several clocks, with a synthetic gradient for the messages between them.
"""

from synthgrad.recurrent.auxiliary import Auxiliary
from synthgrad.recurrent.carry import Carry
from synthgrad.recurrent.chunks import Chunk
from synthgrad.recurrent.multi_clock import ClockCarry, MultiClock
from synthgrad.recurrent.truncated import TruncatedBPTT

__all__ = ["Auxiliary", "Carry", "Chunk", "ClockCarry", "MultiClock", "TruncatedBPTT"]
