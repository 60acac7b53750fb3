"""Complete unlock: a rank runs on a prediction of its input, fitted when the true one comes.

The data then reaches every rank by its own way, and the true activation is a target like any other:
it may come late, and in `free` mode even before this rank has got to its batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.engines.pipeline.place import Place
from synthgrad.engines.pipeline.replicas import Replicas
from synthgrad.engines.pipeline.statistics import Watch
from synthgrad.engines.pipeline.wire.lane import Parcel
from synthgrad.engines.rules import OptimizerFactory, make_optimizer
from synthgrad.errors import ConfigError
from synthgrad.signals import Units
from synthgrad.signals.units import squared_distance
from synthgrad.stage import Chain
from synthgrad.synthetic_input import SyntheticInput, network_input
from synthgrad.validate import call, restored


class OwnInput:
    """The model of what comes up to this rank, predicted from the network's input.

    Args:
        model: from the network's input to the activation.
        optimizer: makes its optimizer.
        delay: number of batches between a prediction and the fit to the true activation; None in
            free mode.
        max_in_flight: how many predictions may wait for it.
        mean: whether the loss is a mean over examples.
        replicas: with which gradients are averaged.
        watch: takes the times.
        stage: the number of the stage that runs on it.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: OptimizerFactory,
        delay: int | None,
        max_in_flight: int,
        mean: bool,
        replicas: Replicas,
        watch: Watch,
        stage: int,
    ) -> None:
        self.model = model
        self.optimizer = make_optimizer(optimizer, list(model.parameters()))
        self.delay = delay
        self.max_in_flight = max_in_flight
        self.mean = mean
        self.replicas = replicas
        self.watch = watch
        self.stage = stage
        self._waiting = dict[int, tuple[Tensor, Tensor | None, bool]]()
        self._early = dict[int, Parcel]()

    def predict(self, inputs: Any, batch: int, *, updated: bool) -> Tensor:
        """Return what the stage runs on; remember what the fit will need."""
        x = network_input(inputs)
        with torch.set_grad_enabled(updated), self.watch.span("predict input", self.stage, batch):
            prediction = self.model(x)
        # With a delay the weights will have changed in place, and with them this graph.
        self._waiting[batch] = (x, prediction if self.delay == 0 else None, updated)
        return prediction.detach()

    def fit(self, now: int, has_some: Callable[[], bool], take: Callable[[], Parcel]) -> None:
        """Fit to the activations that are due (ordered) or have arrived (free)."""
        if self.delay is not None:
            self._fit_down_to(self.delay, take)
            return
        if now in self._early:
            self._fit(self._early.pop(now))
        while has_some():
            self._fit(take())

    def make_room(self, take: Callable[[], Parcel]) -> None:
        """Wait for activations until another prediction may wait for its own."""
        self._fit_down_to(self.max_in_flight - 1, take)

    def flush(self, take: Callable[[], Parcel]) -> None:
        """Fit to all activations that are out."""
        self._fit_down_to(0, take)

    def state(self) -> dict[str, Any]:
        """Return what it has learned."""
        made = self.optimizer
        return {"model": self.model.state_dict(), "optimizer": made and made.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from such a state."""
        self.model.load_state_dict(state["model"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])

    def _fit_down_to(self, count: int, take: Callable[[], Parcel]) -> None:
        while len(self._waiting) > count:
            self._fit(take())

    def _fit(self, parcel: Parcel) -> None:
        if parcel.batch not in self._waiting:
            self._early[parcel.batch] = parcel
            return
        x, prediction, updated = self._waiting.pop(parcel.batch)
        if not updated or self.optimizer is None:
            return
        h = parcel.tree
        with self.watch.span("fit input", self.stage, parcel.batch):
            prediction = self.model(x) if prediction is None else prediction
            units = Units.of(len(h), mean=self.mean)
            squared_distance(prediction, h, units).backward()
            self.replicas.average(list(self.model.parameters()))
            self.optimizer.step()
            self.optimizer.zero_grad()


def build_models(
    chain: Chain, place: Place, synthetic_input: SyntheticInput, example_inputs: Any
) -> list[nn.Module]:
    """Return a model for every place between two ranks, from the bottom up.

    Every rank makes them all, so that equal seeds make them equal.

    Raises:
        ConfigError: there are no example inputs, or an activation there is not one tensor.
    """
    if example_inputs is None:
        raise ConfigError("synthetic_input needs example_inputs, of two examples or more.")
    bounds = [len(chain) * k // place.length for k in range(1, place.length)]
    x = network_input(example_inputs)
    examples = list[Any]()
    with restored(chain), torch.no_grad():
        h = example_inputs
        for index, stage in enumerate(chain):
            if index in bounds:
                examples.append(h)
            h = stage(h) if index else call(stage, h)
    for index, example in zip(bounds, examples, strict=True):
        if not isinstance(example, Tensor):
            raise ConfigError(
                f"a {type(example).__name__} goes up to stage {index}; a synthetic input predicts "
                "one tensor. Cut the model elsewhere."
            )
    return [synthetic_input.build(x, example) for example in examples]
