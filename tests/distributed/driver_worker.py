"""What a driver's ranks make in the tests, on this process and on the others."""

import os
from typing import Any

import pipeline_worker as worker
from torch import Tensor

import synthgrad as sg
from synthgrad.engines.pipeline import Transport


class Bomb:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return os._exit, (7,)


def engine(
    transport: Transport, wrong: str | None = None, signal: sg.ErrorSignal | None = None
) -> sg.engines.Pipeline:
    """A pipeline whose last rank does what is wrong in its fourth batch."""
    chain = worker.chain() if signal is None else worker.chain(signal)
    made = sg.engines.Pipeline(chain, **worker.GIVEN, transport=transport, timeout_s=20.0)

    def go_wrong(module: Any, inputs: Any, output: Tensor) -> Tensor | None:
        if made.num_steps != 3:
            return None
        if wrong == "die":
            os._exit(3)
        if wrong == "raise":
            raise MemoryError("no memory for this batch")
        return output * float("nan")

    if wrong and transport.rank == transport.num_ranks - 1:
        chain.stages[-1].module.register_forward_hook(go_wrong)
    return made


def disagreeing(transport: Transport) -> sg.engines.Pipeline:
    """Options that differ from rank to rank."""
    return sg.engines.Pipeline(
        worker.chain(), **worker.GIVEN, seed=transport.rank, transport=transport, timeout_s=20.0
    )


def unlocked(transport: Transport) -> sg.engines.Pipeline:
    """A pipeline in which every rank wants the data."""
    return sg.engines.Pipeline(
        worker.chain(),
        **worker.GIVEN,
        synthetic_input=sg.SyntheticInput(),
        synthetic_input_optimizer=worker.ADAM,
        example_inputs=worker.batches(1)[0][0],
        transport=transport,
        timeout_s=20.0,
    )
