"""The way of a message from a fast network up to a slow one, with a synthetic gradient back down.

The slow network reads a message long after it was sent, and its gradient comes later still. So the
message leaves without a graph, with what a synthesizer predicts of that gradient handed to its
sender at once; and it is kept until it is read, when the gradient that arrives fits the
synthesizer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.errors import ConditionError, ConfigError, InterfaceError
from synthgrad.recurrent.boundary import Arrival, Departure, enter, leave
from synthgrad.recurrent.layout import Layout
from synthgrad.recurrent.predicts_ahead import PredictsAhead, check_ahead
from synthgrad.signals import ErrorSignal, SyntheticGradient, Units


@dataclass(frozen=True, kw_only=True, eq=False)
class Mail:
    """Messages that were sent and not yet read.

    Attributes:
        messages: without a graph, oldest first [number, batch, size].
        codes: the encoded conditions that the synthesizer saw [number, batch, C], or None.
    """

    messages: Tensor
    codes: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of messages."""
        return len(self.messages)

    def after(self, earlier: "Mail | None") -> "Mail":
        """Put earlier mail before this."""
        if earlier is None:
            return self
        codes = [part.codes for part in (earlier, self) if part.codes is not None]
        return Mail(
            messages=torch.cat([earlier.messages, self.messages]),
            codes=torch.cat(codes) if codes else None,
        )

    def state_dict(self) -> dict[str, Tensor | None]:
        """Return its tensors."""
        return {"messages": self.messages, "codes": self.codes}

    @classmethod
    def from_state_dict(cls, saved: Mapping[str, Any]) -> "Mail":
        """Undo `state_dict`.

        Raises:
            KeyError: something is missing.
        """
        return cls(messages=saved["messages"], codes=saved["codes"])


class Channel(PredictsAhead):
    """Between two neighboring clocks: makes messages, sends and delivers them.

    Args:
        message: from outputs of the sender [..., features] to messages [..., size].
        size: of a message.
        signal: `SyntheticGradient`, or `NoSignal`, which sends nothing back down.
        mean: whether the receiver's loss is a mean over the batch, or a sum.
        like: a parameter of the receiver, for its device and type.

    Raises:
        ConfigError: the signal cannot work here.
    """

    def __init__(
        self, message: nn.Module, *, size: int, signal: ErrorSignal, mean: bool, like: Tensor
    ) -> None:
        check_ahead(signal, "a message's gradient, which comes after its sender was updated:")
        if isinstance(signal, SyntheticGradient) and signal.trace_decay:
            raise ConfigError(
                f"trace_decay={signal.trace_decay} has no meaning for messages, which do not "
                "follow from each other; leave it at 0"
            )
        super().__init__(signal, mean=mean)
        self.message = message
        self.size = size
        self.synthesizer = signal.build(like.new_zeros(2, size))  # two, because of batch norm

    def forward(self, outputs: Tensor) -> Tensor:
        """Make messages [number, batch, size] of the sender's outputs [number, batch, ...].

        Raises:
            InterfaceError: they have another shape.
        """
        messages = self.message(outputs)
        expected = (*outputs.shape[:2], self.size)
        if messages.shape != expected:
            raise InterfaceError(
                f"messages have shape {tuple(messages.shape)}, where the receiver reads "
                f"{expected}: [messages, batch, size]; give MultiClock(messages=[...]) a module "
                "that makes them"
            )
        return messages

    def send(
        self,
        outputs: Tensor,
        messages: Tensor,
        condition: Tensor | None,
        loss_scale: float | Tensor,
    ) -> tuple[Tensor, Mail]:
        """Let messages leave.

        Args:
            outputs: of the sender, of its whole window.
            messages: with their graph.
            condition: labels, one for each message and example.
            loss_scale: what a GradScaler multiplies the loss by.

        Returns:
            The outputs, whose backward brings the synthetic gradient to the messages, and what is
            to be delivered.

        Raises:
            ConditionError: the condition is missing or wrong.
        """
        if not self.predicts:
            return outputs, Mail(messages=messages.detach())
        mail = Mail(messages=messages.detach(), codes=self._codes(condition, messages))
        units = Units.of(messages.shape[1], mean=self.mean, loss_scale=loss_scale)
        with torch.no_grad():
            prediction = self._predict(mail)
        emitted = self.signal.emit(prediction, None, units, self.num_fits)
        assert emitted is not None
        departure = Departure(
            signals=[emitted.view_as(messages).to(messages.dtype)],
            signal=self.signal,
            units=units,
            ends=None,
        )
        return leave(outputs, [messages], departure, own_loss=None, prediction=None), mail

    def deliver(self, mail: Mail, loss_scale: float | Tensor) -> Tensor:
        """Return the messages for their receiver, whose gradient fits the synthesizer.

        It is evaluated again, since its weights may have changed since a message was sent.
        """
        if not self.predicts:
            return mail.messages
        number, batch_size = mail.messages.shape[:2]
        rows = mail.messages.flatten(0, 1)
        weight = Units.of(batch_size, mean=self.mean).weight
        arrival = Arrival(
            layout=Layout.of(rows, 0),
            signal=self.signal,
            units=Units(number * batch_size, weight, loss_scale),
            awaits=torch.ones(len(rows), dtype=torch.bool, device=rows.device),
            past=(),
            decay=0.0,
            on_target=self.on_target,
        )
        (entered,) = enter([rows], self._predict(mail), arrival)
        return entered.view_as(mail.messages)

    def _predict(self, mail: Mail) -> Tensor:
        code = None if mail.codes is None else mail.codes.flatten(0, 1)
        return self.predict(mail.messages.flatten(0, 1), code, of="messages")

    def _codes(self, condition: Tensor | None, messages: Tensor) -> Tensor | None:
        encoder = self.signal.conditioned_on
        if encoder is None:
            return None
        number, batch_size = messages.shape[:2]
        if condition is None or condition.shape != (number, batch_size):
            raise ConditionError(
                f"the signal is conditioned: pass labels of shape {(number, batch_size)}, one for "
                "each message and example"
                + ("" if condition is None else f", not {tuple(condition.shape)}")
            )
        return encoder.encode(condition, messages.dtype)
