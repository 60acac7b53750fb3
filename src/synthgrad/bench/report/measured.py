"""How it was measured: what the records say about machine, software, options and themselves."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.report.cells import ArmRow, ArmTable, Cell, Column
from synthgrad.bench.scoring.arm_summary import CLOCK, DERIVED, ArmSummary
from synthgrad.bench.scoring.summary import runs_by_arm

Facts = dict[str, str]

_MAX_VALUES = 6


def describe_conditions(records: Sequence[RunRecord]) -> dict[str, Facts]:
    """Return what the records say about where and how they were made, by theme.

    Where records differ, their values stand side by side.
    """
    runs = [record.run for record in records]
    trained = [record for record in records if record.kind == "run"]
    started = [record.started[:19].replace("T", " ") + " UTC" for record in records]
    return {
        "Runs": {
            "protocol": _distinct(run["protocol"] for run in runs),
            "preset": _distinct(record.preset for record in records),
            "seeds": ", ".join(str(seed) for seed in sorted({run.seed for run in trained})),
            "learning rates": _tuning(trained),
            "started": " to ".join(dict.fromkeys([min(started), max(started)])),
            "commands": _distinct(shlex.join(map(str, run.get("argv") or [])) for run in runs),
        },
        "Machine": _machine(run.get("machine") or {} for run in runs),
        "Software": {
            **_merged(run.get("packages") or {} for run in runs),
            "git commit": _distinct(_commit(run.get("git") or {}) for run in runs),
        },
        "Options of every arm": {
            _title(name): _text(values[0])
            for name, values in _options(trained).items()
            if len(set(map(_text, values))) == 1
        },
    }


def describe_seconds(summaries: Sequence[ArmSummary]) -> tuple[str, str]:
    """Return what the seconds of runs are: in a few words, and in sentences."""
    sources = {summary.seconds_from for summary in summaries}
    if sources <= {CLOCK}:
        return (
            "time is the training clock, evaluation not counted",
            "One clock runs from before any of an arm's code and stands still during evaluation.",
        )
    no_clock = "Several runs were trained at once, so no run's clock is used. "
    if DERIVED in sources:
        return (
            f"time is {DERIVED}",
            f"{no_clock}Seconds of a run are {DERIVED}: that of its arm in the interleaved "
            "blocks. An arm without blocks has none, and cold starts were not measured.",
        )
    return "time was not measured", f"{no_clock}Nothing in seconds was measured of the runs."


def options_table(summaries: Sequence[ArmSummary], records: Sequence[RunRecord]) -> ArmTable:
    """Return the options in which the arms differ; without columns where they do not."""
    runs_of = runs_by_arm(records)
    first = [runs_of[summary.arm][0] for summary in summaries]
    differing = {
        name: values for name, values in _options(first).items() if len(set(map(_text, values))) > 1
    }
    rows = [
        ArmRow(
            index=index,
            label=summary.label,
            note="",
            cells=[Cell(text=_text(values[index])) for values in differing.values()],
        )
        for index, summary in enumerate(summaries)
    ]
    return ArmTable(columns=[Column(title=_title(name)) for name in differing], rows=rows)


def _tuning(trained: Sequence[RunRecord]) -> str:
    """Return whether learning rates were tuned."""
    tuned = [record.tuned for record in trained]
    if not any(tuned):
        return "not tuned, as far as the records say" if tuned else ""
    return "tuned for each arm" if all(tuned) else "tuned for some arms and not for others"


def _options(records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Return every option with its value in each record, None where it has none."""
    flat = [_flat(record.config) for record in records]
    names = dict.fromkeys(name for config in flat for name in config)
    return {name: [config.get(name) for config in flat] for name in names}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _machine(machines: Iterable[Mapping[str, Any]]) -> Facts:
    machines = list(machines)
    loads = [machine["load_average"][0] for machine in machines if machine.get("load_average")]
    facts = _merged(_flat({**machine, "load_average": None}) for machine in machines)
    if loads:
        lowest, highest = f"{min(loads):.2f}", f"{max(loads):.2f}"
        facts["load at the start, over a minute"] = " to ".join(dict.fromkeys([lowest, highest]))
    return facts


def _merged(objects: Iterable[Mapping[str, Any]]) -> Facts:
    """Return every key of the objects with its different values; unknown ones are left out."""
    values: dict[str, list[Any]] = {}
    for each in objects:
        for key, value in each.items():
            if value is not None:
                values.setdefault(key, []).append(_bytes(value) if "bytes" in key else value)
    return {_title(key): _distinct(map(_text, several)) for key, several in values.items()}


def _bytes(value: Any) -> str:
    return f"{value / 2**30:.1f} GiB" if isinstance(value, int | float) else str(value)


def _commit(git: Mapping[str, Any]) -> str:
    if not git.get("commit"):
        return "unknown"
    return f"{git['commit']}{' with uncommitted changes' if git.get('dirty') else ''}"


def _distinct(values: Iterable[str]) -> str:
    """Return the different values in their order, as one text."""
    distinct = [value for value in dict.fromkeys(values) if value]
    more = len(distinct) - _MAX_VALUES
    return ", ".join(distinct[:_MAX_VALUES]) + (f" and {more} more" if more > 0 else "")


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def _title(name: str) -> str:
    return name.replace("_bytes", "").replace("_", " ")
