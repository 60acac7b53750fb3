"""Engines: who runs the stages, where and when. What they may change is the target delay alone."""

from synthgrad.engines.evaluation import Evaluation
from synthgrad.engines.pipeline import Pipeline
from synthgrad.engines.sequential import Sequential
from synthgrad.engines.wavefront import Wavefront

__all__ = ["Evaluation", "Pipeline", "Sequential", "Wavefront"]
