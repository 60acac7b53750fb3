"""Character language modelling: bits a character against the characters that were seen.

An LSTM reads a text in chunks of T characters and carries its state along. Truncated BPTT learns
nothing across a cut; DNI puts a synthetic gradient there. Every arm reads the same characters in
the same order, so one with longer chunks makes fewer updates: the paper's "data time".

The last arm is ours. A state tells next to nothing of the gradient that will reach it, because what
it tells of the next characters the network has already used; the characters themselves, which a
text has, tell most of it. So there the synthesizer, and not the network, is told the next few.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, get_args

import synthgrad as sg
from synthgrad.bench.running.tasks import Task
from synthgrad.data import CharText, load_tinyshakespeare, read_penn_treebank, read_text
from synthgrad.errors import ConfigError
from synthgrad.experiments.jaderberg2017.charlm_findings import ARMS, find
from synthgrad.experiments.jaderberg2017.charlm_training import Method, Texts, Training, train
from synthgrad.experiments.study import Study, tasks_of_arms

ArmName = Literal["bptt-8", "bptt-20", "bptt-40", "dni-8", "dni-aux-8", "cdni-8"]
TINYSHAKESPEARE = "tinyshakespeare"


@dataclass(frozen=True, kw_only=True)
class CharlmConfig(Training):
    """What can be chosen besides a run's training.

    Args:
        arms: ways to train: how, and the characters of a chunk.
        text: a text file, in UTF-8; tinyshakespeare by default.
        ptb: a folder with Penn Treebank's files, in place of a text.
        held_out: share of a text that is held out, from its end; Penn Treebank brings its own.
        synthesizer: linear, or an MLP with a hidden layer of the LSTM's width.
        scale: of the synthetic gradient.
        gamma: discount in its target; None for the scale.
        auxiliary_weight: of the auxiliary task.
        num_ahead: characters after a chunk that the synthesizer of "cdni-8" is told, the first of
            which is the chunk's last target.
        seeds: one run of each arm for each.

    Raises:
        ConfigError: a value cannot work.
    """

    arms: tuple[ArmName, ...] = get_args(ArmName)
    text: Path | None = None
    ptb: Path | None = None
    held_out: float = 0.1
    synthesizer: Literal["linear", "mlp"] = "linear"
    scale: float = 0.1
    gamma: float | None = None
    auxiliary_weight: float = 3e-4
    num_ahead: int = 4
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        """Check what no other part checks."""
        super().__post_init__()
        if self.text and self.ptb:
            raise ConfigError(f"text={self.text} and ptb={self.ptb}: give one of them")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out={self.held_out} is a share between 0 and 1")
        longest = max((ARMS[name].horizon for name in self.arms), default=1)
        if self.num_characters < self.batch_size * longest * self.num_looks:
            raise ConfigError(
                f"num_characters={self.num_characters} is no chunk of {longest} characters and "
                f"{self.batch_size} streams for each of num_looks={self.num_looks}"
            )
        if not 1 <= self.num_ahead <= ARMS["cdni-8"].horizon:
            raise ConfigError(
                f"num_ahead={self.num_ahead} must be from 1 to the {ARMS['cdni-8'].horizon} "
                "characters of the next chunk"
            )
        if not self.auxiliary_weight > 0:
            raise ConfigError(f"auxiliary_weight={self.auxiliary_weight} must be above 0")


PRESETS = {
    "smoke": CharlmConfig(
        units=16, batch_size=8, num_characters=6_400, num_looks=2, num_judged=2_000, seeds=(0,)
    ),
    "quick": CharlmConfig(num_characters=1_000_000, num_looks=10, num_judged=50_000, seeds=(0,)),
    "full": CharlmConfig(),
    # Width, batch and rate are the paper's, recalled; how much it read is off its figure.
    "paper": CharlmConfig(
        units=1_024,
        batch_size=256,
        num_characters=1_200_000_000,
        num_looks=120,
        num_judged=1_000_000,
        learning_rate=7e-5,
        synthesizer_rate=7e-5,
        decay_from=1.0,
        synthesizer="mlp",
        device="cuda",
    ),
}


def make_tasks(config: CharlmConfig) -> list[Task]:
    """Return a task for each arm and seed."""
    return tasks_of_arms(
        partial(measure, config),
        seeds=config.seeds,
        labels={name: ARMS[name].label for name in config.arms},
        options=lambda name: {"data": data_name(config), "horizon": ARMS[name].horizon},
    )


def data_name(config: CharlmConfig) -> str:
    """Return what the text is called in a record, which names no folders."""
    if config.ptb:
        return "Penn Treebank"
    return config.text.name if config.text else TINYSHAKESPEARE


@lru_cache(maxsize=1)
def texts(text: Path | None, ptb: Path | None, held_out: float) -> Texts:
    """Return what is trained on and what is judged on."""
    if ptb:
        bank = read_penn_treebank(ptb)
        return Texts(train=bank.train, validation=bank.validation)
    whole: CharText = read_text(text) if text else load_tinyshakespeare()
    train_text, validation = whole.split(held_out)
    return Texts(train=train_text, validation=validation)


def method(config: CharlmConfig, name: ArmName, vocabulary_size: int) -> Method:
    """Return how an arm learns across a cut."""
    horizon = ARMS[name].horizon
    if name.startswith("bptt"):
        return Method(horizon=horizon, signal=sg.NoSignal())
    mlp = partial(sg.synthesizers.mlp, hidden=(config.units,))
    num_ahead = config.num_ahead if name == "cdni-8" else 0
    return Method(
        horizon=horizon,
        signal=sg.SyntheticGradient(
            synthesizer=mlp if config.synthesizer == "mlp" else "linear",
            condition=sg.Features(num_ahead * vocabulary_size) if num_ahead else None,
            scale=config.scale,
        ),
        gamma=config.gamma,
        auxiliary=sg.recurrent.Auxiliary(weight=config.auxiliary_weight)
        if name == "dni-aux-8"
        else None,
        num_ahead=num_ahead,
    )


def measure(config: CharlmConfig, name: ArmName, seed: int) -> Iterator[Mapping[str, Any]]:
    """Train one arm; yield a "look" at each place."""
    text = texts(config.text, config.ptb, config.held_out)
    how = method(config, name, len(text.train.vocabulary))
    yield from train(text, how, config, seed)


EXPERIMENT = Study(
    name="jaderberg2017/charlm",
    title="Character language modelling: synthetic gradients beyond the truncation",
    description=(
        "An LSTM on tinyshakespeare, your own text or Penn Treebank: bits a character against the "
        "characters seen, for truncated BPTT at three lengths, DNI, DNI with the auxiliary task, "
        "and DNI that is told what comes next."
    ),
    presets=PRESETS,
    arms=tuple(ARMS),
    tasks=make_tasks,
    findings=find,
    place=("seeds", "text", "ptb"),
)
