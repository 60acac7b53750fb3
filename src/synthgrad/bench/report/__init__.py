"""The report page: one HTML file made of nothing but records, with the figures beside it."""

from synthgrad.bench.report.write import write_report

__all__ = ["write_report"]
