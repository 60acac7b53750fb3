"""What this machine does at its best: a short measured peak of each kind."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from synthgrad.bench.clock import Stopwatch
from synthgrad.bench.running.threads import num_threads

_CHAIN = 64
_MEBIBYTE = 2**20


def measure_peaks(
    device: str, counts: tuple[int, ...], *, repeats: int
) -> Iterator[Mapping[str, Any]]:
    """Yield one "peaks" event; the best over numbers of threads and sizes of everything.

    Args:
        device: cpu, cuda, ...
        counts: numbers of threads to try.
        repeats: times that each thing is timed; the best counts.
    """
    on_cuda = device.startswith("cuda")
    found = [_Probe(device, repeats).measure(count) for count in counts]
    sizes = found[0]["copies"]
    yield {
        "event": "peaks",
        "flops": max(probe["flops"] for probe in found),
        "copies": {str(size): max(p["copies"][size] for p in found) for size in sizes},
        "launches": max(probe["launches"] for probe in found),
        "graph_launches": max(p["graph_launches"] for p in found) if on_cuda else None,
        "product_seconds": min(probe["product_seconds"] for probe in found),
        "threads": list(counts),
    }


class _Probe:
    """Times small things on one device."""

    def __init__(self, device: str, repeats: int) -> None:
        self.device = torch.device(device)
        self.on_cuda = self.device.type == "cuda"
        self.repeats = repeats

    def measure(self, count: int) -> dict[str, Any]:
        """Return all peaks with so many threads."""
        with num_threads(count), torch.no_grad():
            small = torch.zeros(8, 8, device=self.device)
            out = torch.zeros_like(small)

            def launches() -> None:
                for _ in range(_CHAIN):
                    torch.add(small, 1, out=out)

            def products() -> None:
                a, b = small, out
                for _ in range(_CHAIN):
                    torch.mm(a, small, out=b)
                    a, b = b, (out if b is not out else spare)

            spare = torch.zeros_like(small)
            captured = self._captured(launches) if self.on_cuda else None
            chain = self._captured(products) if self.on_cuda else products
            return {
                "flops": max(
                    map(self._flops, (512, 1024, *((4096, 8192) if self.on_cuda else ())))
                ),
                "copies": {size: self._copy(size) for size in self._sizes()},
                "launches": _CHAIN / self._seconds(launches),
                "graph_launches": captured and _CHAIN / self._seconds(captured),
                "product_seconds": self._seconds(chain) / _CHAIN,
            }

    def _sizes(self) -> tuple[int, ...]:
        largest = (256 * _MEBIBYTE,) if self.on_cuda else (64 * _MEBIBYTE,)
        return (_MEBIBYTE // 16, _MEBIBYTE, 8 * _MEBIBYTE, *largest)

    def _flops(self, size: int) -> float:
        a = torch.rand(size, size, device=self.device)
        out = torch.empty_like(a)
        return 2 * size**3 / self._seconds(lambda: torch.mm(a, a, out=out))

    def _copy(self, size: int) -> float:
        source = torch.rand(size // 4, device=self.device)
        to = torch.empty_like(source)
        times = max(1, _MEBIBYTE // size)

        def copy() -> None:
            for _ in range(times):
                to.copy_(source)

        return 2 * size * times / self._seconds(copy)

    def _seconds(self, run: Callable[[], object]) -> float:
        run()
        run()
        taken = list[float]()
        for _ in range(self.repeats):
            watch = Stopwatch(device=self.device)
            watch.start()
            run()
            watch.pause()
            taken.append(watch.seconds)
        return min(taken)  # what the machine can do, undisturbed

    def _captured(self, run: Callable[[], object]) -> Callable[[], object]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay
