"""A network as a chain of stages: made of models, cut by hand or by measured time."""

from synthgrad.stage.chain import Chain
from synthgrad.stage.stage import Stage

__all__ = ["Chain", "Stage"]
