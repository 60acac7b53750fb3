"""Experiments that train arms against each other, on one network and data set or on several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synthgrad.bench.findings import FindingsFunction
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.records.reading import Problem, read_records
from synthgrad.bench.running.job import Job, Outcome
from synthgrad.bench.running.runner import run_job
from synthgrad.bench.scoring.cases import by_case
from synthgrad.bench.scoring.summary import ClaimsFunction, summarize
from synthgrad.bench.scoring.table import Table, all_tables
from synthgrad.experiments.contract import Experiment, RunOptions

Rates = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Comparison(Experiment):
    """Arms trained against each other.

    Its config has at least `seeds`, `tune_seeds` and `learning_rate`.

    Args:
        jobs: from (config, preset, learning rates) to what is run, by case: the name of a folder
            below that of the experiment, or "" for an experiment of a single case. An arm without a
            rate of its own takes the config's; rates are by arm, or "case/arm" where there are
            cases.
        claims: judges a single case against the paper, arm by arm.
        findings: what all cases together show; an experiment of several cases has it.
    """

    jobs: Callable[[Any, str, Rates], Mapping[str, Job]]
    claims: ClaimsFunction | None = None
    findings: FindingsFunction | None = None

    def cases(self, config: Any, preset: str, rates: Rates | None = None) -> dict[str, Job]:
        """Return what is run, by case; the case stands in the config of its records."""
        made = self.jobs(config, preset, rates or {})
        return {
            case: replace(job, config={**job.config, "case": case}) if case else job
            for case, job in made.items()
        }

    def run(self, config: Any, options: RunOptions) -> Outcome:
        """Run every case, one after the other."""
        outcome = Outcome()
        for case, job in self.cases(config, options.preset, options.rates).items():
            if case:
                options.console.rule(case)
            outcome.runs += run_job(
                job,
                options.out / case,
                console=options.console,
                tensorboard=options.tensorboard,
                processes=options.processes,
            ).runs
        return outcome

    def tables(self, records: Sequence[RunRecord]) -> list[Table]:
        """Return the findings' tables, or those of the arms where there is one case."""
        if self.findings:
            return self.findings(records).all_tables() if records else []
        summaries = summarize(records, claims=self.claims)
        return all_tables(summaries, records) if summaries else []

    def to_json(self, records: Sequence[RunRecord]) -> list[dict[str, Any]]:
        """Return an object an arm, with its `case` where there are several."""
        return [
            {**summary.to_json(), **({"case": case} if case else {})}
            for case, group in by_case(records).items()
            for summary in summarize(group, claims=None if case else self.claims)
        ]

    def write_page(
        self, folder: Path, found: tuple[Sequence[RunRecord], Sequence[Problem]]
    ) -> Path:
        """Write the page; where there are findings, a page of its own for each case too."""
        # Late, because the plotting libraries take a while to import.
        from synthgrad.bench.report import write_report
        from synthgrad.bench.report.findings_page import write_findings

        records, problems = found
        if self.findings is None or not records:
            return write_report(
                folder,
                self.claims,
                title=self.title,
                description=self.description,
                found=(list(records), list(problems)),
            )
        links = dict[str, str]()
        for case in filter(None, by_case(records)):
            if not (folder / case).is_dir():  # the records lie otherwise than we left them
                continue
            write_report(
                folder / case, title=f"{self.title}: {case}", found=read_records(folder / case)
            )
            links[case] = f"{case}/report.html"
        return write_findings(
            folder,
            self.findings(records),
            title=self.title,
            description=self.description,
            found=found,
            cases=links,
        )
