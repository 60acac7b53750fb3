"""Live curves and the graph of a decoupled network, for TensorBoard.

The graph is the benchmark paper's figure: the network with a synthesizer at every interface.
"""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard.writer import SummaryWriter

from synthgrad.bench.running.learner import Learner
from synthgrad.bench.running.training import EventSink
from synthgrad.decoupled import DecoupledModel
from synthgrad.trees import float_tensors
from synthgrad.validate import restored


class Curves:
    """Passes a run's events on, and draws those that are curves; a context manager.

    Args:
        sink: where the events go as well.
        folder: TensorBoard's folder of this run.
    """

    def __init__(self, sink: EventSink, folder: Path) -> None:
        """Open the folder."""
        self._sink = sink
        self._writer = SummaryWriter(str(folder))

    def event(self, name: str, /, **values: Any) -> None:
        """Pass an event on; draw it if it is a snapshot, an alignment or the end."""
        self._sink.event(name, **values)
        match name:
            case "snapshot" | "finished":
                self._draw("", values["iteration"], values)
            case "alignment":
                for interface, measures in values["interfaces"].items():
                    self._draw(f"alignment {interface}/", values["iteration"], measures)
            case _:
                pass

    def draw_graph(self, learner: Learner, inputs: Tensor, labels: Tensor) -> None:
        """Draw the graph of a learner's network; the network is left as it was."""
        net = learner.decoupled
        # torch traces with what it calls deprecated, and warns of what the trace takes as constant.
        with warnings.catch_warnings(), restored(learner.net), torch.no_grad():
            warnings.simplefilter("ignore")
            if net is None:
                self._writer.add_graph(learner.net, inputs)
            else:
                self._writer.add_graph(_WithSynthesizers(net), (inputs, labels))

    def __enter__(self) -> "Curves":
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the files."""
        self._writer.close()

    def _draw(self, prefix: str, iteration: int, values: dict[str, Any]) -> None:
        for key, value in values.items():
            if key != "iteration" and value is not None and math.isfinite(value):
                self._writer.add_scalar(prefix + key, float(value), iteration)


class _WithSynthesizers(nn.Module):
    """The decoupled network as one graph: the model's output, and each interface's prediction.

    A training pass itself cannot be drawn: nothing leads from a prediction to the output.
    """

    def __init__(self, net: DecoupledModel) -> None:
        super().__init__()
        self.model = net.model
        self.interfaces = nn.ModuleDict(dict(net.interfaces.items()))
        self._ordered = list(net.ordered_interfaces())

    def forward(self, inputs: Tensor, labels: Tensor) -> tuple[Any, ...]:
        crossed = dict[str, list[Tensor]]()
        modules = dict(self.model.named_modules())

        def keep(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                crossed[name] = float_tensors(output)

            return hook

        names = [interface.name for interface in self._ordered]
        handles = [modules[name].register_forward_hook(keep(name)) for name in names]
        try:
            output = self.model(inputs)
        finally:
            for handle in handles:
                handle.remove()
        predictions = list[Tensor]()
        for interface in self._ordered:
            encoder = interface.signal.conditioned_on
            # A signal that predicts nothing has no synthesizers, and so adds nothing here.
            for module, h in zip(interface.synthesizers, crossed[interface.name], strict=False):
                code = encoder.encode(labels, h.dtype) if encoder else None
                predictions.append(interface.signal.predict(module, h, code))
        return output, *predictions
