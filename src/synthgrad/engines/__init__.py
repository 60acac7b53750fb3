"""Engines: who runs the stages, where and when. What they may change is the target delay alone."""

from synthgrad.engines.evaluation import Evaluation
from synthgrad.engines.sequential import Sequential

__all__ = ["Evaluation", "Sequential"]
