"""Planning: what an engine would reach on hardware that you do not have.

A cost model of stages and links, two simulators that agree, and what follows from them: gains,
break-even latencies, sensitivities. It is about time alone; what a network learns from a batch
under a method is measured elsewhere.
"""

from synthgrad.planning.costs import Conditions
from synthgrad.planning.failures import Failures, useful_share
from synthgrad.planning.gains import (
    Case,
    Sensitivity,
    binding_latency,
    break_even_latency,
    sensitivities,
)
from synthgrad.planning.measure import measure_stages
from synthgrad.planning.measurements import Link, Measurements, StageTimes, read_measurements
from synthgrad.planning.schedules import METHODS, Method, Schedule
from synthgrad.planning.simulate import Outcome, plan_method, simulate

__all__ = [
    "METHODS",
    "Case",
    "Conditions",
    "Failures",
    "Link",
    "Measurements",
    "Method",
    "Outcome",
    "Schedule",
    "Sensitivity",
    "StageTimes",
    "binding_latency",
    "break_even_latency",
    "measure_stages",
    "plan_method",
    "read_measurements",
    "sensitivities",
    "simulate",
    "useful_share",
]
