"""Recurrent networks: chunks of a long sequence, with a synthetic gradient at the cuts in time."""

from synthgrad.recurrent.auxiliary import Auxiliary
from synthgrad.recurrent.carry import Carry
from synthgrad.recurrent.chunks import Chunk
from synthgrad.recurrent.truncated import TruncatedBPTT

__all__ = ["Auxiliary", "Carry", "Chunk", "TruncatedBPTT"]
