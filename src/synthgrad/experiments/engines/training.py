"""What each method reaches after the same updates: speed alone is worth nothing."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from synthgrad.bench.clock import Stopwatch
from synthgrad.bench.running.evaluation import evaluate
from synthgrad.bench.running.threads import num_threads
from synthgrad.bench.seeds import derive_seed
from synthgrad.data import Batches, Dataset
from synthgrad.experiments.engines.cases import Case, Cut
from synthgrad.experiments.engines.timing import Arm
from synthgrad.experiments.engines.trainers import Form, missing


def train_case(
    case: Case,
    cut: Cut | None,
    data: Dataset,
    form: Form,
    *,
    seed: int,
    rates: tuple[float, float],
    updates: int,
    num_snapshots: int,
    decay_at: Sequence[float],
    threads: int,
) -> Iterator[Mapping[str, Any]]:
    """Train one method, and yield a "snapshot" at every stop and "tested" at the end.

    Every form of a method trains alike but for rounding, so one of them stands for all.

    Args:
        case: the network.
        cut: how it is decoupled, for the wavefront; None for backprop.
        data: on the device to train on.
        form: in which to train; eager where that form cannot run here.
        seed: of weights and batches; the same for every method.
        rates: learning rates of stages and of what their signal fits.
        updates: batches to train on.
        num_snapshots: evaluations, evenly over the run.
        decay_at: shares of the updates after which the rates are divided by ten.
        threads: of this run.
    """
    device = data.train.labels.device
    used: Form = "eager" if missing(form, str(device)) else form
    arm = Arm(engine="wavefront" if cut else "backprop", form=used, cut=cut)
    batches = Batches(data.train, batch_size=case.batch_size, seed=derive_seed(seed, "batches"))
    drops = [round(share * updates) for share in decay_at]
    with num_threads(threads):
        if used == "compiled":
            torch.compiler.reset()
        trainer = arm.build(case, data, seed, rates)
        facts = {"dataset": data.name, "form": used, "late_fit": trainer.late_fit}
        yield {"event": "facts", **facts}
        trainer.model.train()
        watch = Stopwatch(device=device)
        stops = {round(updates * k / num_snapshots) for k in range(num_snapshots + 1)}
        for start, stop in itertools.pairwise(sorted(stops)):
            watch.start()
            for number in range(start, stop):
                if number in drops:
                    trainer.scale_rate(0.1 ** (1 + drops.index(number)))
                trainer.step(*next(batches))
            if stop == updates:
                trainer.flush()
            watch.pause()
            score = evaluate(trainer.model, data.validation)
            yield {
                "event": "snapshot",
                "iteration": stop,
                "seconds": watch.seconds,
                "examples": stop * case.batch_size,
                "stage_updates": stop * (case.num_stages(cut) if cut else 1),
                "val_loss": score.loss,
                "val_accuracy": score.accuracy,
            }
        test = evaluate(trainer.model, data.test)
    yield {"event": "tested", "test_accuracy": test.accuracy, "test_loss": test.loss}
