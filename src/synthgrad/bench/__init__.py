"""The measuring protocol: seeds, clock, records, scoring, and the tables and pages made of them."""

from synthgrad.bench.arm import ArmSummary, GoalSummary
from synthgrad.bench.claims import Claim
from synthgrad.bench.clock import Stopwatch
from synthgrad.bench.record import Problem, RecordWriter, RunRecord, read_records
from synthgrad.bench.seeds import derive_seed, generator
from synthgrad.bench.summary import summarize

__all__ = [
    "ArmSummary",
    "Claim",
    "GoalSummary",
    "Problem",
    "RecordWriter",
    "RunRecord",
    "Stopwatch",
    "derive_seed",
    "generator",
    "read_records",
    "summarize",
]
