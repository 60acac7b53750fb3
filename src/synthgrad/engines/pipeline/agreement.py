"""Before anything runs: every rank was given the same options, or the difference is named."""

import json
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from synthgrad.engines.pipeline.place import Place
from synthgrad.errors import ConfigError, RankError
from synthgrad.stage import Chain

_LONGEST = 200


def describe(thing: Any) -> str:
    """Return a text that is equal on two ranks where the things are."""
    if isinstance(thing, partial):
        given = [*map(describe, thing.args)]
        given += [f"{key}={describe(value)}" for key, value in sorted(thing.keywords.items())]
        return f"{describe(thing.func)}({', '.join(given)})"
    if isinstance(thing, (type, Callable)) and hasattr(thing, "__qualname__"):
        return f"{thing.__module__}.{thing.__qualname__}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def describe_chain(chain: Chain) -> dict[str, str]:
    """Return what must be equal about a chain: its cut, its parameters and its signals."""
    found = {"number of stages": str(len(chain)), "mean": str(chain.mean)}
    for index, stage in enumerate(chain):
        parameters = (f"{k} {tuple(p.shape)} {p.dtype}" for k, p in stage.named_parameters())
        found[f"parameters of stage {index}"] = ", ".join(parameters)
        if stage.interface is not None:
            found[f"signal on stage {index}"] = describe(stage.interface.signal)
    return found


def agree(
    store: dist.Store, place: Place, options: Mapping[str, Any], chain: Chain, timeout_s: float
) -> None:
    """Compare the options of all ranks with those of rank 0.

    Raises:
        ConfigError: they differ, on every rank alike.
        RankError: a rank has not come this far in time.
    """
    own = {"torch": torch.__version__, **{k: describe(v) for k, v in options.items()}}
    own |= describe_chain(chain)
    store.set(f"options {place.rank}", json.dumps(own))
    deadline = time.monotonic() + timeout_s
    first = own
    for rank in range(place.length * place.num_replicas):
        while not store.check([f"options {rank}"]):
            if time.monotonic() > deadline:
                raise RankError(
                    f"rank {rank} has not made its pipeline within timeout_s={timeout_s:g}, and "
                    f"rank {place.rank} has."
                )
            time.sleep(0.002)
        given = json.loads(store.get(f"options {rank}"))
        first = given if rank == 0 else first
        for key in sorted(first.keys() | given.keys()):
            if first.get(key) != given.get(key):
                raise ConfigError(
                    f"rank {rank} has {key}={_short(given.get(key))} where rank 0 has "
                    f"{_short(first.get(key))}: give every rank the same options."
                )


def _short(text: str | None) -> str:
    text = str(text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
