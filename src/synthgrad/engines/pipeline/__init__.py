"""Stages on processes and machines that never wait for a gradient."""

from synthgrad.engines.pipeline.connect import connect
from synthgrad.engines.pipeline.delayed import Delayed
from synthgrad.engines.pipeline.engine import Pipeline
from synthgrad.engines.pipeline.in_process import in_process
from synthgrad.engines.pipeline.launch import launch
from synthgrad.engines.pipeline.statistics import Span, Statistics
from synthgrad.engines.pipeline.transport import DistributedTransport, Pending, Transport

__all__ = [
    "Delayed",
    "DistributedTransport",
    "Pending",
    "Pipeline",
    "Span",
    "Statistics",
    "Transport",
    "connect",
    "in_process",
    "launch",
]
