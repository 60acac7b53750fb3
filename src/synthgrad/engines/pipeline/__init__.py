"""Stages on processes and machines that never wait for a gradient."""

from synthgrad.engines.pipeline.engine import Pipeline
from synthgrad.engines.pipeline.processes.driver import Driver
from synthgrad.engines.pipeline.processes.launch import launch
from synthgrad.engines.pipeline.statistics import Span, Statistics
from synthgrad.engines.pipeline.wire.connect import connect
from synthgrad.engines.pipeline.wire.delayed import Delayed
from synthgrad.engines.pipeline.wire.in_process import in_process
from synthgrad.engines.pipeline.wire.transport import DistributedTransport, Pending, Transport

__all__ = [
    "Delayed",
    "DistributedTransport",
    "Driver",
    "Pending",
    "Pipeline",
    "Span",
    "Statistics",
    "Transport",
    "connect",
    "in_process",
    "launch",
]
