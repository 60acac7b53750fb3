"""What does a synthetic gradient at the cut cost, and where does it pay against full BPTT?

A chunk of T steps with a synthetic gradient, against one of truncated BPTT at the same T, and, step
of the sequence by step, against BPTT over whole sequences: seconds, with the optimizer's step, and
bytes that autograd saves for the backward pass. An LSTM with a linear synthesizer, one thread.
Blocks are interleaved (A B C, C B A, ...), ratio round by round. Beside the ratio at the same T
stands the bound by multiplications, from a formula: torch's counter does not see into a fused LSTM.

    python benchmarks/recurrent_cost.py           # writes records/recurrent_cost.json and .svg
    python benchmarks/recurrent_cost.py --smoke   # only shows that it runs
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

import synthgrad as sg
from synthgrad.bench.figures.lines import lines_svg
from synthgrad.bench.figures.panels import Line, Panel, lines_data
from synthgrad.bench.records.machine import describe_git, describe_machine, describe_packages


@dataclass(frozen=True, kw_only=True)
class Setting:
    units: int = 256
    features: int = 64
    classes: int = 64
    batch_size: int = 64
    horizons: tuple[int, ...] = (1, 2, 3, 5, 8, 20)
    lengths: tuple[int, ...] = (9, 30, 100, 300)
    rounds: int = 200
    steps_per_block: int = 24  # of the sequence; a longer chunk is a block of its own


SMOKE = Setting(
    units=8, features=4, classes=3, batch_size=2, horizons=(1, 3), lengths=(9, 12), rounds=3
)


class Contestant:
    """A model and its loop over chunks of one length, a stream without an end.

    BPTT over a whole sequence is a chunk as long as the sequence, and begins anew with each.
    """

    def __init__(self, setting: Setting, signal: sg.ErrorSignal, num_steps: int, *, whole: bool):
        torch.manual_seed(0)
        core = nn.LSTM(setting.features, setting.units)
        self.rnn = sg.recurrent.TruncatedBPTT(core, horizon=num_steps, signal=signal)
        self.head = nn.Linear(setting.units, setting.classes)
        parameters = [*self.rnn.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.Adam(parameters, 1e-3, fused=True)
        self.x = torch.randn(num_steps, setting.batch_size, setting.features)
        self.y = torch.randint(0, setting.classes, (num_steps * setting.batch_size,))
        self.num_steps, self.whole = num_steps, whole
        self.carry: sg.recurrent.Carry | None = None

    def loss(self) -> Tensor:
        carry = None if self.whole else self.carry
        outputs, self.carry = self.rnn(self.x, carry)
        return F.cross_entropy(self.head(outputs).flatten(0, 1), self.y)

    def step(self) -> None:
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def saved_bytes(self) -> int:
        """Return what autograd keeps of one chunk, parameters and inputs apart."""
        given = {t.untyped_storage().data_ptr() for t in (*self.parameters(), self.x, self.y)}
        saved = dict[int, int]()

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in given:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = self.loss()
        loss.backward()
        self.optimizer.zero_grad()
        return sum(saved.values())

    def parameters(self) -> list[Tensor]:
        return [*self.rnn.parameters(), *self.head.parameters()]


def multiplications(setting: Setting, num_steps: int, *, signal: bool) -> int:
    """Return those of one chunk and example: matrix products only, forward and backward."""
    u = setting.units
    # Forward, for the weights and, of the state alone, for the input.
    core = 4 * u * (2 * (setting.features + u) + u)
    head = 3 * u * setting.classes
    # M is evaluated at the chunk's end and again at its start, and fitted; nothing goes through it.
    synthesizer = 3 * (2 * u) ** 2 if signal else 0
    return num_steps * (core + head) + synthesizer


def contestants(setting: Setting) -> dict[tuple[str, int], Contestant]:
    made = dict[tuple[str, int], Contestant]()
    for horizon in setting.horizons:
        for name, signal in (
            ("synthetic", sg.SyntheticGradient(synthesizer="linear", scale=0.1)),
            ("truncated", sg.NoSignal()),
        ):
            made[name, horizon] = Contestant(setting, signal, horizon, whole=False)
    for length in setting.lengths:
        made["whole", length] = Contestant(setting, sg.NoSignal(), length, whole=True)
    return made


def timed(step: Callable[[], None], times: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(times):
        step()
    return (time.perf_counter_ns() - start) / 1e9 / times


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, Any]:
    low, middle, high = statistics.quantiles([a / b for a, b in zip(over, under, strict=True)], n=4)
    return {"ratio": round(middle, 4), "quartiles": [round(low, 4), round(high, 4)]}


def measure(setting: Setting) -> dict[str, Any]:
    all_of_them = contestants(setting)
    for contestant in all_of_them.values():
        for _ in range(3):  # until there is something to fit, and the optimizer has its state
            contestant.step()
    saved = {key: contestant.saved_bytes() for key, contestant in all_of_them.items()}
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in all_of_them}
    order = list(all_of_them)
    for _ in range(setting.rounds):
        for key in order:
            times = max(1, setting.steps_per_block // key[1])
            seconds[key].append(timed(all_of_them[key].step, times))
        order.reverse()
    a_step = {key: [s / key[1] for s in values] for key, values in seconds.items()}
    return {
        "same_horizon": [
            {
                "horizon": t,
                "time": ratio(seconds["synthetic", t], seconds["truncated", t]),
                "bound": round(
                    multiplications(setting, t, signal=True)
                    / multiplications(setting, t, signal=False),
                    4,
                ),
                "saved_bytes": [saved["synthetic", t], saved["truncated", t]],
            }
            for t in setting.horizons
        ],
        "whole_sequence": [
            {
                "horizon": t,
                "length": n,
                "time": ratio(a_step["synthetic", t], a_step["whole", n]),
                "saved_bytes": [saved["synthetic", t], saved["whole", n]],
            }
            for t in setting.horizons
            for n in setting.lengths
            if t <= n
        ],
        "milliseconds_a_step": {
            f"{name} {size}": round(1e3 * statistics.median(values), 4)
            for (name, size), values in a_step.items()
        },
    }


def figure(results: dict[str, Any]) -> str:
    """Draw where a synthetic gradient is dearer and where it is cheaper: above and below one."""
    same, whole = results["same_horizon"], results["whole_sequence"]
    horizons = [row["horizon"] for row in same]
    against_truncated = [
        Line(
            label="measured",
            x=horizons,
            y=[row["time"]["ratio"] for row in same],
            low=[row["time"]["quartiles"][0] for row in same],
            high=[row["time"]["quartiles"][1] for row in same],
        ),
        Line(label="bound by multiplications", x=horizons, y=[row["bound"] for row in same]),
    ]
    lengths = sorted({row["length"] for row in whole})
    of_length = {n: [row for row in whole if row["length"] == n] for n in lengths}

    def lines(value: Callable[[dict[str, Any]], float]) -> list[Line]:
        return [
            Line(
                label=f"over BPTT through {n} steps",
                x=[row["horizon"] for row in rows],
                y=[value(row) for row in rows],
            )
            for n, rows in of_length.items()
        ]

    panels = [
        ("Time of a chunk over truncated BPTT", against_truncated, False),
        ("Time a step over BPTT", lines(lambda row: row["time"]["ratio"]), False),
        (
            "Saved bytes over BPTT",
            lines(lambda row: row["saved_bytes"][0] / row["saved_bytes"][1]),
            True,
        ),
    ]
    return lines_svg(
        lines_data(
            [
                Panel(
                    title=title,
                    x_label="T, steps of a chunk",
                    y_label="ratio",
                    lines=drawn,
                    log_x=True,
                    log_y=log_y,
                    marks=(1.0,),
                )
                for title, drawn, log_y in panels
            ]
        )
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="tiny, and its numbers mean nothing")
    parser.add_argument("--rounds", type=int, help=f"{Setting.rounds} by default")
    default = Path(__file__).parent / "records" / "recurrent_cost.json"
    parser.add_argument("--out", type=Path, default=default)
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else Setting(rounds=options.rounds or Setting.rounds)
    torch.set_num_threads(1)
    machine = describe_machine()
    results = measure(setting)
    record = {
        "what": "chunks with a synthetic gradient over chunks of truncated BPTT, and over BPTT "
        "through whole sequences a step; medians and quartiles of interleaved rounds",
        "setting": asdict(setting),
        "threads": 1,
        "results": results,
        "machine": machine,
        "packages": describe_packages(),
        "git": describe_git(Path(__file__).parent),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    options.out.with_suffix(".svg").write_text(figure(results))
    for row in results["same_horizon"]:
        time_ratio = row["time"]
        print(
            f"T = {row['horizon']}: {time_ratio['ratio']} {time_ratio['quartiles']} of truncated "
            f"BPTT, bound {row['bound']}"
        )
    for row in results["whole_sequence"]:
        ours, theirs = row["saved_bytes"]
        print(
            f"T = {row['horizon']} for {row['length']} steps: {row['time']['ratio']} of BPTT's "
            f"time, {ours / theirs:.3f} of its bytes"
        )


if __name__ == "__main__":
    main()
