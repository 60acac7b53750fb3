"""The measuring protocol: seeds, clock, records, scoring, and the tables and pages made of them."""

from synthgrad.bench.clock import Stopwatch
from synthgrad.bench.records.record import Problem, RecordWriter, RunRecord, read_records
from synthgrad.bench.scoring.arm_summary import ArmSummary, GoalSummary
from synthgrad.bench.scoring.claims import Claim
from synthgrad.bench.scoring.summary import summarize
from synthgrad.bench.seeds import derive_seed, generator

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
