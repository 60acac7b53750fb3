"""The command line: synthgrad list | run | report | tune | plan | data.

What a user can mend ends as one clear message on standard error and exit code 2. Exit code 1 is a
record of failures only or a crash in a run, 130 an interruption.
"""

import gc
import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

import synthgrad.data
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.records.reading import Problem, read_records
from synthgrad.bench.running.job import Job, Outcome
from synthgrad.bench.running.runner import tune_job
from synthgrad.bench.running.tuning import best_rates, trials
from synthgrad.bench.scoring.cases import by_case
from synthgrad.bench.scoring.summary import summarize
from synthgrad.bench.scoring.table import all_tables, print_tables
from synthgrad.errors import ConfigError, RecordError, SynthgradError
from synthgrad.experiments import EXPERIMENTS, Experiment, find_experiment
from synthgrad.experiments.comparison import Comparison
from synthgrad.experiments.contract import RunOptions
from synthgrad.experiments.signals_table import signals_table

FAILED, USAGE, INTERRUPTED = 1, 2, 130
GRID = (3e-4, 1e-3, 3e-3)
_DEFAULT_PRESET = "quick"


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        args: the command line without the program's name; that of the process by default.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not know every sign of a table
    try:
        commands: dict[str, Callable[..., int]] = {
            "list": list_experiments,
            "run": _run_command(arguments),
            "report": report,
            "tune": _tune_command(arguments),
            "plan": _plan_command(arguments),
            "data": data,
        }
        return tyro.extras.subcommand_cli_from_dict(
            commands, prog="synthgrad", description=_DESCRIPTION, args=arguments
        )
    except SynthgradError as error:
        print(f"synthgrad: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        # Whoever reads our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return USAGE
    except KeyboardInterrupt:
        again = shlex.join(["synthgrad", *arguments])
        print(
            "\nsynthgrad: interrupted; what was done is kept. To go on, run the same again:\n"
            f"  {again}",
            file=sys.stderr,
        )
        return INTERRUPTED


def list_experiments(*, signals: bool = False) -> int:
    """List the experiments with their presets and arms.

    Args:
        signals: List the error signals instead: what each needs, and which locks it opens.
    """
    if signals:
        print_tables([signals_table()], _console())
        return 0
    for experiment in EXPERIMENTS.values():
        print(f"{experiment.name}: {experiment.description}")
        print(f"  presets: {', '.join(experiment.presets)}")
        print(f"  arms:    {', '.join(experiment.arms)}")
    return 0


def report(
    directory: Annotated[Path, tyro.conf.Positional],
    *,
    format: Literal["table", "json", "html"] = "table",
) -> int:
    """Report the records in a folder.

    Args:
        directory: The --out of `synthgrad run`, or any folder of records.
        format: table prints tables, json prints a list of one object an arm, html writes
            report.html and the figures into the folder.

    Raises:
        RecordError: There is nothing to report.
    """
    with _collector_paused():
        return _report(directory, format)


def _report(directory: Path, format: Literal["table", "json", "html"]) -> int:
    records, problems = found = read_records(directory)
    for problem in problems:
        print(f"synthgrad: {problem}", file=sys.stderr)
    if format == "html":
        print(_write_page(directory, found))
        return 0
    experiment = _experiment_of(records)
    if format == "json":
        found_out = experiment.to_json(records) if experiment else _plain_json(records)
        print(json.dumps(found_out, indent=2, allow_nan=False))
        return 0
    tables = experiment.tables(records) if experiment else all_tables(summarize(records), records)
    if not tables:
        raise RecordError(f"{directory} holds no run of `synthgrad run` that can be reported")
    print_tables(tables, _console())
    return 0


def _plain_json(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return the arms of an experiment that this version does not know."""
    return [summary.to_json() for summary in summarize(records)]


@contextmanager
def _collector_paused() -> Generator[None]:
    """Keep the garbage collector from walking over hundreds of records again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def data(
    action: Annotated[Literal["list", "get", "check"], tyro.conf.Positional],
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    *,
    data_dir: Path | None = None,
) -> int:
    """List, fetch or check the data sets.

    Args:
        action: list tells which are on this machine, get downloads what is missing, check verifies
            checksums and shapes.
        names: Which; list takes all, check those that are here.
        data_dir: The folder to search first, and to download to.
    """
    found = synthgrad.data.available(data_dir)
    if action == "list":
        for name, folder in found.items():
            print(f"{name}: {folder or 'not here'}")
        return 0
    chosen = names or tuple(name for name, folder in found.items() if folder and action == "check")
    if not chosen:
        raise ConfigError(f"`synthgrad data {action}` needs a name: {', '.join(found)}")
    for name in chosen:
        if action == "get":
            for path in synthgrad.data.get(name, data_dir):
                print(path)
            continue
        found_out = synthgrad.data.check(name, data_dir)
        print(
            f"{name}: {found_out.title}, {'the' if found_out.official else 'not the'} published "
            f"files; {found_out.num_train:,} training, {found_out.num_validation:,} validation and "
            f"{found_out.num_test:,} test examples of shape {found_out.input_shape}, "
            f"{found_out.num_classes} classes"
        )
    return 0


def _run_command(arguments: Sequence[str]) -> Callable[..., int]:
    """Return `synthgrad run`, whose options have the chosen preset's values as defaults."""
    chosen, preset_config = _chosen(arguments)

    def run(
        experiment: str,
        *,
        preset: str = _DEFAULT_PRESET,
        out: Path | None = None,
        tuned: Path | None = None,
        processes: int = 1,
        tensorboard: bool = False,
        config: Any = preset_config,
    ) -> int:
        """Run an experiment, print its table and write its report.

        What is finished in the folder is kept, so an interrupted command goes on where it was.

        Args:
            experiment: Its name; see `synthgrad list`.
            preset: The values that the options below start from.
            out: The folder of the records; runs/EXPERIMENT-PRESET by default.
            tuned: The folder of a `synthgrad tune`, whose best learning rates are taken.
            processes: Runs at once, on their shares of the cores. With more than one the runs have
                no clock; the interleaved timing comes after them.
            tensorboard: Write curves and the graph of each network for TensorBoard, below out.
            config: The options of the experiment, with the preset's values as defaults.
        """
        rates = _tuned_rates(tuned, config.seeds) if tuned else {}
        if processes < 1:
            raise ConfigError(f"--processes {processes} must be 1 or more")
        options = RunOptions(
            preset=preset,
            out=out or _default_folder(chosen, preset),
            console=_console(),
            processes=processes,
            tensorboard=tensorboard,
            rates=rates,
        )
        return _run(chosen, config, options)

    return _with_options(run, chosen, preset_config)


def _plan_command(arguments: Sequence[str]) -> Callable[..., int]:
    """Return `synthgrad plan`, which is `synthgrad run plan` under a name of its own."""
    chosen, preset_config = _chosen(arguments)

    def plan(
        *,
        preset: str = _DEFAULT_PRESET,
        out: Path | None = None,
        config: Any = preset_config,
    ) -> int:
        """Simulate pipelines on hardware that is not here: what DNI would gain, from what latency.

        It is about time alone; what a network learns meanwhile is another matter (see
        docs/scale.md).

        Args:
            preset: The values that the options below start from.
            out: The folder of the record; runs/plan-PRESET by default.
            config: The options of the plan, with the preset's values as defaults.
        """
        folder = out or _default_folder(chosen, preset)
        return _run(chosen, config, RunOptions(preset=preset, out=folder, console=_console()))

    return _with_options(plan, chosen, preset_config)


def _default_folder(experiment: Experiment, preset: str) -> Path:
    return Path("runs") / f"{experiment.folder_name}-{preset}"


def _run(experiment: Experiment, config: Any, options: RunOptions) -> int:
    """Run an experiment, write its report and print its tables; return the exit code."""
    outcome = experiment.run(config, options)
    page = _write_page(options.out, read_records(options.out))
    report(options.out)
    options.console.print(f"report: {page}", soft_wrap=True)
    return 0 if outcome.succeeded else FAILED


def _tune_command(arguments: Sequence[str]) -> Callable[..., int]:
    """Return `synthgrad tune`, whose options have the chosen preset's values as defaults."""
    chosen, preset_config = _chosen(arguments)

    def tune(
        experiment: str,
        *,
        preset: str = _DEFAULT_PRESET,
        out: Path | None = None,
        grid: tuple[float, ...] = GRID,
        config: Any = preset_config,
    ) -> int:
        """Try the same learning rates for every arm, on seeds of their own.

        Args:
            experiment: Its name; see `synthgrad list`.
            preset: The values that the options below start from.
            out: The folder of the records; runs/EXPERIMENT-PRESET-tune by default.
            grid: The learning rates.
            config: The options of the experiment, with the preset's values as defaults.
        """
        if not isinstance(chosen, Comparison):
            raise ConfigError(f"{experiment} trains no arms against each other: nothing to tune")
        if not grid:
            raise ConfigError("--grid is empty; give at least one learning rate")
        folder = out or Path("runs") / f"{chosen.folder_name}-{preset}-tune"
        cases = dict[str, dict[float, Job]]()
        for rate in grid:
            trial = replace(config, seeds=config.tune_seeds, tune_seeds=(), learning_rate=rate)
            for case, job in chosen.cases(trial, preset).items():
                cases.setdefault(case, {})[rate] = job
        console = _console()
        outcome = Outcome()
        for case, jobs in cases.items():
            outcome.runs += tune_job(jobs, folder / case, console=console).runs
        console.print(_trials_table(folder))
        console.print(
            f"to use them: synthgrad run {experiment} --preset {preset} --tuned {folder}",
            soft_wrap=True,
        )
        return 0 if outcome.succeeded else FAILED

    return _with_options(tune, chosen, preset_config)


def _chosen(arguments: Sequence[str]) -> tuple[Experiment, Any]:
    """Return the experiment and the preset's config that a command line asks for.

    They decide which options there are and what their defaults are, so they are looked up before
    the line is parsed.
    """
    if arguments[:1] == ["plan"]:
        experiment = find_experiment("plan")
    elif arguments[:1] not in (["run"], ["tune"]) or arguments[1:] in ([], ["-h"], ["--help"]):
        experiment = next(iter(EXPERIMENTS.values()))
        return experiment, experiment.presets[_DEFAULT_PRESET]
    else:
        experiment = find_experiment(
            next((word for word in arguments[1:] if word in EXPERIMENTS), arguments[1])
        )
    preset = _DEFAULT_PRESET
    for word, following in pairwise([*arguments, ""]):
        if word == "--preset":
            preset = following
        elif word.startswith("--preset="):
            preset = word.removeprefix("--preset=")
    if preset not in experiment.presets:
        raise ConfigError(
            f"there is no preset {preset!r}; those of {experiment.name} are "
            f"{', '.join(experiment.presets)}"
        )
    return experiment, experiment.presets[preset]


def _with_options(
    command: Callable[..., int], experiment: Experiment, config: Any
) -> Callable[..., int]:
    """Tell tyro what only this command line decides: the choices, and the config's type."""
    names, presets = Literal[*EXPERIMENTS], Literal[*experiment.presets]
    command.__annotations__ |= {
        "experiment": Annotated[names, tyro.conf.Positional],
        "preset": presets,
        "config": Annotated[type(config), tyro.conf.arg(name="")],
    }
    return command


def _tuned_rates(folder: Path, seeds: Sequence[int]) -> dict[str, float]:
    records, _ = read_records(folder)
    records = [record for record in records if record.kind == "tune"]
    rates = {
        f"{case}/{arm}" if case else arm: rate
        for case, group in by_case(records).items()
        for arm, rate in best_rates(trials(group)).items()
    }
    if not rates:
        raise ConfigError(f"--tuned {folder} holds no finished run of `synthgrad tune`")
    if shared := sorted({record.seed for record in records} & set(seeds)):
        raise ConfigError(f"--tuned {folder} was tuned on seeds {shared}, which are to be reported")
    return rates


def _trials_table(folder: Path) -> Table:
    table = Table("Arm", "Learning rate", "n", "Validation accuracy %", "")
    for case, group in by_case(read_records(folder)[0]).items():
        tried = trials(group)
        best = best_rates(tried)
        arms = list(dict.fromkeys(trial.arm for trial in tried))
        for trial in sorted(tried, key=lambda t: (arms.index(t.arm), t.learning_rate)):
            is_best = best.get(trial.arm) == trial.learning_rate
            table.add_row(
                f"{case}: {trial.label}" if case else trial.label,
                f"{trial.learning_rate:g}",
                str(trial.num_seeds),
                f"{trial.val_accuracy:.2f}",
                "best" if is_best else "",
            )
    return table


def _write_page(folder: Path, found: tuple[list[RunRecord], list[Problem]]) -> Path:
    experiment = _experiment_of(found[0])
    if experiment is None:
        from synthgrad.bench.report import write_report  # late: it imports plotting libraries

        return write_report(folder, found=found)
    return experiment.write_page(folder, found)


def _experiment_of(records: Sequence[RunRecord]) -> Experiment | None:
    """Return the experiment that left records; one that is unknown is reported without claims."""
    return EXPERIMENTS.get(records[0].experiment) if records else None


def _console() -> Console:
    """Return the console; where nobody tells how wide it is, as wide as our tables need."""
    return Console(width=None if sys.stdout.isatty() else 100)


_DESCRIPTION = "Train networks with synthetic gradients, and measure whether it pays."
