"""The same network in training by each engine, in each form: one step, driven the same way."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

import synthgrad as sg
from synthgrad.compiler import missing_compiler
from synthgrad.experiments.engines.cases import Case, Cut

Form = Literal["eager", "compiled", "graph", "compiled-graph"]
FORMS: tuple[Form, ...] = get_args(Form)
_NUM_WARM_UPS = 3


def missing(form: Form, device: str) -> str | None:
    """Return why a form cannot run on a device of this machine, or None."""
    if "graph" in form and not device.startswith("cuda"):
        return "a CUDA graph needs a CUDA device"
    return missing_compiler(device) if "compiled" in form else None


class Backprop:
    """Backprop over the whole network.

    Args:
        model: on its device.
        learning_rate: of Adam.
        form: eager; forward and backward pass compiled; the whole step as one CUDA graph; or both.
    """

    def __init__(self, model: nn.Sequential, *, learning_rate: float, form: Form) -> None:
        self.model = model
        self.execution: str = form
        self.late_fit = None
        self._on_graph = "graph" in form
        self._graph: torch.cuda.CUDAGraph | None = None
        self._held: tuple[Tensor, Tensor, Tensor] | None = None
        device = next(model.parameters()).device
        # A captured step reads its rate from memory, where it can be changed.
        rate = torch.tensor(learning_rate, device=device) if self._on_graph else learning_rate
        self.optimizer = Adam(model.parameters(), lr=rate, fused=True, capturable=self._on_graph)
        self._base_rate = learning_rate
        loss_of: Callable[[Tensor, Tensor], Tensor] = self._loss
        self._loss_of = torch.compile(loss_of, dynamic=False) if "compiled" in form else loss_of

    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """Train on one batch."""
        if not self._on_graph:
            self._train(inputs, labels)
            return
        if self._graph is None:
            self._capture(inputs, labels)
        assert self._graph is not None
        assert self._held is not None
        self._held[0].copy_(inputs)
        self._held[1].copy_(labels)
        self._graph.replay()

    def flush(self) -> None:
        """Do nothing: no batch is under way between two steps."""

    def scale_rate(self, factor: float) -> None:
        """Set the learning rate to `factor` times what it was at the start."""
        group = self.optimizer.param_groups[0]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(factor * self._base_rate)
        else:
            group["lr"] = factor * self._base_rate

    def carry_bytes(self) -> int:
        """Return how much is kept from one step to the next beside what is trained: nothing."""
        return 0

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.model(inputs), labels)

    def _train(self, inputs: Tensor, labels: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss = self._loss_of(inputs, labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _capture(self, inputs: Tensor, labels: Tensor) -> None:
        """Warm up on another stream, as capturing wants it, undo that, and capture a step."""
        held = inputs.clone(), labels.clone()
        trained = [*self.model.parameters(), *self.model.buffers()]
        before = [t.detach().clone() for t in trained]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_NUM_WARM_UPS):
                self._train(*held)
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad():
            for tensor, value in zip(trained, before, strict=True):
                tensor.copy_(value)
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()  # Adam begins with zeros
        self._graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad()
        with torch.cuda.graph(self._graph):
            loss = self._train(*held)
        self._held = (*held, loss)


class Decoupled:
    """A chain trained by one of the library's engines.

    Args:
        engine: "sequential" or "wavefront".
        model: on its device.
        case: the network.
        cut: how it is decoupled.
        inputs: two examples or more, for the shapes.
        num_classes: outputs of the network.
        rates: learning rates of Adam, for stages and for what their signal fits.
        form: of the wavefront's tick.
    """

    def __init__(
        self,
        engine: Literal["sequential", "wavefront"],
        model: nn.Sequential,
        case: Case,
        cut: Cut,
        inputs: Tensor,
        num_classes: int,
        *,
        rates: tuple[float, float],
        form: Form,
    ) -> None:
        self.model = model
        self.chain = case.chain(model, cut, inputs, num_classes)
        make: Any = sg.engines.Sequential
        if engine == "wavefront":
            options = {"cuda_graph": True} if "graph" in form else {}
            make = partial(sg.engines.Wavefront, compile="compiled" in form, **options)
        self.engine: Any = make(
            self.chain,
            loss=F.cross_entropy,
            optimizer=partial(Adam, lr=rates[0], fused=True),
            synthesizer_optimizer=partial(Adam, lr=rates[1], fused=True),
        )
        self._base_rates = rates

    @property
    def execution(self) -> str:
        """What runs, as the engine tells it."""
        return str(getattr(self.engine, "execution", "eager"))

    @property
    def late_fit(self) -> str:
        """What a synthesizer is fitted by where its target comes late, as the engine does it."""
        return self.engine.late_fit

    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """Train on one batch."""
        self.engine.step(inputs, labels)

    def flush(self) -> None:
        """Let every batch under way come to its end."""
        self.engine.flush()

    def scale_rate(self, factor: float) -> None:
        """Set the wavefront's learning rates to `factor` times what they were at the start."""
        optimizers = self.engine.optimizer, self.engine.synthesizer_optimizer
        for optimizer, rate in zip(optimizers, self._base_rates, strict=True):
            optimizer.param_groups[0]["lr"] = factor * rate

    def carry_bytes(self) -> int:
        """Return the bytes of activations and the like that batches under way keep."""
        wavefront = self.engine if isinstance(self.engine, sg.engines.Wavefront) else None
        return wavefront.carried_bytes() if wavefront else 0


Trainer = Backprop | Decoupled
