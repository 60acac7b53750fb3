"""How fast a step could be at best on this machine, from what the machine was measured to do.

A step takes at least the longest of four times: its arithmetic, its memory traffic, its launches,
and the products that must wait for each other. Each is a lower bound, so what is counted is what
nobody can save, and what it is divided by is the best that was measured.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from synthgrad.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What a machine was measured to do at its best.

    Args:
        flops: floating-point operations a second, of the best matrix product.
        copies: bytes read and written a second, by the bytes of the tensor that was copied.
        launches: small operations a second, one after the other, eagerly.
        graph_launches: likewise within one CUDA graph; None where there is none.
        product_seconds: of a small matrix product that waits for the one before it.
    """

    flops: float
    copies: Mapping[int, float]
    launches: float
    graph_launches: float | None
    product_seconds: float

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> "Peaks":
        """Read what `measure_peaks` yielded."""
        return cls(
            flops=event["flops"],
            copies={int(size): rate for size, rate in event["copies"].items()},
            launches=event["launches"],
            graph_launches=event["graph_launches"],
            product_seconds=event["product_seconds"],
        )

    def bytes_per_second(self, working_set: int) -> float:
        """Return the rate at which a step with so large a working set may move its bytes.

        It is that of the largest tensor that was copied and is no larger, and so stays in the same
        cache or a nearer one.

        Raises:
            ConfigError: no copy was measured.
        """
        if not self.copies:
            raise ConfigError("the peaks hold no rate of copying: measure the machine first")
        fitting = [size for size in self.copies if size <= working_set]
        return self.copies[max(fitting) if fitting else min(self.copies)]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one step cannot do without.

    Args:
        flops: of matrix products.
        moved_bytes: each trained number with its gradient and its two moments read and written, and
            each activation that the backward pass needs written and read.
        working_set: bytes of all these.
        launches: operations that are launched: in eager code and in a CUDA graph of it those that
            were counted, in compiled code its matrix products, which nobody fuses.
        path: matrix products that wait for each other.
        on_graph: whether it is launched as one CUDA graph.
    """

    flops: int
    moved_bytes: int
    working_set: int
    launches: int
    path: int
    on_graph: bool = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The least seconds of a step, by what limits it."""

    arithmetic: float
    memory: float
    launches: float
    critical_path: float

    @property
    def binding(self) -> tuple[str, float]:
        """The name and the seconds of the longest."""
        name, seconds = max(asdict(self).items(), key=lambda item: item[1])
        return name.replace("_", " "), seconds


def limits(work: Work, peaks: Peaks) -> Limits:
    """Return the least seconds of a step.

    Example:
        >>> peaks = Peaks(flops=1e9, copies={1000: 1e8}, launches=1e5, graph_launches=None,
        ...               product_seconds=1e-6)
        >>> work = Work(flops=5000, moved_bytes=2000, working_set=1000, launches=3, path=4)
        >>> limits(work, peaks).binding
        ('launches', 3e-05)
    """
    rate = peaks.graph_launches if work.on_graph and peaks.graph_launches else peaks.launches
    return Limits(
        arithmetic=work.flops / peaks.flops,
        memory=work.moved_bytes / peaks.bytes_per_second(work.working_set),
        launches=work.launches / rate,
        critical_path=work.path * peaks.product_seconds,
    )
